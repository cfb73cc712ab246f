# Gristmill. `make` alone lists what there is to make.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# The processes of the tests: one a core, four at the most (each imports PyTorch and Prefect).
JOBS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); echo $$(( n < 4 ? n : 4 )))

.PHONY: help setup run serve test lint clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.stamp  ## make .venv and install (skipped when pyproject.toml and constraints.txt are as they were)

# PyTorch first and alone: it is the largest, and a failure to find it is then plain to see.
$(VENV)/.stamp: pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "python3 is missing: apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Python 3.11 or later is needed, $$($(PYTHON) --version) is here; name another: make PYTHON=python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "the venv module is missing: apt-get install python3-venv" >&2; exit 1; }
	@command -v g++ >/dev/null || command -v c++ >/dev/null || { \
	  echo "a C++ compiler is missing (DeepSpeed builds an operator with it): apt-get install g++" >&2; exit 1; }
	@$(PYTHON) -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(sysconfig.get_paths()["include"] + "/Python.h"))' || \
	  echo "note: Python.h is missing; if DeepSpeed cannot build its operator: apt-get install python3-dev" >&2
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@touch $@

run: setup  ## everything once: sample crawl, corpus, a small model, summary (at most 5 minutes after the install)
	$(BIN)/python -m flows.quickstart

serve: setup  ## Prefect server, deployments, schedules and a worker until Ctrl-C
	$(BIN)/python -m flows.embedded

test: setup  ## all tests
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

lint: setup  ## ruff
	$(BIN)/ruff check .

clean:  ## remove what was built, not the data
	rm -rf $(VENV) build ./*.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
