# make demo · make test · make check · make bench · make test-slow
# make bench SMOKE=1 runs every path of the benchmarks in seconds.
# PYTHON picks the interpreter that makes .venv (3.11 or newer); PIP_ARGS is handed to pip install.

PYTHON ?= python3
VENV   ?= .venv
PIP_ARGS ?=
PY     := $(VENV)/bin/python
SYSTEM := chromium=chromium pdftoppm=poppler-utils

export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test test-slow test-gpu check bench docs constraints clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.ready
	@$(VENV)/bin/looktwice demo

test: $(VENV)/.ready-test
	@scripts/system-packages.sh $(SYSTEM)
	$(PY) -m pytest

test-slow: $(VENV)/.ready-test
	@scripts/system-packages.sh $(SYSTEM)
	$(PY) -m pytest -m slow

test-gpu: $(VENV)/.ready-test
	$(PY) -m pytest -m gpu

check: $(VENV)/.ready-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(PY) scripts/cli_docs.py --check

bench: $(VENV)/.ready
	@for script in $(filter-out benchmarks/_%,$(wildcard benchmarks/*.py)); do \
	  echo "== $$script"; $(PY) "$$script" $(if $(SMOKE),--smoke) || exit 1; done

docs: $(VENV)/.ready
	$(PY) scripts/cli_docs.py
	$(PY) scripts/readme.py

constraints: $(VENV)/.ready-dev
	{ sed -n '/^#/p' constraints.txt; $(PY) -m pip freeze --exclude-editable | sed -E 's/\+[A-Za-z0-9.]+$$//'; } > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf build dist *.egg-info demo-out .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 …" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.ready: pyproject.toml constraints.txt | $(PY)
	$(PY) -m pip install -q $(PIP_ARGS) -c constraints.txt -e .
	@touch $@

$(VENV)/.ready-test: pyproject.toml constraints.txt | $(PY)
	$(PY) -m pip install -q $(PIP_ARGS) -c constraints.txt -e '.[test]'
	@touch $@ $(VENV)/.ready

$(VENV)/.ready-dev: pyproject.toml constraints.txt | $(PY)
	$(PY) -m pip install -q $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.ready $(VENV)/.ready-test
