#!/bin/sh
# Build an environment with rerank clients of other projects, for `make test-clients`: scripts/clients-environment.sh FOLDER [PYTHON]
# PIP_ARGS is handed to pip. It takes 0.7 GB. What is there already is kept.
set -eu
folder=$1
python=${2:-python3}

[ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
# shellcheck disable=SC2086
"$folder/bin/python" -m pip install -q ${PIP_ARGS:-} cohere openai litellm \
    langchain-cohere llama-index-postprocessor-jinaai-rerank llama-index-postprocessor-cohere-rerank
