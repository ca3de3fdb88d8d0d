# `make help` lists the commands. Everything runs in .venv, which each target makes when needed.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
TORCH_VERSION := 2.13.0
VENV := .venv
BIN := $(VENV)/bin
# uv where there is one (a minute in place of three), from the index that pip is configured with; pip where there is
# none, or where uv cannot (an index that only pip reaches).
UV := $(shell command -v uv 2>/dev/null)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
UV_INSTALL = index="$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$($(PYTHON) -m pip config get global.index-url 2>/dev/null)}}"; \
	$${index:+env UV_DEFAULT_INDEX="$$index"} $(UV) pip install --quiet --python $(BIN)/python
install = $(if $(UV),$(UV_INSTALL) $(1) || )$(PIP) $(1)
RUNS_DIR ?= runs
export RUNS_DIR
TRACKING_URI = $(BIN)/python -m pipeline.tracking_uri

PYTEST_ARGS ?=
# One more than two cores: a third of the time tests wait for servers and processes of theirs.
PYTEST_WORKERS ?= 3

# What a target takes on the command line. Make hands these to Python through the environment, never through the
# text of a shell command: a value may hold quotes, spaces and semicolons. Any other variable is refused: it would
# change nothing.
export SYSTEM RUNNER REVIEWS META CATEGORY CATEGORY_YEAR PARAMS SETTINGS K_CORE SPLIT SEED CRON ID NAME VERSION FORMAT MODEL HISTORY K PORT BENCH
VARIABLES := SYSTEM RUNNER REVIEWS META CATEGORY CATEGORY_YEAR PARAMS SETTINGS K_CORE SPLIT SEED RUNS_DIR PYTHON PYTEST_ARGS \
	PYTEST_WORKERS IMAGE_REGISTRY IMAGE_TAG IMAGE_LOCK RELEASE TORCH_VARIANT BASE_IMAGE BUILD_ARGS PUSH_ARGS ENGINE \
	CA_BUNDLE CRON ID NAME VERSION FORMAT MODEL HISTORY K PORT SMOKE_% PIP_% BENCH BENCH_% RESULTS_% KFP_% MLFLOW_% LATENTREC_% DOCS_% \
	OVERLAYS SERVE SERVE_%
GIVEN := $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name)))
UNKNOWN := $(filter-out $(VARIABLES) MAKEFLAGS MAKEOVERRIDES SHELL -%,$(GIVEN))
ifneq ($(strip $(UNKNOWN)),)
$(error unknown variable: $(strip $(UNKNOWN)). make knows: $(VARIABLES). A field of a step is set by PARAMS='sft.learning_rate=1e-4')
endif

.PHONY: help setup locks golden run test test-slow test-containers lint format pipeline-compile pipeline-submit \
	pipeline-schedule pipeline-schedules pipeline-pause pipeline-resume pipeline-unschedule smoke-cluster \
	images push bench results mlflow-ui docs pictures test-docs test-browser gpu-dry-run demo recommend serve serve-manifest clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z][a-z -]*:.*## / {n = split($$1, names, " "); \
		for (i = 1; i <= n; i++) printf "  %-20s %s\n", names[i], $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## .venv with the pinned requirements

$(VENV)/.requirements: docker/requirements/dev.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed (PYTHON=python3.11 make ...), found " + sys.version)'
	@echo "set-up, once: .venv with the pinned packages, then torch (minutes with pip, one minute with uv)"
	@$(PYTHON) -m venv $(VENV)
	@$(call install,--no-deps --require-hashes -r docker/requirements/dev.txt)
	@$(call install,torch==$(TORCH_VERSION))
	@touch $@

$(VENV)/.installed: $(VENV)/.requirements pyproject.toml
	@$(call install,--no-deps --no-build-isolation -e .)
	@touch $@

# Environments on top of .venv, for what is not needed to run: demo, docs, browser (docker/requirements/NAME.txt).
OVERLAYS := build/venvs
$(OVERLAYS)/%/.installed: docker/requirements/%.txt $(VENV)/.requirements | $(VENV)/.installed
	@rm -rf $(@D)
	@$(BIN)/python -m venv --without-pip $(@D)
	@$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' \
		> "$$($(@D)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/base.pth"
	$(BIN)/python -m pip --python $(@D) install --quiet --disable-pip-version-check --no-deps --require-hashes -r $<
	@touch $@

locks: ## resolve the hash-locked requirements again (needs uv)
	docker/requirements/lock.sh

run: setup ## the whole DAG on this machine: REVIEWS= META= CATEGORY= CATEGORY_YEAR= SYSTEM= PARAMS= SETTINGS= RUNNER=process|docker
	@$(BIN)/python -m pipeline.run_local

# With Python's bytecode, even where the shell says none: the tests start some hundred processes.
test: setup ## unit, property, equivalence and end-to-end tests
	PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'not slow and not containers and not docs and not browser' -n $(PYTEST_WORKERS) $(PYTEST_ARGS)

test-slow: setup ## the long acceptance runs; writes docs/slow-tests.md
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow --timeout 7200 $(PYTEST_ARGS)

test-containers: setup ## build the images and run the whole DAG with each step in its own container
	docker/test.sh $(BIN)/python -m pytest -m containers --timeout 1800 tests/containers $(PYTEST_ARGS)

