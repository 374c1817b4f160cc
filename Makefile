# Everything runs in .venv, which the first call creates; later calls start at once. Needs python3
# (3.10 or newer), make and a C compiler. pip reads its own settings (PIP_INDEX_URL and so on) from
# the environment.

PYTHON ?= python3
VENV ?= .venv
# Extra arguments for pytest: make test ARGS="-k fold -x"
ARGS ?=
# Two workers or more pay for themselves; a file's tests stay together and share its fixtures.
WORKERS ?= -n auto --maxprocesses=8 --dist=loadfile

BIN := $(VENV)/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# Every change of these may change what an installation holds.
INSTALL_INPUTS := pyproject.toml constraints.txt
C_SOURCES := $(shell find runtime_c -name '*.[ch]' 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-all lint format clean compiler
.DELETE_ON_ERROR:

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: compiler $(VENV)/.runtime ## compile the shipped MNIST model to C, verify it, show what came out
	@$(BIN)/python examples/mnist_mlp/demo.py

test: compiler $(VENV)/.dev ## run the test suite (a few minutes)
	$(BIN)/python -m pytest -q $(WORKERS) $(ARGS)

test-slow: compiler $(VENV)/.dev ## run only the longer sweeps that `make test` leaves out
	$(BIN)/python -m pytest -q -m slow $(WORKERS) $(ARGS)

test-all: compiler $(VENV)/.dev ## run everything, the longer sweeps too, and report coverage
	$(BIN)/python -m pytest -q -m '' --cov=bnncc --cov-report=term $(WORKERS) $(ARGS)

lint: $(VENV)/.dev ## check style and types of the Python, style of the C
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(if $(C_SOURCES),$(BIN)/clang-format --dry-run -Werror $(C_SOURCES))

format: $(VENV)/.dev ## rewrite the sources in the project's style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(if $(C_SOURCES),$(BIN)/clang-format -i $(C_SOURCES))

clean: ## delete .venv, builds and caches
	rm -rf $(VENV) build dist out examples/*/out htmlcov .coverage .coverage.* \
	  .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- The environment ------------------------------------------------------------------------------

compiler:
	@command -v cc >/dev/null || command -v gcc >/dev/null || command -v clang >/dev/null || { \
	  echo 'error: no C compiler found (cc, gcc or clang)' >&2; \
	  echo '  help: on Debian or Ubuntu: sudo apt install gcc libc6-dev' >&2; exit 1; }

$(VENV)/.created:
	@command -v $(PYTHON) >/dev/null || { \
	  echo 'error: $(PYTHON) not found' >&2; \
	  echo '  help: on Debian or Ubuntu: sudo apt install python3 python3-venv' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "error: bnncc needs Python 3.10 or newer; $(PYTHON) is `$(PYTHON) --version`" >&2; \
	  echo '  help: name a newer one: make PYTHON=python3.12 ...' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo 'error: $(PYTHON) cannot create a virtual environment: its ensurepip module is missing' >&2; \
	  echo '  help: on Debian or Ubuntu: sudo apt install python3-venv' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# bnncc is installed editable, so that a change in the checkout needs no reinstall. The build backend
# comes from the constraints too: build isolation would fetch whatever is newest.
$(VENV)/.runtime: $(VENV)/.created $(INSTALL_INPUTS)
	@echo 'Installing bnncc and what it needs into $(VENV) (once; about 350 MB on disk) ...'
	@$(PIP_INSTALL) hatchling
	@$(PIP_INSTALL) --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.created $(INSTALL_INPUTS)
	@echo 'Installing bnncc, PyTorch and the test tools into $(VENV) (once; takes minutes) ...'
	@$(PIP_INSTALL) hatchling
	@$(PIP_INSTALL) --no-build-isolation --editable '.[train,dev]'
	@touch $(VENV)/.runtime $@
