# All commands of the project. `make help` lists them. Needs rustc with cargo, Python 3.10 or newer, and make.

PYTHON ?= python3
VENV ?= .venv
# What `make bench` measures; `benchmarks/run.py --list` names all.
SECTIONS ?=
# Of each fuzzing test; some minutes on two cores.
CASES ?= 200000
# Tests wait more than they compute, so more of them at a time than there are cores.
JOBS ?= 4
# With COVERAGE=yes tests print what they cover.
COVERAGE ?=
MEASURE = $(if $(COVERAGE),-p scripts.uncovered --cov --cov-report=json:.cache/coverage.json)
# The engines have an environment of their own: they need an older Python, and much room.
ENGINES ?= .venv-engines
ENGINES_PYTHON ?= python3.12
BIN := $(VENV)/bin
PY := $(BIN)/python
# For maturin, and for pyo3 to build against this environment's interpreter.
export VIRTUAL_ENV := $(abspath $(VENV))
export PYO3_PYTHON := $(abspath $(PY))
# Tests start hundreds of processes, which would compile the same modules each.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help build docs wheel audit audit-rust audit-python fuzz test test-rust test-python coverage test-engines soak lint format demo bench bench-smoke clean

help: ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

$(VENV)/.made:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "batch-llm needs Python 3.10 or newer: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet 'maturin>=1.12,<2' 'pip>=25.1' 'uv>=0.7'
	@touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml
	@# uv takes seconds where pip takes minutes. If it cannot reach an index that only pip is set up for, pip installs all.
	$(BIN)/uv pip install --quiet --compile-bytecode --requirement pyproject.toml --group dev || \
	{ PIP_QUIET=1 $(BIN)/maturin develop --quiet && $(PY) -m pip install --quiet --group dev; }
	@touch $@

build: $(VENV)/.dev ## build the extension for development (debug)
	PIP_QUIET=1 $(BIN)/maturin develop --quiet

test: test-rust test-python ## run all tests; sets itself up

test-rust:
	@# What fails beside others has to pass by itself: that tells a fault from a machine that was too busy.
	$(if $(COVERAGE),PYTHON=$(PYTHON) scripts/rust_coverage.sh,cargo test --no-default-features || cargo test --no-default-features -- --test-threads=1)

test-python: build
	$(PY) -m pytest -n $(JOBS) --dist loadfile $(MEASURE) || $(PY) -m pytest --last-failed --last-failed-no-failures none
	$(if $(COVERAGE),$(PY) scripts/uncovered.py python .cache/coverage.json)

coverage: ## run all tests; print what they cover; fail if they miss a public Python function
	$(MAKE) test COVERAGE=yes

test-engines: build $(ENGINES)/.made ## test the stages on Ray, Spark, Daft and Dask (minutes; Java for Spark)
	@# The extension is the one that `build` has made: it fits all versions of Python.
	PYTHONPATH=python $(ENGINES)/bin/python -m pytest tests/engines || \
	PYTHONPATH=python $(ENGINES)/bin/python -m pytest tests/engines --last-failed --last-failed-no-failures none

# The newest Python that all engines support.
$(ENGINES)/.made: pyproject.toml
	$(ENGINES_PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12) and "Python 3.12 is needed: make ENGINES_PYTHON=...")'
	$(ENGINES_PYTHON) -m venv $(ENGINES)
	$(ENGINES)/bin/pip install --quiet 'uv>=0.7'
	VIRTUAL_ENV=$(ENGINES) $(ENGINES)/bin/uv pip install --quiet --compile-bytecode --requirement pyproject.toml \
		--extra daft --extra ray --extra spark --group engines
	@touch $@

soak: build $(ENGINES)/.made ## run the long tests
	cargo test --no-default-features --lib -- --ignored --nocapture thousand_days
	$(PY) -m pytest -m soak
	PYTHONPATH=python $(ENGINES)/bin/python -m pytest -m soak tests/engines

