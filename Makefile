# `make demo` and `make test` need Python 3.11, pip and make; `make check` also installs Debian's packages where it may.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_ARGS ?=
DATA ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test check lint types imports test-all bench lock docs clean

help: ## Show this
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/.runtime: requirements.lock pyproject.toml
	@echo "setting up $(VENV) (what the service needs) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.development: requirements-dev.lock pyproject.toml
	@echo "setting up $(VENV) (what the tests need) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/.runtime

setup: $(VENV)/.development ## Install everything into .venv

demo: $(VENV)/.runtime ## Start the playground and the service with demo workspaces
	@exec $(BIN)/opsapi demo $(DEMO_ARGS)

test: $(VENV)/.development ## Run the tests that need pip alone
	@$(BIN)/pytest -m "not slow" -n 2 --dist loadfile

lint: $(VENV)/.development ## ruff: rules and format
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(VENV)/.development ## mypy, strict
	@$(BIN)/mypy

imports: $(VENV)/.development ## import-linter: the layers
	@$(BIN)/lint-imports

test-all: $(VENV)/.development ## Every test, the slow ones too
	@$(BIN)/pytest -n 2 --dist loadfile

check: lint types imports test-all ## What CI runs

bench: $(VENV)/.development ## Measure; figures as ratios to a reference in the same run
	@$(BIN)/python -m benchmarks

docs: $(VENV)/.development ## Write the generated pages of docs/ again
	@$(BIN)/python -m opsapi.documents docs

lock: ## Resolve the lock files anew
	@$(BIN)/pip-compile -q --strip-extras --allow-unsafe --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --no-emit-trusted-host --no-header --upgrade --extra build --extra postgresql --extra redis --extra tracing -o requirements.lock pyproject.toml
	@$(BIN)/pip-compile -q --strip-extras --allow-unsafe --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --no-emit-trusted-host --no-header --upgrade --all-extras -o requirements-dev.lock pyproject.toml

clean: ## Remove what was built
	rm -rf $(VENV) .demo .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
