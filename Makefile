# Needs make, a shell and Python 3.10 or newer; everything else is installed into $(VENV).
#   make demo               separate the song that comes with stemsplit
#   make test               everything that must hold: formatting, lint, types, tests
#   make test-oldest-hub    the tests of downloads with the oldest client of the Hub that may be installed
#   make check-wheel        build the wheel, install it alone, separate a song with it
# Another Python:  PYTHON=python3.12 make demo

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
REQUIREMENTS := pyproject.toml constraints.txt stemsplit/version.py

.PHONY: demo test test-oldest-hub check-wheel

demo: $(VENV)/.installed
	$(BIN)/stemsplit demo --overwrite --output separated

test: $(VENV)/.installed-for-tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

test-oldest-hub: $(VENV)/.installed-for-tests
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade --target $(VENV)/oldest-hub \
		huggingface_hub==1.20.1 httpx==0.28.1 httpcore==1.0.9 certifi
	PYTHONPATH=$(VENV)/oldest-hub $(BIN)/python -m pytest -q tests/test_hub.py

check-wheel: $(VENV)/.installed-for-tests
	PYTHON=$(BIN)/python sh .ci/check-wheel

$(VENV)/.installed: $(VENV)/.created $(REQUIREMENTS)
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-for-tests: $(VENV)/.created $(REQUIREMENTS)
	$(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	touch $@ $(VENV)/.installed

$(VENV)/.created:
	@command -v $(PYTHON) >/dev/null || \
		{ echo "There is no $(PYTHON). Install Python 3.10 or newer, or say where it is: PYTHON=/path/to/python make" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "stemsplit needs Python 3.10 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: PYTHON=python3.12 make" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "$(PYTHON) cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@touch $@