lint: build ## check style and types
	cargo fmt --check
	cargo clippy --quiet --all-targets -- -D warnings
	cargo clippy --quiet --no-default-features -- -D warnings
	RUSTDOCFLAGS='-D warnings -A rustdoc::private-intra-doc-links' cargo doc --quiet --no-deps --document-private-items --lib
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(PY)
	$(PY) -m mypy.stubtest batch_llm._core
	$(BIN)/lint-imports --no-logo
	@# The layers of Rust, in a second: the file needs nothing else.
	@mkdir -p .cache && CARGO_MANIFEST_DIR=$(CURDIR) rustc --edition 2024 --test src/floors.rs -o .cache/floors
	.cache/floors --quiet
	@! grep -rnE 'pyo3|Py<' src --include=*.rs --exclude-dir=bridge --exclude=lib.rs || (echo 'Python outside of src/bridge' && exit 1)

docs: $(VENV)/.docs ## build the documentation site into site/; links must lead somewhere
	$(BIN)/zensical build --clean --strict

$(VENV)/.docs: $(VENV)/.made pyproject.toml zensical.toml
	$(PY) -m pip install --quiet --group docs
	@touch $@

fuzz: ## feed every parser of foreign bytes with far more than the tests do; CASES=N of each
	PROPTEST_CASES=$(CASES) cargo test --no-default-features --lib fuzz

wheel: $(VENV)/.made ## build wheel and sdist into dist/, check them, and try the wheel in a clean environment
	rm -rf dist .cache/wheel
	$(BIN)/maturin build --quiet --release --locked --sdist --out dist
	$(PYTHON) -m venv .cache/wheel
	.cache/wheel/bin/pip install --quiet twine abi3audit auditwheel
	.cache/wheel/bin/twine check --strict dist/*
	.cache/wheel/bin/abi3audit --strict dist/*.whl
	$(PYTHON) -m zipfile -l dist/*.whl | grep -F .dist-info/sboms/
	if [ "$$(uname)" = Linux ]; then .cache/wheel/bin/auditwheel show dist/*.whl; fi
	$(PYTHON) -m venv --clear .cache/wheel
	.cache/wheel/bin/pip install --quiet dist/*.whl
	cd .cache && wheel/bin/batch-llm --version && wheel/bin/python -m batch_llm models gpt-5 > /dev/null

audit: audit-rust audit-python ## look for known vulnerabilities, licences and sources that should not be there

audit-rust:
	cargo deny --version > /dev/null 2>&1 || cargo install --quiet --locked cargo-deny
	cargo deny check

audit-python:
	$(PYTHON) -m venv .cache/audit
	.cache/audit/bin/pip install --quiet pip-audit
	.cache/audit/bin/pip-audit --progress-spinner off .

format: $(VENV)/.dev ## format all sources
	cargo fmt
	$(BIN)/ruff check --fix --quiet .
	$(BIN)/ruff format --quiet .
	$(PY) scripts/agent_docs.py

demo: $(VENV)/.made ## run a real job against the simulated provider
	@# The build that the tests use too: the provider's latency sets the pace of the job.
	PIP_QUIET=1 $(BIN)/maturin develop --quiet
	$(PY) examples/summarize_stdlib.py

bench: $(VENV)/.made ## measure, beside peers in environments of their own (an hour, or only SECTIONS="...")
	PIP_QUIET=1 $(BIN)/maturin develop --quiet --release
	@rm -f $(VENV)/.dev
	$(PY) -m pip install --quiet numpy pandas polars pyarrow # for data frames; the openai SDK makes vectors with numpy
	$(PY) benchmarks/run.py $(SECTIONS)

bench-smoke: build ## compare throughput, memory and waiting with themselves (a minute)
	$(PY) -m pytest -m benchmark tests/project/test_performance.py

clean: ## remove what the commands above have made
	rm -rf $(VENV) $(ENGINES) target .cache site demo-results.jsonl demo-report.html
