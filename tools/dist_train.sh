#!/usr/bin/env bash
# Train on several processes: tools/dist_train.sh CONFIG GPUS [flags of tools/train.py]
# Several machines: set NNODES, NODE_RANK and MASTER_ADDR on each of them; PORT if the
# one of torchrun, 29500, is taken. GPUS is the number of processes of one machine. On one
# machine alone, `mmdet-backbones train CONFIG --gpus GPUS` is the same.
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG GPUS [flags of tools/train.py]" >&2
    exit 2
fi
config=$1
gpus=$2
shift 2
exec "${PYTHON:-python}" "$(dirname "$0")/train.py" "$config" --gpus "$gpus" "$@"
