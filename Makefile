# make demo   train and compare five losses on real images, with clean and with wrong labels, and write the report
# make test   run the whole test suite
# make check  ruff and type checker
# make report STUDY=demo   rebuild a report from its records
# make site   a static site of all published evidence, in results/site
# make ui     the MLflow dashboard on this project's store (PORT=5001 for another port)
# Each of them first creates the environment in .venv, from requirements.lock, if it is not there or out of date; from
# requirements-cpu.lock with LOCK=requirements-cpu.lock (docs/install.md says how to point pip or uv at the CPU build).

PYTHON ?= python3
STUDY ?= demo
LOCK ?= requirements.lock
PY := .venv/bin/python

# without compiled bytecode every start takes several times longer
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check report site ui env lock clean

demo: env
	@$(PY) -m harness study=demo

test: env
	@$(PY) -m pytest -n logical --maxprocesses 4 --dist worksteal

check: env
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m basedpyright

report: env
	@$(PY) -m harness.report build $(STUDY)

site: env
	@$(PY) -m harness.report site

ui: env
	@$(PY) -m harness.tracking ui $(if $(PORT),--port $(PORT))

# The path file lets `python -m harness` find this checkout from any folder.
env: .venv/ready
	@$(PY) -c 'import os, pathlib, sysconfig; \
	  pathlib.Path(sysconfig.get_paths()["purelib"], "lossbench.pth").write_text(os.getcwd() + "\n")'

# From scratch each time, so that an interrupted installation leaves nothing to repair: downloads are cached anyway.
.venv/ready: $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "lossbench needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	@echo "creating .venv from $(LOCK) (about 7.3 GB with the CUDA build of PyTorch, 4 GB less with that for CPUs; once)"
	@rm -rf .venv
	@if command -v uv >/dev/null; then \
	  uv venv -q --python $(PYTHON) .venv && uv pip install -q --python $(PY) -r $(LOCK); \
	else \
	  $(PYTHON) -m venv .venv && $(PY) -m pip install -q --disable-pip-version-check -r $(LOCK); \
	fi
	@touch $@

# exact versions for every platform: names and versions only
lock:
	uv pip compile -q --universal --python-version 3.11 --group dev --no-annotate --no-header \
	  --upgrade pyproject.toml -o requirements.lock
	@awk "$$WITHOUT_CUDA" requirements.lock > requirements-cpu.lock

# the same without CUDA: the build of PyTorch for CPUs has a version of its own where there are others
define WITHOUT_CUDA
/^(nvidia-|cuda-|triton=)/ { next }
/^torch(vision)?==/ { print $$0 "+cpu ; sys_platform != 'darwin'"; print $$0 " ; sys_platform == 'darwin'"; next }
{ print }
endef
export WITHOUT_CUDA

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis
