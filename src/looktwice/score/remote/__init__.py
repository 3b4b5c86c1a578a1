"""Score pairs on servers: vLLM, SGLang, llama.cpp and hosted services, over HTTP."""
