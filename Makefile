# `make train` and `make test` need nothing but Python: they create .venv and install into it on first use.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: help install overcooked football extras browser train test lint format bench docs docs-serve tensorboard lock clean gpu

help:            ## say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .[dev]
	@touch $@

install: $(VENV)/installed  ## create .venv and install everything that tests and training need

# --no-deps: the package declares pygame, which overwrites pygame-ce, and notebooks; its game needs neither.
overcooked: install  ## install what the tests of Overcooked are compared with
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -c constraints.txt \
		overcooked_ai gym gym_notices tqdm pandas

$(VENV)/extras: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .[all]
	@touch $@

extras: $(VENV)/extras  ## install the optional packages too: loggers, clusters, searches, the docs site; without them their tests are skipped

# The test of the report's page opens it in Chromium, which is no Python package.
browser:         ## install the browser that the test of reports opens, where that is possible
	@if [ ! -x /usr/bin/chromium ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; fi; \
	if [ -x /usr/bin/chromium ]; then echo /usr/bin/chromium; \
	else echo "install Chromium as /usr/bin/chromium (Debian: apt-get install chromium); without it a test is skipped"; fi

football: install  ## build and install the engine of Google Research Football; one compiler: make football ARGS="--jobs 1"
	$(BIN)/python -m envs.adapters.football.install $(ARGS)

train: install   ## train QMIX on the embedded battle 3m; other jobs: make train ARGS="algo=vdn env=skirmish/8m"
	$(BIN)/python -m scripts.train $(ARGS)

test: install    ## run the tests on all cores; one after the other: make test ARGS="-n 0"
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist worksteal $(ARGS)

lint: install    ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install  ## rewrite to the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install   ## measure speed and memory
	$(BIN)/python -m scripts.bench $(ARGS)

# DEVICE=cpu tries the command where there is no GPU: its tests are skipped, the rows are the CPU's.
gpu: DEVICE ?= cuda
gpu: OUT ?= docs/results/gpu.json
gpu: install     ## on a machine with a GPU: the tests that need one, then speed; the rows go to docs/results/gpu.json
	$(BIN)/python -m pytest -n 0 -m cuda
	$(BIN)/python -m scripts.bench env=skirmish/3m device=$(DEVICE) replay.device=$(DEVICE) threads=1 out=$(OUT) $(ARGS)

# Both variables only silence advertisements of other site generators. No --quiet: it would hide warnings from --strict.
docs docs-serve: export NO_MKDOCS_2_WARNING = 1
docs docs-serve: export DISABLE_MKDOCS_2_WARNING = true
docs: extras     ## build the documentation into site/; a broken link is an error
	$(BIN)/mkdocs build --strict

docs-serve: extras  ## show the documentation in a browser, renewed while you write
	$(BIN)/mkdocs serve

tensorboard: install  ## watch all runs in a browser
	$(BIN)/tensorboard --logdir runs

lock: install    ## write the versions that are installed now into constraints.txt
	(head -1 constraints.txt; $(BIN)/python -m pip freeze --exclude-editable \
		| sed -E 's/^(torch==[0-9.]+).*/\1/; s/$$/ ; python_version >= "3.11"/') > constraints.new
	mv constraints.new constraints.txt

clean:           ## remove caches; runs and .venv stay
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
	rm -rf .pytest_cache .mypy_cache .ruff_cache
