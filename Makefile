# Everything there is to know: make demo, make test, make check, make docs, make bench. Each sets itself up in .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-provider test-all check docs bench bench-full gpu-kit clean
.NOTPARALLEL:

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/' | column -t -s ':'

$(VENV)/python.stamp:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12 ..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	touch $@

$(VENV)/demo.stamp: $(VENV)/python.stamp pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	touch $@

$(VENV)/test.stamp: $(VENV)/python.stamp pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

$(VENV)/check.stamp: $(VENV)/python.stamp pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[check]'
	touch $@

# The families of networks that users bring. torchvision's own dependency pin would replace the torch of the tests.
$(VENV)/families.stamp: $(VENV)/test.stamp
	$(BIN)/python -m pip install --quiet --editable '.[families]'
	$(BIN)/python -m pip install --quiet --no-deps 'torchvision==0.28.0' 'timm>=1.0.15' 'segmentation-models-pytorch>=0.6,<0.7' \
		'monai>=1.6,<1.7' 'dynamic-network-architectures>=0.4.4,<0.5'
	touch $@

# Networks that other people wrote, for benchmarks.zoo and the tests that judge them again.
$(VENV)/zoo.stamp: $(VENV)/families.stamp benchmarks/zoo/packages.txt
	$(BIN)/python -m pip install --quiet --requirement benchmarks/zoo/packages.txt
	$(BIN)/python -m pip install --quiet --no-deps 'spandrel>=0.4,<0.5'
	touch $@

# The bindings of the CUDA driver and of TensorRT. The tests run them without a GPU, on an emulation of the driver.
$(VENV)/gpu.stamp: $(VENV)/test.stamp tests/emulation/build_pycuda.py
	$(BIN)/python -m pip install --quiet --editable '.[device-tests]'
	$(BIN)/python tests/emulation/build_pycuda.py
	touch $@

demo: $(VENV)/demo.stamp  ## segment a large micrograph with a trained network, and check it
	$(BIN)/python examples/demo.py

# An installation compiles what it installs; processes that tests start would compile this tree each by itself.
test: $(VENV)/families.stamp $(VENV)/gpu.stamp  ## the tests (minutes)
	$(BIN)/python -m compileall -q runtime converters tests
	$(BIN)/python -m pytest -m 'not slow' --durations=40 --numprocesses auto --maxprocesses 4 --dist loadfile

# The real CUDA provider of onnxruntime-gpu, on stand-ins for CUDA's libraries: it beside onnxruntime would break both.
$(VENV)/onnxruntime-gpu.stamp: $(VENV)/test.stamp
	$(BIN)/python -m pip download --quiet --no-deps --dest $(VENV)/onnxruntime-gpu onnxruntime-gpu==1.31.1
	$(BIN)/python -m zipfile --extract $(VENV)/onnxruntime-gpu/*.whl $(VENV)/onnxruntime-gpu
	touch $@

test-provider: $(VENV)/onnxruntime-gpu.stamp  ## what ONNX Runtime's CUDA provider takes and calls, without a GPU (250 MB)
	EXACTILE_TEST_ONNXRUNTIME_GPU=$(abspath $(VENV))/onnxruntime-gpu $(BIN)/python -m pytest tests/gpu/test_cuda_provider_real.py tests/gpu/test_cuda_libraries.py

test-all: $(VENV)/families.stamp $(VENV)/gpu.stamp $(VENV)/zoo.stamp  ## every test (long, gigabytes)
	$(BIN)/python -m pytest

check: $(VENV)/check.stamp  ## format, lint, types, imports, terms
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_terms.py

$(VENV)/docs.stamp: $(VENV)/python.stamp pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@

docs: $(VENV)/docs.stamp  ## the documentation site, to the folder site; a link or reference that is broken is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

$(VENV)/bench.stamp: $(VENV)/python.stamp pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[bench]'
	touch $@

# What exactile is measured beside needs other releases of what both need: an environment of its own.
$(VENV)-peers/peers.stamp: $(VENV)/python.stamp benchmarks/peers.txt
	$(PYTHON) -m venv $(VENV)-peers
	$(VENV)-peers/bin/python -m pip install --quiet --upgrade pip
	$(VENV)-peers/bin/python -m pip install --quiet --requirement benchmarks/peers.txt
	touch $@

bench: $(VENV)/bench.stamp $(VENV)-peers/peers.stamp  ## measure beside other tools (ten minutes)
	$(BIN)/python -m benchmarks.run

bench-full: $(VENV)/bench.stamp $(VENV)-peers/peers.stamp  ## what the documents quote, to benchmarks/results (an hour and a half)
	$(BIN)/python -m benchmarks.run --full
	$(BIN)/python -m benchmarks.quote

gpu-kit: $(VENV)/test.stamp  ## what a machine with a GPU and no network needs (benchmarks/gpu_kit/README.md)
	$(BIN)/python -m benchmarks.gpu_kit build

clean:
	rm -rf $(VENV) $(VENV)-peers demo site .mypy_cache .ruff_cache .import_linter_cache .pytest_cache
