# One verb each; `make` alone lists them.
PYTHON ?= python3.11
BIN := .venv/bin
export DAGSTER_HOME := $(CURDIR)/data/dagster

.DEFAULT_GOAL := help
.PHONY: help install run test ui check bench clean

help:  ## list the verbs
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-8s %s\n", $$1, $$2}'

.venv/installed: pyproject.toml constraints.txt
	command -v $(PYTHON) >/dev/null && $(PYTHON) -m venv .venv || python3 -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

install: .venv/installed  ## create the environment in .venv

run: install  ## the main job: land half a year, train, promote, predict and monitor two weeks
	$(BIN)/ml-assets run

test: install  ## the tests
	$(BIN)/python -m pytest

data/dagster/dagster.yaml:
	mkdir -p $(@D) && cp deploy/local/dagster.yaml $@

ui: install data/dagster/dagster.yaml  ## the Dagster UI with schedules and sensors, on http://127.0.0.1:3000
	$(BIN)/dagster dev --host 127.0.0.1 --port 3000

check: install  ## format, lint, types, tests, dbt parse, definitions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/dbt parse --quiet --project-dir dbt_project --profiles-dir dbt_project
	$(BIN)/dg check defs
	$(BIN)/python -m pytest

bench: install  ## every performance figure, each beside its peers
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks

clean:  ## delete all local state (data/); the environment stays
	rm -rf data
