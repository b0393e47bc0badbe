# make demo   from nothing to the figure: installs, trains two ranks on the bundled base, analyses
# make test   ruff, mypy and pytest
# make base   pretrains the bundled base again (about an hour and a half on one CPU core)

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test base

demo: .venv/ready
	$(BIN)/python train.py
	$(BIN)/python analyze.py run=runs/bundled-calls-r8-s0_r64-s0

test: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m pytest

base: .venv/ready
	$(BIN)/python -m deltaw.bundled.pretrain

# torch first and pinned: what is there already, pip does not replace by a newer build.
.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python %d.%d is too old: make PYTHON=python3.11 (to 3.13)" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
