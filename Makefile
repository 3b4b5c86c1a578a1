# make demo · make test · make check · make bench · make test-slow · make test-newest · make package
# make bench SMOKE=1 runs every path of the benchmarks in seconds.
# PYTHON picks the interpreter that makes .venv (3.11 or newer); PIP_ARGS is handed to pip install.

PYTHON ?= python3
VENV   ?= .venv
NEWEST ?= .venv-newest
VLLM   ?= .venv-vllm
CLIENTS ?= .venv-clients
CLOUDS ?= .venv-clouds
PIP_ARGS ?=
PY     := $(VENV)/bin/python
EXTRAS := timm,st,siglip,smolvlm,bench
# The node that playwright brings needs libatomic.
SYSTEM := chromium=chromium pdftoppm=poppler-utils libatomic.so.1=libatomic1

export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test test-newest test-slow test-gpu test-ray test-vllm test-clients test-clouds test-hostile test-hostile-long check package bench docs constraints clean
.DEFAULT_GOAL := demo

demo: $(VENV)/.ready
	@$(VENV)/bin/looktwice demo

test: $(VENV)/.ready-test
	@scripts/system-packages.sh $(SYSTEM)
	$(PY) -m pytest -n 2

# What pip gives a stranger today: no constraints, every extra, torchvision, and a copy of the package in place of a link.
test-newest: | $(NEWEST)/bin/python
	@scripts/system-packages.sh $(SYSTEM)
	rm -rf build
	$(NEWEST)/bin/python -m pip install -q --upgrade --upgrade-strategy eager $(PIP_ARGS) '.[test,$(EXTRAS)]' torchvision
	$(NEWEST)/bin/python -m pip list
	$(NEWEST)/bin/python -m pytest -n 2

test-slow: $(VENV)/.ready-test
	@scripts/system-packages.sh $(SYSTEM)
	$(PY) -m pytest -m slow

# Attacks with a seed: kill -9, full disks, damaged files. HOSTILE_RUNS=5 HOSTILE_STEPS=3 HOSTILE_FILES=100 is a taste.
# The disks need root.
test-hostile: export HOSTILE_RUNS ?= 20
test-hostile: export HOSTILE_STEPS ?= 8
test-hostile: export HOSTILE_FILES ?= 1000
test-hostile: $(VENV)/.ready-test
	@scripts/system-packages.sh faketime=faketime
	$(PY) -m pytest -n 2 -m hostile tests/hostile --timeout=1800

# 100 kills of each command and 20 steps of each disk.
test-hostile-long: $(VENV)/.ready-test
	@scripts/system-packages.sh faketime=faketime
	HOSTILE_RUNS=100 HOSTILE_STEPS=20 $(PY) -m pytest -n 2 -m hostile tests/hostile --timeout=7200

# A real Ray cluster of two nodes with one core each.
test-ray: $(VENV)/.ready-test
	$(PY) -m pytest -m ray --timeout=7200 tests/test_ray.py

test-gpu: $(VENV)/.ready-test
	$(PY) -m pytest -m gpu tests/gpu

# Real servers on the CPU, vLLM, transformers serve and llama.cpp, in environments of their own (4.7 GB).
test-vllm: $(VENV)/.ready-test
	scripts/vllm-environment.sh $(VLLM) $(PYTHON)
	LOOKTWICE_VLLM=$(VLLM) $(PY) -m pytest -m vllm tests/vllm --timeout=900

# Clients of other projects (LangChain, LlamaIndex, LiteLLM, …) in an environment of their own (0.7 GB).
test-clients: $(VENV)/.ready-test
	scripts/clients-environment.sh $(CLIENTS) $(PYTHON)
	LOOKTWICE_CLIENTS=$(CLIENTS) $(PY) -m pytest -m clients tests/clients

# az:// on Azurite, which needs node, and gs:// on fake-gcs-server, in an environment of their own (0.3 GB).
test-clouds: $(VENV)/.ready-test
	@scripts/system-packages.sh npm=npm
	scripts/clouds-environment.sh $(CLOUDS) $(PYTHON)
	LOOKTWICE_CLOUDS=$(CLOUDS) $(PY) -m pytest -m "clouds and not slow" tests

check: $(VENV)/.ready-dev
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(PY) scripts/cli_docs.py --check

bench: $(VENV)/.ready
	@for script in $(filter-out benchmarks/_%,$(wildcard benchmarks/*.py)); do \
	  echo "== $$script"; $(PY) "$$script" $(if $(SMOKE),--smoke) || exit 1; done

# Fills in what commands print, then builds the site into build/site; what its links or docstrings miss is an error.
docs: $(VENV)/.ready-docs
	$(PY) scripts/cli_docs.py
	$(PY) scripts/snippets.py
	$(PY) -m zensical build --strict --clean

package: $(VENV)/.ready-test
	rm -rf build dist
	$(PY) -m build

constraints: $(VENV)/.ready-dev
	{ sed -n '/^#/p' constraints.txt; $(PY) -m pip freeze --exclude-editable | sed -E 's/\+[A-Za-z0-9.]+$$//'; } > constraints.new
	mv constraints.new constraints.txt

clean:
	rm -rf build dist .cache *.egg-info demo-out .pytest_cache .mypy_cache .ruff_cache .hypothesis

%/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 …" >&2; exit 1; }
	$(PYTHON) -m venv $*

$(VENV)/.ready: pyproject.toml constraints.txt | $(PY)
	$(PY) -m pip install -q $(PIP_ARGS) -c constraints.txt -e .
	@touch $@

$(VENV)/.ready-docs: pyproject.toml constraints.txt | $(PY)
	$(PY) -m pip install -q $(PIP_ARGS) -c constraints.txt -e '.[docs]'
	@touch $@

$(VENV)/.ready-test: pyproject.toml constraints.txt | $(PY)
	$(PY) -m pip install -q $(PIP_ARGS) -c constraints.txt -e '.[test]'
	@touch $@ $(VENV)/.ready

$(VENV)/.ready-dev: pyproject.toml constraints.txt | $(PY)
	$(PY) -m pip install -q $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.ready $(VENV)/.ready-test
