# The commands of the project. The first that runs creates .venv from the lock.
PYTHON ?= python3
VENV ?= .venv
# DEVICE=gpu installs TensorFlow with the CUDA libraries.
DEVICE ?= cpu
# Stages that run at the same time: two take a little more than half the time of one on two
# cores. One process takes all of a GPU's memory.
JOBS ?= $(if $(filter gpu,$(DEVICE)),1,2)
# Stages that `make reproduce` rebuilds, as `dvc repro` takes them; none means all.
TARGETS ?=
# Processes that run the tests. A file's tests share fixtures and stay in one of them; files run in
# order, since those with few tests, which would come last, are the long ones. Three keep two cores
# busy while one waits for the processes it started.
WORKERS ?= 3
LOCK := $(if $(filter gpu,$(DEVICE)),requirements-gpu.lock,requirements.lock)
STAMP := $(VENV)/.installed-$(DEVICE)
BIN := $(VENV)/bin

export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: help reproduce test test-all demo lint ui benchmark lock environment

help:
	@echo "make reproduce   rebuild all results (scale in params.yaml) with dvc repro"
	@echo "make test        run the tests; test-all, the long ones too"
	@echo "make demo        train MAML and MMAML for a minute each and draw how they fit"
	@echo "make lint        ruff check and format"
	@echo "make ui          MLflow UI on http://127.0.0.1:5000"
	@echo "make benchmark   timings against PyTorch and JAX"
	@echo "make lock        resolve the requirements anew"
	@echo "DEVICE=gpu       use the lock with CUDA libraries"

environment: $(STAMP)

$(STAMP): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; v == (3, 11) or sys.exit("the lock is for Python 3.11, this is %d.%d; set PYTHON=python3.11" % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r $(LOCK)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@rm -f $(VENV)/.installed-*
	@touch $@

# Keeps freed memory, in huge pages: where page faults are dear, as in virtual machines, the steps
# of a training on CPUs take a fifth less time. Other C libraries than glibc ignore it.
reproduce test: export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184
# TensorFlow's default on processors with AVX512-VNNI alone; elsewhere it makes image trainings on 5 shots
# 1.6 times as fast, and their form of convolution the same.
reproduce: export TF_ENABLE_ONEDNN_OPTS ?= 1
reproduce: $(STAMP)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pipelines.reproduce --jobs $(JOBS) $(TARGETS)

test: $(STAMP)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST)

# Those that take a minute each, too.
test-all: PYTEST = -m ""
test-all: test

demo: $(STAMP)
	$(BIN)/python -m pipelines.demo

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

ui: $(STAMP)
	@case "$${MLFLOW_TRACKING_URI:-}" in \
	http*) echo "the runs are at $$MLFLOW_TRACKING_URI" ;; \
	*) $(BIN)/mlflow ui --host 127.0.0.1 --port 5000 --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}" ;; \
	esac

# The peers have an environment of their own; PyTorch and JAX are no requirements of the project.
.venv-peers/.installed: benchmarks/peers/requirements.txt
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet --disable-pip-version-check -r $<
	@touch $@

benchmark: $(STAMP) .venv-peers/.installed
	$(BIN)/python -m benchmarks --peers .venv-peers/bin/python

lock: $(STAMP)
	$(BIN)/uv pip compile --upgrade pyproject.toml --extra pipeline --extra rl --extra dev --group lock --output-file requirements.lock $(UV_OPTIONS)
	$(BIN)/uv pip compile --upgrade pyproject.toml --extra pipeline --extra rl --extra dev --extra gpu --group lock --output-file requirements-gpu.lock $(UV_OPTIONS)
UV_OPTIONS := --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_28 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-annotate --no-header
