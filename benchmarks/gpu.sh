#!/usr/bin/env bash
# Run all GPU tests and benchmarks on a machine with a GPU, without network and in under eight minutes:
#
#     benchmarks/gpu.sh FOLDER
#
# Writes to FOLDER the report of the tests, the output of `doctor`, and for each benchmark JSON with every repeat, a
# Markdown table and a chart. Needs dali-asr and its `dev` extra; `PYTHON` selects the interpreter.
set -euo pipefail
folder=$(mkdir -p "${1:?usage: benchmarks/gpu.sh FOLDER}" && cd "$1" && pwd)
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1 COLUMNS=160
python=${PYTHON:-python3}
failed=()

# Each part has its own time limit. If one fails, the others still run.
part() {
    local name=$1 limit=$2
    shift 2
    echo "== $name"
    timeout "$limit" "$@" 2>&1 | tee "$folder/$name.txt" || failed+=("$name")
}

cores=$(nproc)
part doctor 20 "$python" -m dali_asr doctor
part tests 100 "$python" -m pytest -q -o addopts= -p no:cacheprovider tests/gpu
part loader 230 "$python" -m dali_asr bench loader --force --repeats 3 --seconds 0.15 \
    --workers 0 --workers $((cores / 2)) --workers "$cores" \
    --json "$folder/loader.json" --table "$folder/loader.md" --chart "$folder/loader.png"
part train 80 "$python" -m dali_asr bench train --force --repeats 3 --seconds 0.5 --batch-size 4096 --batch-size 8192 \
    --json "$folder/train.json" --table "$folder/train.md" --chart "$folder/train.png"
part start 45 "$python" benchmarks/start.py --repeats 2 --json "$folder/start.json"

if ((${#failed[@]})); then
    echo "failed: ${failed[*]}"
    exit 1
fi
echo "Written to $folder"
