# make demo    a thousand OTPs through a sandbox: no account, no network
# make test    everything that must pass: lint, types, tests with coverage
# make lint    format, lint and types only
# make bench   speed and memory; takes a while, and nothing fails for being slow
# make kills   kills a bulk run of 10,000 messages a hundred times; takes a minute or two

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: demo test lint format bench kills clean
.DELETE_ON_ERROR:

demo: .venv/installed-cli
	$(BIN)/python -m nxotp_async demo

test: lint
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

lint: .venv/installed-dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy

bench: .venv/installed-dev
	$(BIN)/python benchmarks/hostile_answers.py
	$(BIN)/python benchmarks/bulk_overhead.py --server sandbox
	$(BIN)/python benchmarks/bulk_memory.py --server sandbox --messages 200000

kills: .venv/installed-dev
	$(BIN)/python tests/kills.py --messages 10000 --kills 100

format: .venv/installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.venv/installed-cli: pyproject.toml constraints.txt
	@echo "installing into .venv ..."
	$(PYTHON) -m venv .venv
	$(PIP_INSTALL) --upgrade pip
	$(PIP_INSTALL) --editable '.[cli]'
	touch $@

.venv/installed-dev: .venv/installed-cli
	$(PIP_INSTALL) --editable '.[bench,cli,fast,otel]' --group dev --group docs
	touch $@

clean:
	rm -rf .venv .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache
