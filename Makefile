# make demo    from nothing to the answer: installs, trains two ranks on the bundled base, says which rank to ship
# make check   ruff, mypy, import contracts, fast tests: two minutes
# make test    the same and all tests but the slow ones: ten minutes on two cores
# make fuzz    20,000 mutated adapter folders and runs, each a result or a clear error: five minutes on one core
# make slow    four processes, two machines, sweeps, a wheel in an empty environment, gpu.py --toy: needs a package index;
#              report.html in a browser, where there is Chromium on the PATH
# make cover   branch coverage of make test
# make base    pretrains the bundled base again (an hour and a half on one CPU core)

PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest --numprocesses=auto --dist=loadscope # what a module has run stays in one process
FAST := tests/config tests/maths tests/analysis tests/report tests/docs

.PHONY: demo check test fuzz slow cover base lint

demo: .venv/ready
	$(BIN)/deltaw train
	$(BIN)/deltaw analyze run=runs/bundled-calls-r8-s0_r64-s0 'exhibits=[fig6,evolution]'

lint: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint
	$(PYTEST) $(FAST)

test: lint
	$(PYTEST)

fuzz: .venv/ready
	$(BIN)/python -m tests.fuzz

slow: .venv/ready
	$(BIN)/python -m pytest -m slow

cover: .venv/ready
	$(PYTEST) --cov --cov-report=term-missing:skip-covered

base: .venv/ready
	$(BIN)/python -m deltaw.bundled.pretrain

# torch first and pinned: pip does not replace what is there by a newer build.
.venv/ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "error: Python %d.%d is too old: make PYTHON=python3.11 (to 3.13)" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
