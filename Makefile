# Everything that a user or CI runs. All of it works in .venv, which `make setup` makes from constraints.txt.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PEERS := .venv-deepsparse
EXTRAS := demo,test,check
# The benchmarks are meant for one core: a shared machine's other cores are busy anyhow.
PIN := $(shell command -v taskset >/dev/null 2>&1 && echo taskset -c 0)

.PHONY: setup demo test check format bench bench-peers results docs clean

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

test: $(STAMP)
	$(BIN)/python -m pytest

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
	$(BIN)/python bench/threads.py

# Trains for hours, and goes on where it was when killed: results/ keeps what is done.
results: $(STAMP)
	@test -d "$(DATA)/cifar-10-batches-bin" -a -d "$(DATA)/MNIST/raw" || \
	  { echo "Give DATA=FOLDER, one that holds cifar-10-batches-bin and MNIST/raw; found '$(DATA)'"; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	$(BIN)/python bench/decompositions.py $(DATA) results --only-train --threads $$(nproc)
	$(PIN) $(BIN)/python bench/decompositions.py $(DATA) results --only-measure
	$(PIN) $(BIN)/python bench/decomposition_choices.py $(DATA)

# In a venv of its own: it needs numpy below 2.
bench-peers: $(PEERS)/.installed

$(PEERS)/.installed: Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info >= (3, 12))' || \
	  { echo "DeepSparse needs Python 3.11 or older; found $$($(PYTHON) --version). Set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check 'deepsparse==1.8.0' 'numpy<2'
	@touch $@

docs: $(STAMP)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(VENV) $(PEERS) site build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
