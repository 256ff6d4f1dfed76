# make demo   train and compare five losses on real images, with clean and with wrong labels, and write the report
# make test   run the whole test suite
# make check  ruff and type checker
# make report STUDY=demo   rebuild a report from its records
# make ui     the MLflow dashboard on this project's store (PORT=5001 for another port)
# Each of them first creates the environment in .venv, from requirements.lock, if it is not there or out of date.

PYTHON ?= python3
STUDY ?= demo
PY := .venv/bin/python

# without compiled bytecode every start takes several times longer
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check report ui env lock clean

demo: env
	@$(PY) -m harness study=demo

test: env
	@$(PY) -m pytest -n logical --maxprocesses 4 --dist worksteal

check: env
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m basedpyright

report: env
	@$(PY) -m harness.report build $(STUDY)

ui: env
	@$(PY) -m harness.tracking ui $(if $(PORT),--port $(PORT))

env: .venv/ready

# From scratch each time, so that an interrupted installation leaves nothing to repair: downloads are cached anyway.
.venv/ready: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "lossbench needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "creating .venv (about 5.5 GB with the CUDA build of torch; once)"
	@rm -rf .venv
	@if command -v uv >/dev/null; then \
	  uv venv -q --python $(PYTHON) .venv && uv pip install -q --python $(PY) -r requirements.lock; \
	else \
	  $(PYTHON) -m venv .venv && $(PY) -m pip install -q --disable-pip-version-check -r requirements.lock; \
	fi
	@touch $@

# exact versions for every platform: names and versions only
lock:
	uv pip compile -q --universal --python-version 3.11 --group dev --no-annotate --no-header \
	  --upgrade pyproject.toml -o requirements.lock

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis
