# Every target does all of its own set-up, once, in a virtual environment of its own. It needs Python >= 3.11 and nothing else.
#   make test PYTHON=python3.13 VENV=.venv-3.13      another Python, beside the first

PYTHON ?= python3
VENV ?= .venv

MAKEFLAGS += --no-builtin-rules --no-print-directory
PY := $(VENV)/bin/python
PYTHON_VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)

# What has been done, as files in the environment: it was made with this Python, the package is in it, the tools are too.
MADE := $(VENV)/.made-with-python-$(PYTHON_VERSION)
INSTALLED := $(VENV)/.installed
TOOLS := $(VENV)/.installed-tools
PIP_INSTALL := $(PY) -m pip install -qq --disable-pip-version-check

.PHONY: help demo test check bench soak clean

help:
	@echo 'make demo    see what Retroact does: an oversell, replayed, fixed, and the fix proven on the past'
	@echo 'make test    run the tests'
	@echo 'make check   run the static gates: ruff, import contracts, types, tidiness'
	@echo 'make bench   run the benchmarks'
	@echo 'make soak    run the long forms of the tests'
	@echo 'make clean   remove the environments and everything that was built'
	@echo 'PYTHON=$(PYTHON) makes the environment, VENV=$(VENV) is where it is.'

demo: $(INSTALLED)
	@$(VENV)/bin/retroact demo

test: $(TOOLS)
	@$(PY) -m pytest

check: $(TOOLS)
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/lint-imports
	@$(VENV)/bin/basedpyright --pythonpath $(PY)
	@$(PY) -m pytest tests/tidy

bench: $(TOOLS)
	@$(PY) -m bench

soak: $(TOOLS)
	@$(PY) -m pytest -m long --timeout 3600

clean:
	rm -rf .venv .venv-* build dist demo src/*.egg-info
	rm -rf .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment whose Python has gone, or is another than was asked for, is made again.
ifneq ($(shell test -x $(PY) && echo works),works)
.PHONY: $(MADE)
endif

$(MADE):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo 'Retroact needs Python 3.11 or newer, and "$(PYTHON)" is $(or $(PYTHON_VERSION),not to be found).' >&2; \
		echo 'Name another one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo 'This Python cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv' >&2; exit 1; }
	@if [ -f $(VENV)/pyvenv.cfg ]; then rm -rf $(VENV); fi
	@echo 'Making $(VENV) with Python $(PYTHON_VERSION) ...' >&2
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(INSTALLED): pyproject.toml $(MADE)
	@echo 'Installing Retroact into $(VENV) ...' >&2
	@$(PIP_INSTALL) -e .
	@touch $@

$(TOOLS): pyproject.toml $(MADE)
	@echo 'Installing Retroact and its development tools into $(VENV) ...' >&2
	@$(PIP_INSTALL) -e '.[dev]'
	@touch $(INSTALLED) $@
