#!/usr/bin/env bash
# Train on several processes: tools/dist_train.sh CONFIG GPUS [flags of tools/train.py]
# Several machines: set NNODES, NODE_RANK and MASTER_ADDR on each of them; PORT if the
# one of torchrun, 29500, is taken. GPUS is the number of processes of one machine.
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG GPUS [flags of tools/train.py]" >&2
    exit 2
fi
config=$1
gpus=$2
shift 2
machines=${NNODES:-1}
machine=${NODE_RANK:-0}

# Before the start, so that no signal falls between it and the trap.
torchrun=
stopped=
trap 'stopped=1; [ -z "$torchrun" ] || kill -TERM "$torchrun" 2>/dev/null || true' \
    INT TERM HUP

# In the background, because bash handles no signal while it waits for a command.
"${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="$machines" \
    --node_rank="$machine" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$gpus" \
    "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@" &
torchrun=$!
[ -z "$stopped" ] || kill -TERM "$torchrun" 2>/dev/null || true

# Not `wait`: a signal that arrives just before it is handled only after it.
while kill -0 "$torchrun" 2>/dev/null; do
    sleep 0.2 || true
done
status=0
wait "$torchrun" || status=$?
if [ "$status" -ne 0 ]; then
    echo "dist_train.sh: machine $machine (of $machines, from 0) stopped with exit" \
        "status $status. If a line above starts with 'error:', mend what it names." \
        "Otherwise a process here or on another machine died or could not be" \
        "reached; to go on from the newest checkpoint, start the same command on" \
        "every machine with --resume" >&2
fi
exit "$status"
