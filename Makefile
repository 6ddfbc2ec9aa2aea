# make demo   sets everything up and runs the main job: draw glyphs, train, generate
# make test   sets everything up and runs the tests;   make lint   ruff, format, types
# make bench  how fast it is, against multivae and a plain loop: docs/results/benchmarks.md
# make ci     the tests that take longer: kills, scaffolds, a minute of fuzzing;   make slow   the longest
PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.PHONY: help install demo test ci slow bench lint format clean

help:
	@sed -n 's/^# //p' Makefile

install: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip uninstall --quiet --quiet --yes mmgen # what mmgen-vae was called before
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

demo: install data/glyphs/dataset.json
	$(BIN)/mmgen train data/glyphs train.epochs=10 train.learning_rate=2e-3 --out runs/demo --force
	$(BIN)/mmgen generate runs/demo --given label=A attributes=bold,italic --targets image -n 16 -o runs/demo/bold-italic-A.png
	@echo "Open runs/demo/figures: what was generated from what."

data/glyphs/dataset.json: | install
	$(BIN)/mmgen data glyphs --out data/glyphs

test: install
	$(BIN)/python -m pytest -n auto --dist loadscope

ci: install
	$(BIN)/python -m pytest -m ci tests

slow: install
	$(BIN)/python -m pytest -m slow tests

bench: install
	$(BIN)/python -m benchmarks --out docs/results/benchmarks.md

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv data runs
