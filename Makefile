# Everything that developers and CI run. `make` alone lists the targets.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done
PACKAGES := compiler passes backends runtime
JOBS ?= 2
PYTEST_ARGS ?=
BENCH_ARGS ?=
GPU_CHECK_ARGS ?=
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))

# The first interpreter that runs and is new enough; override with `make setup PYTHON=...`.
PYTHON ?= $(shell for p in python3.11 python3 python3.12 python3.13; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)

.PHONY: help setup demo test lint bench coverage gpu-check clean

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Create .venv/ with everything, leptonc itself editable

# torch goes first and pinned, so that nothing that depends on it can choose another one.
$(STAMP): setup.cfg pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "leptonc needs Python 3.11 or later, and none was found;" \
		"install one, or name it: make setup PYTHON=/path/to/python3.11" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "leptonc needs" \
		"Python 3.11 or later; $(PYTHON) is $$("$(PYTHON)" --version 2>&1)" >&2; exit 1; }
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch==2.13.0 -c constraints.txt
	$(BIN)/python -m pip install --quiet -e '.[compile,ort,tensorrt,dev]' -c constraints.txt
	@touch $@

demo: $(STAMP) ## Compile MiniLM and the digits network, then answer with real sentences and digits
	@mkdir -p build/demo
	$(BIN)/leptonc compile models/minilm.py -t ort-cpu -o build/demo/minilm.lepton
	$(BIN)/leptonc compile models/digits_cnn.py -t ort-cpu -o build/demo/digits.lepton
	$(BIN)/python docs/demo.py build/demo/minilm.lepton build/demo/digits.lepton

test: $(STAMP) ## Run every test, ONNX's conformance suite included (PYTEST_ARGS="-k name" for some)
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(PYTEST_ARGS)

# mypy cannot follow the package map of setup.cfg; build/types/leptonc shows it the layout that is
# installed. With a wrong link it would check one file and say "Success", hence the count.
MYPY = $(abspath $(BIN))/mypy --config-file $(CURDIR)/setup.cfg --cache-dir $(CURDIR)/.mypy_cache

lint: $(STAMP) ## Check style, formatting and types (ruff, mypy --strict)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@mkdir -p build/types/leptonc
	@for p in $(PACKAGES); do ln -sfn ../../../$$p build/types/leptonc/$$p; done
	cd build/types && $(MYPY) $(PACKAGES:%=-p leptonc.%) | tee ../mypy.log
	@want=$$(find $(PACKAGES) -name '*.py' | wc -l); grep -q "in $$want source files" build/mypy.log \
		|| { echo "mypy did not check all $$want files of $(PACKAGES)" >&2; exit 1; }
	for folder in benchmarks docs models; do (cd $$folder && MYPYPATH=$(CURDIR)/build/types $(MYPY) .); done

bench: $(STAMP) ## Measure against plain ONNX Runtime (benchmarks/README.md says how to read it)
	$(BIN)/python benchmarks/run.py $(BENCH_ARGS)

coverage: $(STAMP) ## Measure the passes on tiny models of many architectures, into docs/coverage.md
	$(BIN)/python tests/architectures/write_coverage.py

# Not after `setup`: it runs where nothing can be downloaded, with whatever Python has PyTorch.
gpu-check: ## Run every check that needs a GPU, into build/gpu-check.json (docs/gpu.md)
	$(GPU_PYTHON) benchmarks/gpu_check.py $(GPU_CHECK_ARGS)

clean: ## Remove what was built; .venv/ stays
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
