"""Serve the model that tiny_gguf.py wrote with llama.cpp: runs in the environment that has xllamacpp.

python serve_gguf.py FOLDER PORT
"""

import sys
import threading
from pathlib import Path

import xllamacpp

if __name__ == "__main__":
    folder, port = Path(sys.argv[1]), int(sys.argv[2])
    params = xllamacpp.CommonParams()
    params.model.path, params.mmproj.path = str(folder / "text.gguf"), str(folder / "vision.gguf")
    params.model_alias = {"tiny-vl"}
    params.port = port
    params.n_ctx, params.n_parallel = 4096, 4
    params.cpuparams.n_threads = 1
    params.image_min_tokens, params.image_max_tokens = 1, 64  # so that images of 120 pixels stay as they are
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    threading.Event().wait()
