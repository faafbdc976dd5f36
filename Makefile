# make demo   heat maps of a real classifier on a real photo, from nothing
# make test   every check and every test, from nothing
# make lint   the checks alone
# make pins   write requirements/*.txt anew from pyproject.toml
# make clean  remove what the others made
#
# Needs Python >= 3.11 with pip and venv, make and a package index. Another Python: make test PYTHON=python3.12

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
UV ?= uv
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --quiet

.PHONY: demo test lint pins clean python-version

demo: $(VENV)/.installed
	$(BIN)/onnx-gradcam --version

test: lint
	$(BIN)/python -m pytest -n 2

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

python-version:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "error: '$(PYTHON)' is not Python 3.11 or newer; name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }

$(VENV)/.installed: requirements/run.txt pyproject.toml | python-version
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) --require-hashes -r requirements/run.txt
	$(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-dev: requirements/dev.txt $(VENV)/.installed
	$(PIP_INSTALL) --require-hashes -r requirements/dev.txt
	@touch $@

# --universal: one file for every Python and system; never the address of an index in it
PINS := --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
        --extra cpu --extra export
pins:
	$(UV) pip compile pyproject.toml $(PINS) --group dev --quiet -o requirements/dev.txt
	$(UV) pip compile pyproject.toml $(PINS) --group build -c requirements/dev.txt --quiet -o requirements/run.txt

clean:
	rm -rf $(VENV) demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
