PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: demo test test-all check unit mutants sanitize docs install clean

demo: $(STAMP)
	$(BIN)/fewbits demo --out out/demo

test: check unit

# And what takes minutes: the site, built strictly, and tests marked "long", also on networks of other libraries.
test-all: test docs
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[networks,lightning,ethos]'
	$(BIN)/python -m pytest -n 2 --dist worksteal -m long tests

check: $(STAMP)
	$(BIN)/ruff check src tests benchmarks docs/hooks
	$(BIN)/ruff format --check src tests benchmarks docs/hooks
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

unit: $(STAMP)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not long" tests

# Small changes of the source that tests must notice; some ten minutes. One file only: python tests/mutants.py rate_control
mutants: $(STAMP)
	$(BIN)/python tests/mutants.py

# On demand: the C coder built with sanitizers, under golden files, mutations and the tests that feed it.
sanitize: $(STAMP)
	$(BIN)/python tests/attacks/sanitize.py

# Pages open from the disk; their search wants a server: python -m http.server -d out/docs
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

install: $(STAMP)

# torch goes first, alone: another package asking for plain "torch" would take a build of several gigabytes.
# captum, zennit and torch-pruning are test oracles; their own dependencies (torchvision) are not needed by what the tests use.
$(STAMP): pyproject.toml constraints.txt $(wildcard src/fewbits/codec/csrc/*.[ch])
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -c constraints.txt torch==2.13.0
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[data,report,search,rl,onnx,private,dev,docs]'
	$(BIN)/python -m pip install -q -c constraints.txt --no-deps captum zennit torch-pruning
	touch $(STAMP)

clean:
	rm -rf .venv build dist src/*.egg-info out
	find src -name '*.so' -delete
