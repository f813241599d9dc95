# Every target sets up what it needs in .venv; a new machine needs only Python and make.

PYTHON ?= python3
# Parallel test processes (0: none), threads of each, and extra arguments of pytest, e.g.
# ARGS="-k recipe". Two processes of one thread each do not compete for two cores.
WORKERS ?= 2
THREADS ?= 1
ARGS ?=
# Folder of audio files; without it `make bench` omits feature extraction.
ROOT ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install -c constraints.txt
SOURCES_OF_SETUP := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test lint types check docs bench clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/.core  ## Search, train, test, report and predict on generated speech; replaces demo/
	rm -rf demo
	$(BIN)/emodarts demo --out demo

test: $(VENV)/.dev  ## Run the tests
	OMP_NUM_THREADS=$(THREADS) $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

lint: $(VENV)/.dev  ## Check format and style
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(VENV)/.dev  ## Check types
	$(BIN)/mypy

check: lint types test  ## Check format, style and types, and run the tests

docs: $(VENV)/.dev  ## Build the documentation in build/site; a warning is an error
	$(BIN)/python -m sphinx --builder html --conf-dir docs --fail-on-warning --keep-going --quiet --fresh-env . build/site
	@echo "Open build/site/index.html"

bench: $(VENV)/.dev  ## Time everything at small sizes, in minutes; ROOT=DIR of audio files adds features
	set -e; for name in search_step network hessian scaling cost large; do \
	  $(BIN)/python benchmarks/$$name.py --quick --json bench/$$name.json; done
	if [ -n "$(ROOT)" ]; then \
	  $(BIN)/python benchmarks/features.py --quick --root "$(ROOT)" --json bench/features.json; fi

clean:  ## Remove .venv, caches, demo/ and builds, but not runs/ and bench/
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist demo
	find src tests docs benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# The stamps are made last, so that an interrupted set-up is done again.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "emodarts needs Python 3.11 or later; this is %d.%d. Name another: make PYTHON=python3.12 ..." % sys.version_info[:2])'
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.core: $(VENV)/.made $(SOURCES_OF_SETUP)
	@echo "Installing emodarts in $(VENV) (the first time downloads PyTorch: some minutes)"
	$(PIP) -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.made $(SOURCES_OF_SETUP)
	@echo "Installing emodarts and its tools in $(VENV) (the first time downloads PyTorch: some minutes)"
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.core
