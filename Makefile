# Two doors: `make demo` shows the product on real data, `make test` checks it. Both set up what they need.
PYTHON ?= python3
VENV ?= .venv
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check
RUN = $(VENV)/bin/python -m

.PHONY: demo test test-slow lint types gpu-plan bench bench-lifestream wheel-test extras lock clean

demo: $(VENV)/.demo
	$(VENV)/bin/retinue run data=cdnow cutoff=1997-09-30 horizon_days=273 output=runs/demo
	@echo "The report is at runs/demo/report.html: open it in a browser."

test: $(VENV)/.dev
	$(RUN) pytest

test-slow: $(VENV)/.dev
	$(RUN) pytest -m slow

lint: $(VENV)/.dev
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(VENV)/bin/hadolint Dockerfile.cuda

types: $(VENV)/.dev
	$(RUN) mypy

# Proves without a GPU that every query runs on one, and on several; the environment is its own, since cuDF weighs 4.4 GB.
gpu-plan: .venv-gpu/.installed
	.venv-gpu/bin/python scripts/gpu_plan.py

# Our rungs beside other libraries; their environment is its own. Online Retail: make bench RETAIL=online_retail.parquet
bench: .venv-bench/.installed
	.venv-bench/bin/python scripts/bench_peers.py --markdown $(if $(RETAIL),--retail $(RETAIL),--bases cdnow complete_journey)

# Our networks beside pytorch-lifestream, which has an environment of its own.
bench-lifestream: $(VENV)/.dev .venv-lifestream/.installed
	$(VENV)/bin/python scripts/bench_lifestream.py

# Writes the locks anew: after a change of pyproject.toml or constraints.txt. What is locked stays until LOCK=--upgrade.
CUDA_BUILD = torch triton cuda-bindings cuda-pathfinder cuda-toolkit nvidia-cublas nvidia-cuda-cupti nvidia-cuda-nvrtc \
  nvidia-cuda-runtime nvidia-cudnn-cu13 nvidia-cufft nvidia-cufile nvidia-curand nvidia-cusolver nvidia-cusparse \
  nvidia-cusparselt-cu13 nvidia-nccl-cu13 nvidia-nvjitlink nvidia-nvshmem-cu13 nvidia-nvtx
COMPILE = .venv-lock/bin/uv pip compile --quiet --generate-hashes --no-annotate --custom-compile-command 'make lock' \
  -c constraints.txt $(LOCK) pyproject.toml
lock: .venv-lock/.installed
	$(COMPILE) --universal --python-version 3.11 --extra demo --extra dev \
	  $(addprefix --no-emit-package ,$(CUDA_BUILD)) -o locks/dev.txt
	$(COMPILE) --python-version 3.12 --python-platform x86_64-manylinux_2_39 --extra gpu-cu13 -o locks/gpu.txt
	$(COMPILE) --python-version 3.12 --python-platform x86_64-manylinux_2_39 --extra gpu-cu13 --extra demo --extra dev \
	  -o locks/gpu-test.txt

wheel-test: $(VENV)/.dev
	PYTHON=$(PYTHON) bash scripts/wheel_test.sh

# demo and dev are installed by the tests, and dev holds what experiments, ray and tracking hold.
extras: $(VENV)/.dev
	for extra in bench gpu-cu12 gpu-cu13; do \
	  $(PIP) install --quiet --dry-run --ignore-installed -c constraints.txt ".[$$extra]" || exit 1; \
	  echo "extra $$extra resolves"; done

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; point to one with: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) install --quiet -c constraints.txt -e '.[demo]'
	touch $@

# Every package by its hash but torch, whose build (CPU or CUDA) is the machine's choice; pip check says that none is missing.
$(VENV)/.dev: pyproject.toml constraints.txt locks/dev.txt | $(VENV)/bin/python
	$(PIP) install --quiet -c constraints.txt torch
	$(PIP) install --quiet --no-deps --require-hashes -r locks/dev.txt
	$(PIP) install --quiet --no-deps -e .
	$(PIP) check
	touch $@ $(VENV)/.demo

.venv-gpu/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-gpu
	.venv-gpu/bin/python -m pip install --quiet -c constraints.txt cudf-polars-cu12 polars polars-hash numpy hydra-core omegaconf
	touch $@

.venv-bench/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet -c constraints.txt -e '.[bench,demo]'
	touch $@

.venv-lifestream/.installed: constraints.txt
	$(PYTHON) -m venv .venv-lifestream
	.venv-lifestream/bin/python -m pip install --quiet -c constraints.txt pytorch-lifestream pytorch-lightning torch
	touch $@

.venv-lock/.installed: constraints.txt
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet -c constraints.txt uv
	touch $@

clean:
	rm -rf $(VENV) .venv-lock .venv-gpu .venv-bench .venv-lifestream build dist runs .pytest_cache .mypy_cache .ruff_cache
