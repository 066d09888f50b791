# Two commands do all the set-up:  make demo  and  make test.
# Plain POSIX make; Python 3.11 or newer (another one than python3: make demo PYTHON=/path/to/python3.12).
.POSIX:
.SUFFIXES:
.PHONY: help demo test install install-dev lock clean

PYTHON = python3
VENV = .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check --no-input
# Not compiled ahead: most modules are never imported, and compiling all takes longer than the rest of the install.
INSTALL = $(PIP) install --quiet --no-compile --constraint constraints.txt
# Which tests: all but those that need an accelerator or the internet. The browser ones skip where there is no chromium.
TESTS = not gpu and not network and not long
# Two processes take 0.53 of the time of one on two cores; a file's tests stay together, for they share runs.
PROCESSES = --numprocesses 2 --dist loadfile --no-loadscope-reorder
# Tests reach nothing outside this machine.
OFFLINE = HF_HUB_OFFLINE=1 HF_DATASETS_OFFLINE=1 TRANSFORMERS_OFFLINE=1 DO_NOT_TRACK=1

# The install compiles nothing ahead, so compiled modules are kept at first use, whatever the environment says of that.
KEEP = PYTHONDONTWRITEBYTECODE=

help:
	@echo 'make demo         install into $(VENV), run the whole loop on the demo, print its figures and the report'
	@echo 'make test         install the development tools, too; check style, types, architecture; run the tests'
	@echo 'make install      only install            (make install-dev: with the development tools)'
	@echo 'make lock         write constraints.txt from what $(VENV) holds'
	@echo 'make clean        remove $(VENV) and caches; runs and results under ./artifacts stay'

demo: $(VENV)/.installed
	$(KEEP) $(BIN)/visloop run demo

test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(KEEP) $(OFFLINE) $(BIN)/python -m pytest -m '$(TESTS)' $(PROCESSES)

install: $(VENV)/.installed

install-dev: $(VENV)/.installed-dev

# A stamp each, so that nothing is installed twice. Whichever python is new enough makes the environment.
$(VENV)/.installed: pyproject.toml constraints.txt
	@for python in $(BIN)/python $(PYTHON) python3.14 python3.13 python3.12 python3.11; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    test "$$python" = $(BIN)/python || "$$python" -m venv --clear $(VENV) || exit 1; \
	    exit 0; \
	  fi; \
	done; \
	echo "visloop needs Python 3.11 or newer; found: $$($(PYTHON) --version 2>&1)" >&2; \
	echo "install one, then for example: make demo PYTHON=/usr/bin/python3.12" >&2; \
	exit 1
	@echo 'installing into $(VENV): some 170 packages at the versions of constraints.txt, a few minutes once'
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(INSTALL) --editable '.[dev]'
	@touch $@

lock: $(VENV)/.installed-dev
	$(BIN)/python .ci/lock.py > constraints.txt.new
	mv constraints.txt.new constraints.txt
	@touch $(VENV)/.installed $(VENV)/.installed-dev

clean:
	rm -rf $(VENV) build dist visloop.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find flows tasks storage tests benchmarks -name __pycache__ -prune -exec rm -rf {} +
