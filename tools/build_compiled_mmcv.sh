#!/usr/bin/env bash
# Install mmcv 2.1.0 with compiled operators: tools/build_compiled_mmcv.sh PYTHON
# The wheel is kept per torch version outside the clone; building it takes about half an
# hour of CPU time. pip's own cache is left out: it would hand a wheel built for one torch
# to another.
set -euo pipefail

python=$1
key=$("$python" -c 'import sys, torch
print(f"torch-{torch.__version__}-cp{sys.version_info[0]}{sys.version_info[1]}")')
cache=${MMDET_BACKBONES_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/mmdet_backbones}
store=$cache/compiled/$key

if ! ls "$store"/mmcv-2.1.0-*.whl >/dev/null 2>&1; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    "$python" -m pip install --quiet ninja psutil wheel
    "$python" -m pip download --no-deps --no-build-isolation --no-cache-dir \
        --no-binary mmcv --dest "$work" mmcv==2.1.0
    tar -xzf "$work"/mmcv-2.1.0.tar.gz -C "$work"
    # The headers of torch 2.14 need C++20; mmcv 2.1.0 asks for C++17.
    sed -i 's/c++17/c++20/g' "$work"/mmcv-2.1.0/setup.py
    MMCV_WITH_OPS=1 MAX_JOBS=${MAX_JOBS:-2} "$python" -m pip wheel --no-deps \
        --no-build-isolation --no-cache-dir --wheel-dir "$work/built" "$work/mmcv-2.1.0"
    mkdir -p "$store"
    mv "$work"/built/mmcv-2.1.0-*.whl "$store/"
fi
"$python" -m pip uninstall --quiet --yes mmcv-lite mmcv
"$python" -m pip install --quiet --no-deps --no-cache-dir "$store"/mmcv-2.1.0-*.whl
"$python" -c 'import mmcv._ext; print("compiled operators:", mmcv._ext.__file__)'
