# Everything that a user or CI runs. All of it works in .venv, which `make setup` makes from constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := .venv-deepsparse
LARQ := .venv-larq
# Tests run in as many processes as there are cores, each with one thread; more than eight want much memory.
SIDE_BY_SIDE := -n logical --maxprocesses 8 --dist worksteal
EXTRAS := demo,test,check
CROSS_PACKAGES := gcc libc6-dev gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user
# Compilers of C for here and for Arm, each with the headers of its library, and an Arm to run on.
HAS_CROSS := for compiler in gcc aarch64-linux-gnu-gcc; do \
  echo '\#include <stdio.h>' | $$compiler -fsyntax-only -x c - || exit 1; done; qemu-aarch64 --version
# The benchmarks are meant for one core: a shared machine's other cores are busy anyhow.
PIN := $(shell command -v taskset >/dev/null 2>&1 && echo taskset -c 0)

.PHONY: setup demo test quick cross check format bench bench-peers results docs clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "netopt needs Python 3.11 or later; found $$($(PYTHON) --version). Set PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  { echo "Python's venv module is missing; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@# First alone and pinned, so that no other package's requirement can choose another build of it.
	$(BIN)/pip install --quiet --disable-pip-version-check $$(grep '^torch==' constraints.txt)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

demo: $(STAMP)
	$(BIN)/python examples/digits.py

test: $(STAMP) cross
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

# The tests of what differs from main, and a few that see most of netopt.
quick: $(STAMP)
	$(BIN)/python -m tests.quick $(SIDE_BY_SIDE)

# What tests/cross needs beside Python: root on Debian or Ubuntu installs it; where it stays absent, tests are skipped.
cross:
	@($(HAS_CROSS)) >/dev/null 2>&1 && exit 0; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then \
	  echo "Installing what tests/cross needs: $(CROSS_PACKAGES)"; \
	  { apt-get update -qq -o Acquire::http::Timeout=30 && DEBIAN_FRONTEND=noninteractive \
	    apt-get install -qq --no-install-recommends $(CROSS_PACKAGES); } >/dev/null; \
	fi; \
	($(HAS_CROSS)) >/dev/null 2>&1 || \
	  echo "Tests of kernels for other CPUs will be skipped: they need gcc, aarch64-linux-gnu-gcc, each with the headers" \
	    "of its C library, and qemu-aarch64; on Debian and Ubuntu: apt-get install $(CROSS_PACKAGES)"

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(PIN) $(BIN)/python bench/core_peak.py
	$(PIN) $(BIN)/python bench/dense_networks.py
	$(PIN) $(BIN)/python bench/convolutional_networks.py
	$(PIN) $(BIN)/python bench/layer_rates.py --exact
	$(PIN) $(BIN)/python bench/layer_rates.py --inexact
	$(PIN) $(BIN)/python bench/binary_layers.py
	$(PIN) $(BIN)/python bench/binary_speed.py
	$(BIN)/python bench/threads.py

# Trains for hours, and goes on where it was when killed: results/ keeps what is done.
results: $(STAMP)
	@test -d "$(DATA)/cifar-10-batches-bin" -a -d "$(DATA)/MNIST/raw" || \
	  { echo "Give DATA=FOLDER, one that holds cifar-10-batches-bin and MNIST/raw; found '$(DATA)'"; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python bench/decompositions.py $(DATA) results --only-train --threads $$(nproc)
	$(PIN) $(BIN)/python bench/decompositions.py $(DATA) results --only-measure
	$(PIN) $(BIN)/python bench/decomposition_choices.py $(DATA)
	$(BIN)/python bench/binary_networks.py $(DATA) results --only-train --threads $$(nproc)
	$(PIN) $(BIN)/python bench/binary_networks.py $(DATA) results --only-measure

# Each in a venv of its own: they need numpy below 2, and Larq needs TensorFlow with the Keras of before version 3.
bench-peers: $(PEERS)/.installed $(LARQ)/.installed

$(PEERS)/.installed: Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info >= (3, 12))' || \
	  { echo "DeepSparse needs Python 3.11 or older; found $$($(PYTHON) --version). Set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check 'deepsparse==1.8.0' 'numpy<2'
	@touch $@

$(LARQ)/.installed: Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info >= (3, 12))' || \
	  { echo "Larq Compute Engine needs Python 3.11 or older; found $$($(PYTHON) --version). Set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(LARQ)
	$(LARQ)/bin/pip install --quiet --disable-pip-version-check 'larq-compute-engine==0.16.0' 'larq==0.14.0' 'tensorflow==2.21.0' \
	  'tf-keras==2.21.0' 'numpy<2'
	@touch $@

docs: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) $(PEERS) $(LARQ) site build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
