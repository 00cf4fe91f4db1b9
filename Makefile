# `make` lists the targets. All use .venv, which `make setup` makes once.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCE ?= synthetic://street?width=480&height=270&fps=25&seconds=10&seed=1
OUT ?= demo-out
PIP_FLAGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo serve test lint format bench docs clean

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(STAMP) ## make .venv and install Limpid with all it needs into it

$(STAMP): pyproject.toml requirements/ci.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Limpid needs Python 3.11 or later; name one: make setup PYTHON=python3.12'; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' || \
	  { echo 'The venv module is absent; on Debian: sudo apt-get install python3-venv'; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS) --constraint requirements/ci.txt --editable '.[dev]'
	@touch $(STAMP)

demo: $(STAMP) ## process the rendered scene, or SOURCE=file-or-URL, into OUT (demo-out)
	$(BIN)/limpid run '$(SOURCE)' -o '$(OUT)' --overwrite

serve: $(STAMP) ## run the service and its page on 127.0.0.1:8000
	$(BIN)/limpid serve

test: $(STAMP) ## run all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --durations=15

lint: $(STAMP) ## check format, style, types and import layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP) ## run every benchmark; results go to bench-out
	@mkdir -p bench-out
	@set -e; for script in $$(grep -l __main__ benchmarks/*.py); do echo "== $$script"; \
	  $(BIN)/python $$script --json bench-out/$$(basename $$script .py).json; done

docs: $(STAMP) ## run the examples in README and docs
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/docs

clean: ## remove outputs and caches, keep .venv
	rm -rf demo-out bench-out build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
