#!/usr/bin/env bash
# Checks looktwice on one GPU in under eight minutes and writes one JSON file; see scripts/gpu/check.py --help.
#   scripts/gpu-check.sh                          PYTHON: an interpreter with a CUDA build of torch (.venv's, or python3)
#   scripts/gpu-check.sh --device cpu --smoke     WHEELS: a folder of wheels for what is missing, instead of pip's index
# What is missing is installed below build/, nothing else is changed; torch is never installed.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)

python=${PYTHON:-python3}
[ -n "${PYTHON:-}" ] || [ ! -x "$root/.venv/bin/python" ] || python=$root/.venv/bin/python
extra=$root/build/gpu-check
export PYTHONPATH="$root/src:$root/tests:$root:$extra${PYTHONPATH:+:$PYTHONPATH}"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-4} TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1

mapfile -t missing < <("$python" "$root/scripts/gpu/needs.py" | sed '/^$/d')
if [ ${#missing[@]} -gt 0 ]; then
  if [[ " ${missing[*]} " == *" torch>="* ]]; then
    echo "Error: $python has no torch 2.6 or newer; install its CUDA build, or name another interpreter with PYTHON=." >&2
    exit 2
  fi
  echo "installing below build/gpu-check: ${missing[*]}" >&2
  from=()
  [ -z "${WHEELS:-}" ] || from=(--no-index --find-links "$WHEELS")
  if ! "$python" -m pip install -q --target "$extra" --upgrade "${from[@]}" "${missing[@]}" >&2; then
    echo "Error: not all of this could be installed: ${missing[*]}; install it for $python, or put wheels in a folder and name it with WHEELS=." >&2
    exit 2
  fi
fi

exec "$python" -m scripts.gpu.check "$@"
