# Shortcuts for people and for CI; `make help` lists them. Every target works in a fresh clone: what it needs
# is installed first, into .venv, and again only after pyproject.toml has changed.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(shell for p in python3.11 python3; do "$$p" -c "" 2>/dev/null && { echo "$$p"; break; }; done)
VENV := .venv
BIN := $(VENV)/bin
# a checksum and not a date: dates are those of the checkout in a fresh clone
STAMP := $(VENV)/.installed-$(shell cksum < pyproject.toml | tr -s ' ' '-')
CODE := mibench attacks defenses tests $(wildcard benchmarks)
JOBS ?= 2
KILLS ?= 100

# one thread a process: threads of several processes on shared cores wait for each other
export OMP_NUM_THREADS := 1

.NOTPARALLEL:
.PHONY: help install fmt lint type test test-slow contract toy lock site bench demo readme docs transcripts check chaos clean

help:  ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)-dev  ## Install mibench from this checkout with all tools, into .venv.

fmt: $(STAMP)-dev  ## Format the code and apply safe fixes.
	$(BIN)/ruff check --fix-only $(CODE)
	$(BIN)/ruff format $(CODE)

lint: $(STAMP)-dev  ## Check style, format and the import contracts.
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/lint-imports --no-logo

type: $(STAMP)-dev  ## Check types, strictly.
	$(BIN)/mypy $(CODE)

test: $(STAMP)-test  ## Run the fast tests; at most ten minutes on two cores.
	$(BIN)/python -m pytest -m "not slow" -n $(JOBS)

test-slow: $(STAMP)-test  ## Run the tests that take minutes.
	$(BIN)/python -m pytest -m slow -n $(JOBS)

chaos: $(STAMP)-test  ## Kill `smoke` over and over, and look whether it matters: make chaos KILLS=100.
	$(BIN)/python -m pip install -q -e '.[ray]'
	cd tests && ../$(BIN)/python -m chaos --kills $(KILLS) --out ../results/chaos

contract: $(STAMP)-test  ## Check one plugin against the contract: make contract P=dmi (a name or a file).
	@test -n "$(P)" || { echo "contract: no plugin. Name one: make contract P=dmi"; exit 2; }
	$(BIN)/mibench check $(P)

toy: $(STAMP)  ## Run the suite `smoke`: every part for a few steps.
	$(BIN)/mibench run smoke

lock: $(STAMP)-test  ## Write plugins.lock anew, after the version of a changed plugin was raised.
	$(BIN)/mibench lock

site: $(STAMP)  ## Write the pages of results/quick anew, from its records alone.
	$(BIN)/mibench report results/quick

bench: $(STAMP)-test  ## Measure the speed of mibench itself, and compare it with what is committed.
	mkdir -p .benchmarks
	$(BIN)/python -m pytest benchmarks --benchmark-enable --benchmark-only -p no:xdist --benchmark-json .benchmarks/now.json
	$(BIN)/python benchmarks/compare.py results/benchmarks .benchmarks/now.json

demo: $(STAMP)  ## Install, run the suite `quick`, print its table and name the files.
	$(BIN)/mibench run quick

readme: $(STAMP)  ## Fill tables and write the pages of attacks and defenses from the committed records.
	$(BIN)/python docs/embed_table.py README.md docs/gpu.md results/*/README.md
	$(BIN)/python docs/plugin_pages.py
	$(BIN)/python docs/data_page.py
	$(BIN)/python docs/cli_page.py
	$(BIN)/python docs/suite_keys.py
	$(BIN)/python docs/statistics_page.py

docs: $(STAMP)-docs  ## Build the pages of docs/ into docs/_build/html; a warning is an error.
	$(BIN)/python -m sphinx -q -n -W --keep-going -b html docs docs/_build/html

transcripts: $(STAMP)-test  ## Run the transcripts of the pages, and write what has changed.
	$(BIN)/python docs/transcripts.py

check: lint type test  ## Run all that CI runs.

clean:  ## Remove caches and builds; results and .venv stay.
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .benchmarks .import_linter_cache
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(STAMP): | $(BIN)/python
	$(BIN)/python -m pip install -q -e .
	touch $@

$(STAMP)-test: | $(BIN)/python
	$(BIN)/python -m pip install -q -e '.[test]'
	touch $(STAMP) $@

$(STAMP)-docs: | $(BIN)/python
	$(BIN)/python -m pip install -q -e '.[docs]'
	touch $(STAMP) $@

$(STAMP)-dev: | $(BIN)/python
	$(BIN)/python -m pip install -q -e '.[dev]'
	touch $(STAMP) $(STAMP)-test $@
