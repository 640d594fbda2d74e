# Bare `make` prints this help. Every recipe works from a clean clone.
SHELL := /bin/bash
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXTRAS ?= local,engine,dev
# CPU, GPU or auto: which PyTorch build to install (auto looks for an NVIDIA driver).
TORCH ?= auto
# The user's own tables: make pipeline DATA=DIR CONFIG=FILE SCENARIO=NAME
DATA ?=
CONFIG ?=
SCENARIO ?= churn
SCENARIOS ?=

.DEFAULT_GOAL := help

help: ## print this help
	@grep -hE '^[a-z_-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

$(VENV)/.installed: pyproject.toml constraints.txt container/engine/pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python container/install_torch.py --build $(TORCH) --constraints constraints.txt
	@echo "Installing the packages pinned in constraints.txt: some minutes without output"
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

install: $(VENV)/.installed ## create .venv and install everything

pipeline: install ## run the five assets on the local account and print a report
	@$(BIN)/monad-dagster run --scenario $(SCENARIO) $(if $(DATA),--data "$(DATA)") $(if $(CONFIG),--config "$(CONFIG)") $(if $(SCENARIOS),--scenarios "$(SCENARIOS)")

pipeline-docker: install ## the pipeline in a private Docker Engine, image built from this environment (root, minutes)
	@$(BIN)/python -m tests.support.pipeline_in_engine --scenario $(SCENARIO) --customers 3000 --transactions 60000

ui: install ## serve the Dagster UI on http://localhost:3000
	@$(BIN)/monad-dagster ui

PYTEST_ARGS ?= -p no:cacheprovider
test: install ## unit, contract and e2e suites
	@$(BIN)/python -m pytest -q $(PYTEST_ARGS) tests/unit tests/contract tests/e2e

browser: install ## test the Dagster UI in headless Chromium (needs the package chromium)
	@$(BIN)/python -m pytest -q -p no:cacheprovider tests/browser

check: install ## lint, format, types, import rules, spelling
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports
	@$(BIN)/pyright --pythonpath $(BIN)/python
	@$(BIN)/codespell monad_dagster container docs README.md CONTRIBUTING.md

# make evaluate [QUICK=1] [DATA=DIR] [HM=DIR] [INTERACTIONS=FILE] [SEEDS=3] [BUDGET=SECONDS]; see docs/evaluation.md
QUICK ?=
HM ?=
INTERACTIONS ?=
SEEDS ?= $(if $(QUICK),1,3)
BUDGET ?=

.venv-peers/.installed: bench/evaluation/requirements-peers.txt
	@test -x .venv-peers/bin/python || $(PYTHON) -m venv .venv-peers
	@.venv-peers/bin/python -m pip install --quiet -r $<
	@touch $@

.venv-rectools/.installed: bench/evaluation/requirements-rectools.txt
	@test -x .venv-rectools/bin/python || $(PYTHON) -m venv .venv-rectools
	@.venv-rectools/bin/python container/install_torch.py --build $(TORCH) --constraints constraints.txt
	@.venv-rectools/bin/python -m pip install --quiet -r $<
	@touch $@

evaluate: install .venv-peers/.installed .venv-rectools/.installed ## the engine beside its peers; QUICK=1 for minutes
	@.venv-peers/bin/python -m bench.evaluation all $(if $(QUICK),--quick) --seeds $(SEEDS) \
		$(if $(DATA),--data "$(DATA)") $(if $(HM),--hm "$(HM)") $(if $(INTERACTIONS),--interactions "$(INTERACTIONS)") \
		$(if $(BUDGET),--budget-seconds $(BUDGET)) $(if $(QUICK),--docs .monad/evaluation/quick.md --results .monad/evaluation)

fidelity: install ## ask the account of MONAD_CONTRACT_* (else a local one), write docs/fidelity.md
	@$(BIN)/python -m tests.support.fidelity

# Each client has an environment of its own: some of them cannot live in one. Their requirements are
# complete lists, hence --no-deps, which also passes over pins that the index cannot satisfy.
CLIENTS = connector4 connector5 snowcli dagster_pandas mljobs core
.venv-conformance/%/.installed: tests/conformance/requirements/%.txt $(VENV)/.installed
	@echo "Installing the client $*"
	@test -x .venv-conformance/$*/bin/python || $(BIN)/python -m venv --without-pip .venv-conformance/$*
	@$(BIN)/python -m pip --python .venv-conformance/$*/bin/python install --quiet --no-deps -r $<
	@touch $@

conformance: install $(CLIENTS:%=.venv-conformance/%/.installed) ## Snowflake's own clients against the local account
	@$(BIN)/python -m pytest -q -s -p no:cacheprovider -p no:randomly --durations=0 tests/conformance

SEED ?= 1
COUNT ?= 200
chaos: install ## every signal at every phase, then COUNT=200 materializations under random faults (SEED=1)
	@$(BIN)/python -W ignore -m tests.chaos matrix --write docs/signal-matrix.md
	@$(BIN)/python -W ignore -m tests.chaos run --seed $(SEED) --count $(COUNT)

# make bench [ONLY=local_account/arrow]; the suites are listed in bench/__main__.py
bench: install .venv-conformance/connector5/.installed ## figures of the local account and its peers, in one run
	@$(BIN)/python -m bench $(if $(ONLY),--only $(ONLY))

clean: ## stop the local account and remove what runs wrote (keeps .venv)
	@test ! -x $(BIN)/monad-dagster || $(BIN)/monad-dagster local stop || true
	@rm -rf .monad

.PHONY: help install pipeline pipeline-docker ui test browser check bench conformance fidelity evaluate chaos clean
