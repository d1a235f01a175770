# Everything from a machine that has only Python 3.11 or newer and make.
# Other packages, for example torch for another accelerator: PIP_INDEX_URL, PIP_EXTRA_INDEX_URL and pip's other variables.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
TYPES := $(RUN)/pyright --pythonpath $(RUN)/python
ARGS ?=
# Empty is not set. With it every process would compile torch and TRL once more, for ten seconds.
export PYTHONDONTWRITEBYTECODE =

.PHONY: help setup train test style lint docs clean

help:
	@echo "make train [ARGS='--help']      StepPO on ALFWorld; no download of data, no accelerator needed"
	@echo "make test  [ARGS='-k KeyDoor']  lint and all tests"
	@echo "make lint                       ruff and pyright"
	@echo "make docs                       the documentation site in build/site; warnings are errors"
	@echo "make setup                      only the virtual environment in $(VENV)"
	@echo "make clean                      remove the virtual environment and all caches"

setup: $(INSTALLED)

train: $(INSTALLED)
	$(RUN)/python trainers/steppo.py --env alfworld $(ARGS)

# Types are checked beside the tests: set-up and style apart, no core is idle. What is wrong with them is said at the end.
# "logical", as "auto" counts physical cores: a rented machine of two, which are threads of one, would get one worker.
test: style
	@mkdir -p build
	@echo "pytest $(ARGS) beside pyright"
	@$(TYPES) >build/types.txt 2>&1 & types=$$!; trap "kill $$types 2>/dev/null" INT TERM; \
	$(RUN)/python -m pytest -q --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS); \
	tests=$$?; wait $$types; types=$$?; cat build/types.txt; exit $$((tests ? tests : types))

style: $(INSTALLED)
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .

lint: style
	$(TYPES)

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(RUN)/python -m mkdocs build --strict
	@echo "build/site/index.html; its search needs a server: python3 -m http.server --directory build/site"

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# torch comes first and alone: it is by far the largest, and a failure there should be seen at once. Nothing is compiled
# beforehand: Python does that when it imports a module, and most of the 20,000 that come along are never imported.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed, \
	$(PYTHON) is " + sys.version.split()[0] + ". Run: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet -c constraints.txt setuptools
	$(RUN)/python -m pip install --quiet --no-compile -c constraints.txt torch
	$(RUN)/python -m pip install --quiet --no-compile -c constraints.txt --no-build-isolation -e '.[dev,peft]'
	@touch $@
