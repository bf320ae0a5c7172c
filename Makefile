# make run | make test | make check | make storm | make bench | make bench NAME=writes | make clean
# Everything happens in .venv; PYTHON chooses the interpreter (3.11 or newer).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.installed-bench

NAME ?= all
ARGS ?=

.PHONY: run test check storm bench clean

run: $(STAMP)
	$(BIN)/scoreboard serve --data-dir data --welcome

test: $(STAMP) check
	$(BIN)/pytest

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/house

storm: $(STAMP)
	$(BIN)/python -m tests.cluster.storm $(ARGS)

bench: $(BENCH_STAMP)
	$(BIN)/python -m bench.$(NAME) $(ARGS)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "scoreboard needs Python 3.11 or newer; say which one with PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

$(BENCH_STAMP): $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,bench]'
	@touch $@

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
