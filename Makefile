# `make check` is what has to pass before a commit. PYTHON is the interpreter
# that tfvae is installed for: `make check PYTHON=.venv/bin/python`.
PYTHON ?= python

.PHONY: format lint type test slow check docs tutorials

format:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

type:
	$(PYTHON) -m mypy

# A process for each processor; files stay whole, as their tests share models.
test:
	$(PYTHON) -m pytest --numprocesses=logical --dist=loadfile

slow:
	$(PYTHON) -m pytest -m slow

check: lint type test

# The documentation site, build/docs/index.html; every warning is an error.
docs:
	$(PYTHON) -m sphinx -q -W --keep-going -b html docs build/docs

# Runs the tutorials, prints the seconds of each, and writes the notebooks that
# the site shows.
tutorials:
	@for one in docs/tutorials/*.py; do \
		start=$$(date +%s); \
		$(PYTHON) -m jupytext --quiet --to ipynb --execute $$one || exit 1; \
		echo "$$one: $$(($$(date +%s) - start)) s"; \
	done