test-docs: $(OVERLAYS)/docs/.installed ## run every command and notebook of README, docs and examples; build the site
	OMP_NUM_THREADS=1 $(OVERLAYS)/docs/bin/python -m pytest -m docs --timeout 1800 -n 2 tests/docs $(PYTEST_ARGS)

test-browser: $(OVERLAYS)/browser/.installed ## click through the demo in Chromium
	OMP_NUM_THREADS=1 $(OVERLAYS)/browser/bin/python -m pytest -m browser --timeout 900 tests/browser $(PYTEST_ARGS)

# Not on top of .venv: the lent GPU machine has another Python, another torch and no package of .venv.
$(OVERLAYS)/gpu/.installed: docker/requirements/gpu.txt docker/requirements/gpu-carried.txt | $(VENV)/.requirements
	$(BIN)/python -m benchmarks.gpu.environment $(@D)
	@touch $@

gpu-dry-run: $(OVERLAYS)/gpu/.installed ## every part of the GPU benchmark at toy size, with the lent machine's Python, torch, transformers
	OMP_NUM_THREADS=1 $(OVERLAYS)/gpu/bin/python -m benchmarks.gpu --dry-run --output build/gpu-dry-run

lint: setup ## formatter, linter, type checker
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: setup ## apply the formatter and the linter's safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

pipeline-compile: setup ## build/pipelines/*.yaml (IMAGE_REGISTRY= IMAGE_TAG= RELEASE=1 FORMAT=yaml|crd)
	$(BIN)/python -m pipeline.compile --output build/pipelines

golden: setup ## write the reviewed copies of the compiled pipelines again (tests/pipeline/golden)
	IMAGE_REGISTRY= IMAGE_TAG= RELEASE= $(BIN)/python -m pipeline.compile --output tests/pipeline/golden

pipeline-submit: setup ## upload a pipeline version and start a run (KFP_HOST= SYSTEM= PARAMS= SETTINGS=)
	$(BIN)/python -m pipeline.submit

pipeline-schedule: setup ## start a recurring run (KFP_HOST= SYSTEM= CRON='0 0 3 * * 1' PARAMS= SETTINGS=)
	$(BIN)/python -m pipeline.schedule create

pipeline-schedules: setup ## list the recurring runs (KFP_HOST=)
	$(BIN)/python -m pipeline.schedule list

pipeline-pause pipeline-resume pipeline-unschedule: setup ## pause, resume or delete a recurring run (KFP_HOST= ID=)
	$(BIN)/python -m pipeline.schedule $(subst unschedule,delete,$(@:pipeline-%=%))

smoke-cluster: setup ## a tiny run on a cluster, end to end, with checks (KFP_HOST= SMOKE_LOCATION=gs://…)
	$(BIN)/python -m pipeline.smoke_cluster

images: ## build every component image with docker or podman (IMAGE_REGISTRY= IMAGE_TAG= TORCH_VARIANT=)
	docker/build.sh

push: ## push the images and write their digests to images.lock.json
	docker/build.sh --push

bench: setup ## run the benchmarks (BENCH=name for one)
	$(BIN)/python -m benchmarks $${BENCH:+--only "$$BENCH"}

results: setup ## train and compare the systems on the data at hand, write docs/results.md
	$(BIN)/python -m benchmarks.results $(RESULTS_ARGS)

LOCAL_STORE := $$($(BIN)/python -c 'import os, pathlib; print("sqlite:///%s/mlflow.db" % pathlib.Path(os.environ["RUNS_DIR"]).resolve())')

mlflow-ui: setup ## open the embedded tracking store at its experiment (PORT=5000)
	@$(BIN)/python -m pipeline.mlflow_ui $${PORT:+--port "$$PORT"}

docs: $(OVERLAYS)/docs/.installed ## build the documentation site into build/site (SERVE=1 to look at it)
	$(OVERLAYS)/docs/bin/python -m mkdocs $(if $(SERVE),serve,build --strict --quiet)

pictures: setup ## draw the pipeline again (docs/pictures), from the pipeline itself
	$(BIN)/python -m docs.pictures.pipeline

demo: $(OVERLAYS)/demo/.installed ## a page to try a model beside its baseline: MODEL=models:/…@champion PORT=
	@MLFLOW_TRACKING_URI="$${MLFLOW_TRACKING_URI:-$$($(TRACKING_URI))}" \
		$(OVERLAYS)/demo/bin/python -m examples.demo --model "$$MODEL" $${PORT:+--port "$$PORT"}

recommend: setup ## recommendations of a registered model: MODEL= HISTORY= K=
	@MLFLOW_TRACKING_URI="$${MLFLOW_TRACKING_URI:-$$($(TRACKING_URI))}" \
		$(BIN)/latentrec recommend --model "$$MODEL" --history "$$HISTORY" $${K:+--k "$$K"}

serve: setup ## a registered model over REST, without activating .venv: MODEL= PORT=5001
	@PATH="$(abspath $(BIN)):$$PATH" MLFLOW_TRACKING_URI="$${MLFLOW_TRACKING_URI:-$$($(TRACKING_URI))}" \
		mlflow models serve --model-uri "$$MODEL" --env-manager local --host 127.0.0.1 --port "$${PORT:-5001}"

serve-manifest: setup ## build/serving/*.yaml for KServe (MODEL=models:/NAME@champion FORMAT=image|mlflow SERVE_CANARY=10)
	@$(BIN)/python -m pipeline.serve_manifest

clean: ## remove build outputs (not runs/, not .venv)
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
