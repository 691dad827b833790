# Everything that people and CI do here; `make help` lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SOURCES := client collector quantizer quamba proto/qlog tests setup.py

.DEFAULT_GOAL := help
.PHONY: help setup proto demo test test-long test-gpu test-node bench bench-mlflow lint format type coverage clean

help: ## What can be made
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## The virtual environment in .venv, with everything for development

# torch first and pinned: pip takes a CPU build of that version where it finds one, and nothing later replaces it.
$(READY): pyproject.toml setup.py constraints.txt $(wildcard proto/qlog/v1/*.proto)
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or later is needed: make PYTHON=python3.12 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --editable '.[quantizer,dev]'
	# Byte code, so that the programs start as soon as where pip copies them; also where PYTHONDONTWRITEBYTECODE is set.
	$(BIN)/python -m compileall -q client collector quantizer quamba proto/qlog
	touch $(READY)

proto: setup ## The gRPC stubs in proto/qlog/v1, generated anew
	$(BIN)/python setup.py proto

demo: setup ## Three experiments on small models, from submission to comparison (under 3 minutes)
	$(BIN)/python -m tests.demo

test: setup ## The tests, a file at a time on each core (under 10 minutes on 2 cores)
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

test-long: setup ## The long tests too: large models and data (QLOG_ASSETS), hours of damage in minutes
	$(BIN)/python -m pytest -m 'long'

test-gpu: setup ## The tests that need a CUDA device
	$(BIN)/python -m pytest -m 'gpu'

test-node: setup ## The client in another language: needs Node 18 or later and its npm, which fetches two packages
	npm install --prefix tests/integration/node --no-package-lock --no-audit --no-fund
	$(BIN)/python -m pytest -m 'node'

bench: setup ## The benchmarks: ratios, both sides in one run
	$(BIN)/python -m pytest -m 'bench and not mlflow' -s tests/bench

bench-mlflow: setup ## Against MLflow, installed into an environment of its own (minutes)
	$(BIN)/python -m pytest -m mlflow -s tests/bench

lint: setup ## Format, lint rules, directions of import
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

format: setup ## Format the code and mend what can be mended
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

type: setup ## mypy --strict
	$(BIN)/mypy

coverage: setup ## The tests, with the lines they reach
	$(BIN)/python -m pytest --cov --cov-report=term-missing:skip-covered

clean: ## Remove what was built (keeps logs/)
	rm -rf $(VENV) build *.egg-info tests/integration/node/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis
	rm -f proto/qlog/v1/*_pb2*.py proto/qlog/v1/*_pb2.pyi
