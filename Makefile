# Everything sets itself up: a virtual environment in this folder, plain pip, then the job.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

.PHONY: demo test test-all format docs picks results bench clean help

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 12

demo: $(STAMP)  ## train, evaluate and report on the embedded data set (under 3 minutes after set-up)
	$(BIN)/fieldmark demo

test: $(STAMP)  ## style, types, fast tests and doctests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -m "not slow and not data" -n auto --maxprocesses 4

test-all: $(STAMP)  ## every test, with the slow ones and those that need data beside the checkout
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4

format: $(STAMP)  ## put the code in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(STAMP)  ## build the documentation into site/
	$(BIN)/pip install -q -c constraints.txt -e '.[docs]'
	$(BIN)/mkdocs build --strict

picks: $(STAMP)  ## measure which head to pick, what is missing of it (hours), then its page
	$(BIN)/python -m fieldmark.picks --run --page docs/what_to_pick.md

results: $(STAMP)  ## write results/README.md, the models' cards and the pages of speed and picks from the measurements
	$(BIN)/python -m fieldmark.evaluation.table results
	$(BIN)/python -m fieldmark.evaluation.cards results docs/models.md
	$(BIN)/python -m fieldmark.evaluation.quoted results docs
	$(BIN)/python -m fieldmark.benchmarks.page benchmarks docs/speed.md
	$(BIN)/python -m fieldmark.picks --page docs/what_to_pick.md

bench: $(STAMP)  ## measure speed against the peers
	$(BIN)/pip install -q -c constraints.txt -e '.[bench]'
	$(BIN)/fieldmark bench all --json benchmarks/latest.json

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e '.[test]'
	touch $@

clean:  ## remove the environment and what was built
	rm -rf $(VENV) site build dist src/*.egg-info
