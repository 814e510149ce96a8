# make demo: see it work.   make quick: linters and the fast tests.   make test: everything.   make torture: faults alone.
PYTHON ?= python3
BIN := .venv/bin
# Both names: pip up to 25.2 reads the first for build requirements too, later ones the second.
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_BUILD_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
PREPARE := $(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("magnet needs Python 3.11 or newer; pass PYTHON=python3.12, say")'

.PHONY: demo quick test torture lint format docs reference clean

demo: .venv/.installed
	$(BIN)/magnet compute mnist
	$(BIN)/magnet sample mnist --n 5000 --out samples/demo
	$(BIN)/magnet sample mnist --n 30 --rho -0.5 --out samples/modes
	$(BIN)/magnet sample mnist --n 30 --rho 0 --out samples/generator
	$(BIN)/magnet sample mnist --n 30 --rho 0.5 --out samples/anti-modes
	$(BIN)/python tools/side_by_side.py samples/modes samples/generator samples/anti-modes --out samples/demo.png
	@echo "open samples/demo.png: draws at rho -0.5 (modes), 0 (the generator as it is) and 0.5 (anti-modes)"

# Bytecode is kept between runs, whatever the caller's shell says: compiling is a third of the time until the first test.
quick test torture: export PYTHONDONTWRITEBYTECODE :=

# Tests run in JOBS processes at a time, each with its part of the cores; --dist worksteal keeps neighbours together.
JOBS ?= 2
PYTEST = $(BIN)/python -m pytest --numprocesses $(JOBS) --dist worksteal

quick: .venv/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(PYTEST) -m "not slow and not torture"

test: .venv/.installed-test lint
	$(PYTEST)

torture: .venv/.installed-test
	$(PYTEST) -m torture

reference: .venv/.installed-test
	$(BIN)/python tools/write_reference.py

docs: .venv/.installed-test
	$(BIN)/python -m sphinx -W -n --keep-going -q docs docs/_build
	@echo "open docs/_build/index.html"

lint: .venv/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.installed-test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/bin/python:
	@$(PREPARE)
	$(PYTHON) -m venv .venv

.venv/.installed: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/.installed-test: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@ .venv/.installed

clean:
	rm -rf .venv samples
