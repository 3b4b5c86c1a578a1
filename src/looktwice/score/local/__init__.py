"""Run models in this process: the reference path, the fast path, and model families."""
