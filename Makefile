# The two commands a newcomer needs are `make demo` and `make test`. Both need Python 3.11 or later and make, nothing else.
PYTHON ?= python3
VENV := .venv
VISION := $(VENV)/vision
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
PIP := $(RUN) -m pip install --quiet --disable-pip-version-check --constraint requirements/dev.txt

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test lint bench docs clean

help:
	@echo "make demo    see a real model learn with a frozen part (under a minute)"
	@echo "make test    lint, types and every test"
	@echo "make lint    lint and types only"
	@echo "make bench   what freezing costs, as ratios"
	@echo "make docs    the documentation as a site, in docs/_build/html"
	@echo "make clean   remove the environment and the caches"

demo: $(READY)
	$(VENV)/bin/frostline demo

test: lint
	$(RUN) -m pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile

lint: $(READY)
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

bench: $(READY)
	$(RUN) -m benchmarks

docs: $(READY)
	$(RUN) -m sphinx --fail-on-warning --keep-going --quiet --builder html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

clean:
	rm -rf $(VENV) docs/_build .mypy_cache .pytest_cache .ruff_cache .hypothesis

# Built again when the dependencies change, and from nothing: a half-built environment has no stamp.
# torch goes first and alone, so that nothing else decides which build of it is taken. A torchvision from PyPI may be
# of another build, and then transformers cannot be imported beside it: it gets a folder that only one test looks into.
$(READY): pyproject.toml requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "frostline needs Python 3.11 or later: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Setting up $(VENV) (once, some minutes) ..."
	$(PYTHON) -m venv --clear $(VENV)
	$(PIP) torch==2.13.0
	$(PIP) --editable '.[torch,jax,equinox,flax,haiku,transformers,lightning,accelerate,peft,keras,plot,demo,docs,dev]'
	$(PIP) --no-deps --target $(VISION) timm torchvision
	@touch $@
