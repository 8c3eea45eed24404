#!/usr/bin/env bash
# Train under Slurm: tools/slurm_train.sh PARTITION JOB CONFIG [flags of tools/train.py]
# GPUS in all (8), GPUS_PER_NODE (GPUS, 8 at most; 0 trains on CPUs), CPUS_PER_TASK (5),
# SRUN_ARGS: more flags of srun. --resume goes on from the newest checkpoint.
set -euo pipefail

if [ $# -lt 3 ]; then
    echo "usage: [GPUS=8] [GPUS_PER_NODE=8] [CPUS_PER_TASK=5] [SRUN_ARGS=...]" \
        "$0 PARTITION JOB CONFIG [flags of tools/train.py]" >&2
    exit 2
fi
partition=$1
job=$2
config=$3
shift 3
gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}

command=(srun --partition="$partition" --job-name="$job" --ntasks="$gpus")
if [ "$per_node" -gt 0 ]; then
    command+=(--gres="gpu:$per_node" --ntasks-per-node="$per_node")
fi
command+=(--cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1)
# Several flags in one variable, as in mmdet's script.
read -r -a more <<<"${SRUN_ARGS:-}"
command+=(${more[@]+"${more[@]}"})
# A job's own port, or two jobs whose first processes share a machine would meet.
export MASTER_PORT=${MASTER_PORT:-${PORT:-$((20000 + ${SLURM_JOB_ID:-$$} % 20000))}}

exec "${command[@]}" "${PYTHON:-python}" -u "$(dirname "$0")/train.py" "$config" \
    --launcher slurm "$@"
