#!/bin/sh
# Run a row of version_matrix.toml with a MindSpore, or a Python, that continuous integration does not run it with:
#     ci/try_mindspore.sh [--engines] vllm091 2.9.0 [/path/to/python3.10]
# What passes goes into the matrix as a pair that was "tried". --engines leaves out what knows no vLLM: kernels, networks, loader.
set -eu
cd "$(dirname "$0")/.."
PATH=$PWD/.venv/bin:$PATH # uv, where `make env` put it
units=yes
[ "${1:-}" != --engines ] || { units=no; shift; }
[ $# -ge 2 ] || { sed -n '2,4s/^# *//p' "$0" >&2; exit 2; }
row=$1 mindspore=$2 python=${3:-python3.11}
place=.envs/$row-mindspore-$mindspore-$(basename "$python")
uv venv --quiet --allow-existing --python "$python" "$place"
# Whatever the extra says of it; and see ci/demo-overrides.txt.
printf 'mindspore==%s\n' "$mindspore" | cat - ci/demo-overrides.txt >"$place/overrides.txt"
uv pip install --quiet --python "$place/bin/python" --override "$place/overrides.txt" ".[$row,demo,test]"
[ $units = no ] || "$place/bin/pytest" tests/unit/kernels tests/unit/models tests/unit/loader
engines=$("$place/bin/vllm-mindspore" matrix --json | "$place/bin/python" -c "
import json, sys
print(*(row['engine'] for row in json.load(sys.stdin) if row['extra'] == '$row'))")
for engine in $engines; do
    echo "engine $engine"
    VLLM_USE_V1=${engine#V} "$place/bin/pytest" tests/conformance/test_generation.py
done
