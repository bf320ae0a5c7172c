# make run | make run-cluster | make run-ha | make test | make check | make bench | make bench NAME=writes | make clean
# make dist: wheel and sdist in dist/
# make sim ARGS="--minutes 10" | make crash | make hostile | make conformance | make soak ARGS="--minutes 60" | make storm:
# the long forms of what `make test` runs a slice of
# Everything happens in .venv; PYTHON chooses the interpreter (3.11 or newer).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BENCH_STAMP := $(VENV)/.installed-bench

NAME ?= all
ARGS ?=

.PHONY: run run-cluster run-ha test check bench dist clean sim crash hostile conformance soak storm

run: $(STAMP)
	$(BIN)/scoreboard serve --data-dir data --welcome

run-cluster: $(STAMP)
	$(BIN)/python -m bench.cluster_demo $(ARGS)

run-ha: $(STAMP)
	$(BIN)/python -m bench.ha_demo $(ARGS)

test: $(STAMP)
	$(BIN)/python -m tests.runners

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/house

sim: $(STAMP)
	$(BIN)/python -m tests.sim $(ARGS)

crash: $(STAMP)
	$(BIN)/python -m tests.sim.crash $(ARGS)

storm: $(STAMP)
	$(BIN)/python -m tests.cluster.storm $(ARGS)

bench: $(BENCH_STAMP)
	$(BIN)/python -m bench.$(NAME) $(ARGS)

hostile: $(STAMP)
	HOSTILE_LONG=1 HOSTILE_ROUNDS=$${HOSTILE_ROUNDS:-2} $(BIN)/pytest -rP $(ARGS) tests/hostile

conformance: $(STAMP)
	CONFORMANCE_EXAMPLES=$${CONFORMANCE_EXAMPLES:-300} $(BIN)/pytest -rP $(ARGS) tests/conformance

soak: $(STAMP)
	$(BIN)/python -m tests.soak $(ARGS)

dist: $(STAMP)
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist .

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "scoreboard needs Python 3.11 or newer; say which one with PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

$(BENCH_STAMP): $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,bench]'
	@touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
