# Everything runs in .venv; the system needs git, make and Python 3.11 to 3.13.
PYTHON ?= python3
# The build of PyTorch: cpu, cu130, another of uv's torch backends, or auto for what suits the
# machine. Empty: the one that the package index offers.
TORCH ?=
UV_ARGS ?=
PYTEST_ARGS ?=
BENCHMARK_ARGS ?=
PORT ?= 5000

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
# uv reads none of pip's settings: a mirror or a folder of wheels named there is handed on.
of_pip = $(firstword $(foreach place,:env: global,$(shell $(PIP) config get $(place).$(1) 2>/dev/null)))
OF_PIP = $(addprefix --default-index ,$(call of_pip,index-url)) \
  $(addprefix --find-links ,$(call of_pip,find-links))
INSTALL = $(BIN)/uv pip install --system-certs --python $(BIN)/python $(OF_PIP) \
  $(addprefix --torch-backend ,$(TORCH)) $(UV_ARGS)
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev in-git repro summary report results ui experiments test test-slow test-long test-browser \
  parity gpu benchmark benchmark-pipeline benchmark-scaling faults fuzz lint types params-page check reproducible audit lock clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' Makefile

setup: .venv/.runtime ## create .venv and install the locked versions

setup-dev: .venv/.dev ## the same, with what tests and checks need

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
	  { echo "Python 3.11 to 3.13 is needed; name one: make setup PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -m venv .venv || { rm -rf .venv; \
	  echo "python -m venv failed; on Debian and Ubuntu: apt install python3-venv" >&2; exit 2; }

$(BIN)/uv: requirements-dev.lock | $(BIN)/python
	$(PIP) install --quiet $$(grep '^uv==' requirements-dev.lock)
	@touch $@

.venv/.runtime: requirements.lock pyproject.toml | $(BIN)/uv
	@echo "install the locked versions into .venv (a minute the first time)"
	$(INSTALL) --requirement requirements.lock
	$(INSTALL) --quiet --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.dev: requirements-dev.lock .venv/.runtime
	$(INSTALL) --requirement requirements-dev.lock
	@touch $@

in-git: # DVC works in a git repository alone, and says so only after setup's minute
	@git rev-parse --git-dir >/dev/null || { echo "DVC needs git and a repository, which" \
	  "a downloaded zip is not; next: git init, then the same again" >&2; exit 2; }

repro: in-git setup ## set up, run the pipeline, print the comparison
	@lora-compare check
	dvc repro
	@lora-compare summary

summary: setup ## print the comparison again
	@lora-compare summary

report: setup ## write reports/comparison/comparison.html again, from files alone
	@lora-compare report

results: setup ## write the comparison into README.md
	@lora-compare summary --write README.md

ui: setup ## start MLflow and print the runs' address (PORT=5001 for another port)
	lora-compare ui --port $(PORT)

experiments: setup ## show the experiments: the methods side by side, and what else differs
	@dvc exp show --only-changed --keep accuracy --drop 'Created|State|Executor|reference|.*/' \
	  --hide-queued --hide-failed

test: setup-dev ## set up, run the test suite (all but test-slow)
	python -m pytest $(PYTEST_ARGS)

test-slow: setup-dev ## the real file, clusters, whole pipelines, every fault many times (an hour)
	python -m pytest -m "slow and not long" $(PYTEST_ARGS)

test-long: setup-dev ## a million messages, five seeds in both precisions, the real file in full
	python -m pytest -m long $(PYTEST_ARGS)

test-browser: setup-dev ## MLflow's pages and the report in Chromium (needs Debian's chromium)
	python -m pytest -m browser tests/browser $(PYTEST_ARGS)

parity: setup-dev ## measure how far PEFT, transformers and the notebook are (docs/parity.md)
	python -m pytest --numprocesses=0 -m "slow or not slow" tests/parity \
	  --parity-report docs/parity.md $(PYTEST_ARGS)

faults: setup-dev ## cause every fault, many times (docs/reliability.md)
	python -m pytest -m "slow or not slow" tests/faults --faults-report docs/reliability.md $(PYTEST_ARGS)

fuzz: setup-dev ## the fuzzing tests with 10,000 examples each
	HYPOTHESIS_PROFILE=thorough python -m pytest -m "slow or not slow" tests/faults/test_fuzz.py $(PYTEST_ARGS)

benchmark: setup-dev ## measure steps beside others (SCALE=1: by size, SCALE=pipeline: whole runs; docs/performance.md)
	python -m benchmarks $(or $(filter pipeline,$(SCALE)),$(if $(SCALE),scale,steps)) $(BENCHMARK_ARGS)
	python -m benchmarks write

benchmark-pipeline: setup-dev ## time dvc repro in a fresh clone: work and overhead by stage
	python benchmarks/overhead.py

benchmark-scaling: setup-dev ## measure what LoRA saves at GPT-2's sizes, for the report's table
	python -m benchmarks scaling $(BENCHMARK_ARGS)

gpu: setup-dev ## test and time on a GPU, in 8 minutes (DEVICE=cpu TINY=1: try it out; docs/performance.md)
	python -m benchmarks.gpu run --device $(or $(DEVICE),cuda) $(if $(TINY),--tiny)
	$(if $(TINY),,python -m benchmarks.gpu write)

lint: setup-dev ## ruff: rules and format; import-linter: which wing may import which
	ruff check .
	ruff format --check .
	lint-imports

types: setup-dev ## mypy, strict
	mypy

check: PYTEST_ARGS += --durations=10
params-page: setup-dev ## write docs/params.md from the settings' own fields
	python docs/params.py

check: lint types test ## rules, types and tests

reproducible: setup-dev ## run the pipeline in two fresh clones, compare every byte (4 minutes)
	python tests/reproducible.py

audit: setup-dev ## look up the locked packages' known vulnerabilities (asks PyPI)
	@uv tool run pip-audit@2.10.1 --strict --no-deps --disable-pip --progress-spinner off \
	  --requirement requirements-dev.lock || { echo "The locked packages are not known to be safe:" \
	  "a table above lists their vulnerabilities, or an error says why they were not looked up." >&2; \
	  exit 1; }

lock: setup-dev ## resolve requirements*.lock from pyproject.toml (LOCK_ARGS=--upgrade)
	uv pip compile --system-certs --universal --python-version 3.11 --no-annotate --quiet $(NO_CUDA) \
	  $(LOCK_ARGS) --extra dev pyproject.toml --output-file requirements-dev.lock
	uv pip compile --system-certs --universal --python-version 3.11 --no-annotate --quiet $(NO_CUDA) \
	  --constraint requirements-dev.lock pyproject.toml --output-file requirements.lock

# torch itself pins the CUDA packages of the build that the index offers; the lock leaves them
# to it, so that the same lock installs a CPU build too.
NO_CUDA := $(addprefix --no-emit-package ,triton cuda-bindings cuda-pathfinder cuda-toolkit \
  nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc nvidia-cuda-runtime nvidia-cudnn-cu13 \
  nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse \
  nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx)

clean: ## remove .venv and the outputs; DVC's cache, downloads and MLflow's runs stay
	rm -rf .venv data models reports .tracking
