# make demo | make test | make lint, each sets up what it needs on first use.
#   STACK=onedl       the second family of packages, in an environment of its own
#   PYTHON=python3.12 another interpreter, in an environment of its own
STACK ?= default
candidates := python3.11 python3.12 python3.10 python3
usable = import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))
venv := .venv
ifneq ($(STACK),default)
venv := $(venv)-$(STACK)
endif
ifeq ($(origin PYTHON),command line)
venv := $(venv)-$(notdir $(PYTHON))
candidates := $(PYTHON)
endif
python := $(venv)/bin/python
ready := $(venv)/.ready
# Two test processes share the cores; more threads in each would only wait.
pytest = OMP_NUM_THREADS=1 $(python) -m pytest

ifneq ($(filter default compiled,$(STACK)),)
requirements := -r requirements.txt -c requirements/constraints.txt
else ifeq ($(STACK),onedl)
requirements := -r requirements/onedl.txt
else
$(error STACK must be default, onedl or compiled, got '$(STACK)')
endif

.PHONY: help demo demo-scratch test test-fast test-slow test-exhaustive test-compiled lint docs clean
help:
	@echo "make demo          train YOLOX with a swapped backbone on real images"
	@echo "make demo-scratch  the same without pretrained weights, to compare"
	@echo "make test          the tests; STACK=onedl for the second family of packages"
	@echo "make test-fast     those that need neither a process nor long, in a minute or two"
	@echo "make test-slow     the long tests"
	@echo "make test-exhaustive  every net where the long tests have one of each kind"
	@echo "make test-compiled compile mmcv and compare its operators with ours"
	@echo "make lint          ruff, mypy and the floors of the house"
	@echo "make docs          the documentation, into site/"

# A set-up that was interrupted starts again from nothing; pip's cache keeps it short.
$(ready): requirements.txt requirements/constraints.txt requirements/onedl.txt requirements/dev.txt setup.cfg
	@set -e; start=$$(date +%s); \
	found=; for p in $(candidates); do \
	    if $$p -c '$(usable)' >/dev/null 2>&1; then found=$$p; break; fi; done; \
	if [ -z "$$found" ]; then \
	    echo "Python 3.10, 3.11 or 3.12 with venv is needed; tried: $(candidates)." >&2; \
	    echo "Name one with PYTHON=/path/to/python3.11" >&2; exit 1; fi; \
	echo "[1/3] environment $(venv) with $$($$found --version)"; \
	if [ ! -f $@ ]; then $$found -m venv --clear $(venv); fi; \
	echo "[2/3] packages ($(STACK) family; about 2 minutes and 6 GB the first time)"; \
	$(python) -m pip install --disable-pip-version-check $(requirements) -r requirements/dev.txt; \
	echo "[3/3] this package"; \
	$(python) -m pip install --disable-pip-version-check --quiet --editable .; \
	echo $$(($$(date +%s) - start)) > $@

demo: $(ready)
	$(python) tools/demo/run_demo.py --setup-seconds $$(cat $(ready))

demo-scratch: $(ready)
	$(python) tools/demo/run_demo.py --scratch --setup-seconds $$(cat $(ready))

test: $(ready)
	$(pytest) -n 2

test-fast: $(ready)
	$(pytest) -n 2 --fast

test-slow: $(ready)
	$(pytest) -n 2 --dist worksteal -m slow

# One process: the largest nets take more memory than two have.
test-exhaustive: $(ready)
	$(pytest) -m exhaustive

test-compiled:
	$(MAKE) STACK=compiled run-compiled

.PHONY: run-compiled
run-compiled: $(ready)
	tools/build_compiled_mmcv.sh $(python)
	$(pytest) tests/compat/ops

lint: $(ready)
	$(python) -m ruff check .
	$(python) -m ruff format --check mmdet_backbones tools tests benchmarks
	$(python) -m mypy
	$(venv)/bin/lint-imports

# Docstrings are read, not imported: an environment of 170 MB without torch is enough.
.venv-docs/.ready: requirements/docs.txt
	@set -e; found=; for p in $(candidates); do \
	    if $$p -c '$(usable)' >/dev/null 2>&1; then found=$$p; break; fi; done; \
	if [ -z "$$found" ]; then \
	    echo "Python 3.10, 3.11 or 3.12 with venv is needed; tried: $(candidates)." >&2; \
	    exit 1; fi; \
	$$found -m venv --clear .venv-docs; \
	.venv-docs/bin/python -m pip install --disable-pip-version-check -qq \
	    -r requirements/docs.txt; \
	touch $@

docs: .venv-docs/.ready
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/python -m mkdocs build --strict
	@echo "open site/index.html"

clean:
	rm -rf site .venv .venv-* build *.egg-info
