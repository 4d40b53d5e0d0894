#!/usr/bin/env bash
# Everything worth knowing on a GPU, most important first, within a time limit:
#     benchmarks/gpu.sh [seconds, default 480] [size, default llama-2-7b] [more options of gpu.py]
# OUT names the folder of the results (default benchmarks/results), PYTHON the interpreter (default python3), SIZE the size.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
export PYTHONPATH="$root/workflow${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" "$root/benchmarks/gpu.py" --seconds "${1:-480}" --size "${2:-${SIZE:-llama-2-7b}}" \
    --out "${OUT:-$root/benchmarks/results}" "${@:3}"
