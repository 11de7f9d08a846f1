# Every task of the project; `make` alone lists them. Needs Python >= 3.11 and make, nothing else.

PYTHON ?= python3
TORCH_INDEX ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH_OPTIONS := $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))

LOCKED := $(VENV)/.locked
READY := $(VENV)/.ready
PROTOS := $(wildcard protos/federation/v1/*.proto)
GENERATED := $(PROTOS:.proto=_pb2.py)

PYTEST := $(BIN)/python -m pytest
WORKERS ?= --numprocesses 4 --dist worksteal  # on two cores too: tests wait for processes
COVERING := tests/unit tests/service tests/golden  # what reaches each line; the rest takes twice as long traced
BESIDE := tests/packages tests/docs tests/faults tests/planted tests/simulation tests/poison tests/hosts tests/fuzz
TESTS := $(COVERING) $(BESIDE)
CORE := orchestrator/rounds.py,orchestrator/runs.py,orchestrator/steps.py,orchestrator/selection.py,orchestrator/aggregation.py,orchestrator/norms.py,orchestrator/reputation.py,gateway/dp_sgd.py,gateway/training.py,gateway/sampling.py,gateway/local_round.py,gateway/policy.py,common/accounting.py,common/calibration.py,common/adaptive_clipping.py,common/hyperparameters.py,common/plan.py,private_step/*
CORE_BRANCHES := 100
ALL_BRANCHES := 90

# the tests start hundreds of processes: each would compile what it imports, and rewrite asserts, anew
export PYTHONDONTWRITEBYTECODE :=

# the ordinary index, whatever this machine's pip is told: the lock must hold everywhere
COMPILE = CUSTOM_COMPILE_COMMAND="make lock" PIP_CONFIG_FILE=/dev/null $(BIN)/pip-compile --quiet \
	--generate-hashes --strip-extras --no-emit-index-url --no-emit-trusted-host \
	--no-emit-find-links --no-emit-options --unsafe-package torch \
	--unsafe-package sentence-transformers -c requirements/torch.txt $(UPGRADE)

MKDOCS := NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs

BOM = .venv-sbom/bin/python -W ignore::UserWarning:cyclonedx -m cyclonedx_py requirements \
	--pyproject pyproject.toml --mc-type application --output-reproducible --validate

.DEFAULT_GOAL := help
.PHONY: help setup protos fmt lint types layers test faults fuzz hosts simulate poison system cover beside planted docs docs-serve \
	bench bench-competitors demo up down wheels dist bundle sbom lock check clean

help:  ## list these tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY)  ## make .venv with the locked packages and Fedgate in it

protos: $(GENERATED)  ## build the Python modules of protos/

fmt: $(LOCKED)  ## format the code, mend what ruff can mend
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

lint: $(LOCKED)  ## ruff: every rule, and the format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(READY) $(GENERATED)  ## mypy --strict
	$(BIN)/mypy

layers: $(READY) $(GENERATED)  ## import-linter: imports run downhill
	$(BIN)/lint-imports

test: $(READY) $(GENERATED)  ## unit, service, fault and golden tests
	$(PYTEST) $(WORKERS) -m 'not slow' $(TESTS)

faults: $(READY) $(GENERATED)  ## crashes, torn streams, late and repeated updates
	$(PYTEST) $(WORKERS) tests/faults

hosts: $(READY) $(GENERATED)  ## each process on a host of its own, over bad networks; needs root
	$(PYTEST) tests/hosts

SEEDS ?= 0:300
SECONDS ?= 1800
BENCH ?=
COMPETITORS := flower nvflare

fuzz: $(READY) $(GENERATED)  ## look for inputs that break a reader; SECONDS=1800 for all; needs atheris
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS)

simulate: $(READY) $(GENERATED)  ## whole federations under faults, each from a seed; SEEDS=0:10000
	$(BIN)/python -m tests.simulation $(SEEDS)

CASES ?= 100000
poison: $(READY) $(GENERATED)  ## bad updates against a real orchestrator; CASES=100000
	$(BIN)/python -m tests.poison --cases $(CASES)

system: $(READY) $(GENERATED)  ## the federation in containers; needs Docker
	$(PYTEST) -m system tests/system

cover: $(READY) $(GENERATED)  ## branch coverage by unit, service and golden tests: all of the core, 90 % in all
	$(BIN)/coverage erase
	$(MAKE) test PYTEST="$(BIN)/coverage run -m pytest" TESTS="$(COVERING)"
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report --show-missing --include=$(CORE) --fail-under=$(CORE_BRANCHES)
	$(BIN)/coverage report --show-missing --skip-covered --fail-under=$(ALL_BRANCHES)

beside: $(READY) $(GENERATED)  ## the tests that `make cover` leaves out
	$(MAKE) test TESTS="$(BESIDE)"

docs: $(READY) $(GENERATED)  ## build the site of docs/ in build/site/, strictly
	$(MKDOCS) build --strict

docs-serve: $(READY) $(GENERATED)  ## show that site on 127.0.0.1:8000 while you write
	$(MKDOCS) serve

planted: $(READY) $(GENERATED)  ## plant known mistakes in the code; the tests must find each
	$(BIN)/python -m tests.planted

bench: $(READY) $(GENERATED)  ## measure, beside what was recorded; BENCH="round --record"
	$(BIN)/python -m benchmarks $(BENCH)

bench-competitors: $(READY) $(GENERATED) $(COMPETITORS:%=.venv-%/.ready)  ## the same round by others
	$(BIN)/python -m benchmarks competitors $(BENCH)

demo: $(READY) $(GENERATED)  ## train a private federation on this machine
	$(BIN)/fedgate demo

up:  ## the federation in containers, until `make down`
	docker compose up --build --detach --wait

down:  ## stop the containers, delete their volumes
	docker compose down --volumes --remove-orphans

wheels: $(LOCKED)  ## fetch the locked packages for image builds into wheels/
	find wheels -type f ! -name .gitkeep -delete
	$(PIP) download -qq --dest wheels --no-deps --require-hashes --no-build-isolation \
		-r requirements/build.txt -r requirements/gateway.txt -r requirements/orchestrator.txt
	$(PIP) download -qq --dest wheels --no-deps $(TORCH_OPTIONS) -r requirements/torch.txt

dist: $(LOCKED)  ## build what pip installs, of what is committed, into dist/
	$(BIN)/python deploy/packages/distribution.py dist

BUNDLE ?=
bundle: $(LOCKED)  ## all that installs without a network, in a folder of dist/; BUNDLE=--without-images
	$(BIN)/python deploy/packages/bundle.py dist $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX)) $(BUNDLE)

sbom: .venv-sbom/.ready  ## write what each image holds to dist/sbom/*.cdx.json, from the lock
	mkdir -p dist/sbom
	cat requirements/orchestrator.txt | $(BOM) -o dist/sbom/orchestrator.cdx.json -
	cat requirements/gateway.txt requirements/torch.txt | $(BOM) -o dist/sbom/gateway.cdx.json -

lock: $(LOCKED)  ## solve the requirements again; UPGRADE=--upgrade takes newer versions
	$(COMPILE) --extra gateway --extra ner --extra otel --extra postgresql --extra tensorboard --extra mlflow \
		--extra docs --extra dev \
		-o requirements/lock.txt pyproject.toml requirements/build.in
	$(COMPILE) -c requirements/lock.txt -o requirements/build.txt requirements/build.in
	$(COMPILE) -c requirements/lock.txt --extra postgresql --extra otel \
		-o requirements/orchestrator.txt pyproject.toml
	$(COMPILE) -c requirements/lock.txt --extra gateway --extra ner --extra otel \
		-o requirements/gateway.txt pyproject.toml
	$(COMPILE) -c requirements/lock.txt --extra gateway --extra ner --extra otel --extra postgresql \
		-o requirements/bundle.txt pyproject.toml requirements/bundle.in
	for name in $(COMPETITORS) sbom; do $(COMPILE) -o requirements/$$name.txt requirements/$$name.in; done
	@! grep -nE '^(nvidia|cuda|triton)|://' requirements/*.txt || { echo "compile where pip takes a CPU build of torch"; exit 1; }

check: lint types layers sbom cover beside planted  ## all that CI asks; every test once

clean:  ## delete .venv and what is built; state and models stay
	rm -rf $(VENV) $(COMPETITORS:%=.venv-%) .venv-sbom build dist *.egg-info .coverage .coverage.* htmlcov \
		.mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find protos -name '*_pb2*' -delete

$(LOCKED): requirements/build.txt requirements/lock.txt requirements/torch.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Fedgate needs Python 3.11 or newer: make setup PYTHON=python3.11"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -qq --no-deps --require-hashes -r requirements/build.txt
	$(PIP) install -qq --no-deps --require-hashes --no-build-isolation -r requirements/lock.txt
	$(PIP) install -qq $(TORCH_OPTIONS) -r requirements/torch.txt
	@touch $@

.venv-%/.ready: requirements/%.txt
	test -x .venv-$*/bin/python || $(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip --disable-pip-version-check install -qq --no-deps --require-hashes -r $<
	@touch $@

$(READY): $(LOCKED) pyproject.toml
	$(PIP) install -qq --no-deps --no-build-isolation --editable .
	@touch $@

%_pb2.py: %.proto $(PROTOS) $(LOCKED)
	$(BIN)/python -m grpc_tools.protoc -I. --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy \
		--plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc --python_out=. \
		--grpc_python_out=. --mypy_out=quiet:. --mypy_grpc_out=quiet:. $<
