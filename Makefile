# Needs make, a shell and Python 3.10 or newer. Everything else is installed into a virtual environment, $(VENV).
# To use another Python:  PYTHON=python3.12 make test

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
REQUIREMENTS := pyproject.toml constraints.txt stemsplit/version.py
PIP := $(BIN)/python -m pip --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist worksteal --durations 10

.DEFAULT_GOAL := help
.PHONY: help demo fmt lint test-fast test docs test-oldest-hub check-wheel clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r target text; \
		do printf '  make %-17s %s\n' "$$target" "$$text"; done

demo: $(VENV)/.installed ## Separate the demo song that comes with stemsplit
	$(BIN)/stemsplit demo --overwrite --output separated

fmt: $(VENV)/.installed-for-tests ## Format the code and apply the safe fixes of the linter
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lint: $(VENV)/.installed-for-tests ## Check formatting, lint, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test-fast: $(VENV)/.installed-for-tests ## Run the quick tests: about a minute on two cores
	$(PYTEST) -m 'not slow and not full'

test: lint ## Run lint and all tests, as continuous integration does
	$(PYTEST)

docs: $(VENV)/.installed-for-docs ## Regenerate docs/cli.md and build the documentation site in site/
	$(BIN)/python docs/generate_cli.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "site/index.html"

test-oldest-hub: $(VENV)/.installed-for-tests ## Test downloads with the oldest Hub client that stemsplit supports
	$(PIP) install --quiet --no-deps --upgrade --target $(VENV)/oldest-hub \
		huggingface_hub==1.20.1 httpx==0.28.1 httpcore==1.0.9 certifi
	PYTHONPATH=$(VENV)/oldest-hub $(BIN)/python -m pytest -q tests/models/test_hub.py

check-wheel: $(VENV)/.installed-for-tests ## Build the wheel, install it alone, and separate a song with it
	PYTHON=$(BIN)/python sh .ci/check-wheel

clean: ## Delete what the other targets made, except the virtual environment
	rm -rf build dist site separated .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(VENV)/.installed: $(VENV)/.created $(REQUIREMENTS)
	$(PIP) install --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-for-tests: $(VENV)/.created $(REQUIREMENTS)
	$(PIP) install --constraint constraints.txt --editable '.[test]'
	touch $@ $(VENV)/.installed

$(VENV)/.installed-for-docs: $(VENV)/.created $(REQUIREMENTS)
	$(PIP) install --constraint constraints.txt --editable '.[docs]'
	touch $@ $(VENV)/.installed

$(VENV)/.created:
	@command -v $(PYTHON) >/dev/null || \
		{ echo "There is no $(PYTHON). Install Python 3.10 or newer, or say where it is: PYTHON=/path/to/python make" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "stemsplit needs Python 3.10 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Try: PYTHON=python3.12 make" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ echo "$(PYTHON) cannot make a virtual environment. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@touch $@
