# make demo      generate data, train and test on it, and print one table
# make test      run the tests
# make test-fast run those that start no process and train no model
# make lint      check style and types
# make docs      build the site of the documentation, site/index.html; a broken link is an error
# make test-onedl  run what touches mm packages on their maintained fork, in .venv-onedl of its own
# make tables    regenerate the tables of README.md, CONTRIBUTING.md and docs/ from results/
# make notebooks run docs/notebooks and keep what their cells show; a few minutes on 2 cores
# Each sets up .venv by itself when needed. Variables:
#   PYTHON=python3.12     the Python to set it up with (3.10 or newer); make clean before a change
#   PIP_ARGS="..."        more arguments for pip, for example a wheel index for CPU-only PyTorch
#   TESTS="tests/clip"    what make test and make test-fast run
#   WORKERS=4             processes that run it; as many as cores and memory allow if not given

PYTHON ?= python3
PIP_ARGS ?=
TESTS ?= tests
WORKERS ?= auto
# One file is run as it is; more of them are dealt out to processes of one thread each.
SPREAD = $(if $(findstring .py,$(TESTS)),,-n $(WORKERS) --dist loadfile --no-loadscope-reorder)
# Compiled files are kept even where the environment says otherwise: the processes share them.
PYTEST = OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest --timeout=300 $(SPREAD)
# What touches mm packages: all of compat and engine, the Python API, and their stock tools.
ONEDL_TESTS ?= tests/compat tests/doctor tests/engine tests/apis \
	$(sort $(shell find tests/datasets tests/evaluation tests/faults tests/models tests/visualization -name 'test_*stock*.py'))
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The second name is for pip 25.3 and newer, which no longer reads the first for build requirements.
PIN := PIP_CONSTRAINT=constraints.txt PIP_BUILD_CONSTRAINT=constraints.txt

ONEDL := .venv-onedl
ONEDL_WHEELS := .wheels-onedl
ONEDL_PIP = PIP_CONSTRAINT= PIP_BUILD_CONSTRAINT= $(ONEDL)/bin/python -m pip

ifneq ($(wildcard $(READY)),)
ifneq ($(origin PYTHON),file)
$(info PYTHON=$(PYTHON) is not used, since $(VENV) is there already; to change its Python, run make clean first.)
endif
endif

.PHONY: demo test test-fast test-onedl lint docs format tables notebooks install clean

demo: $(READY)
	$(BIN)/python tools/demo.py

test: $(READY)
	$(PYTEST) $(TESTS)

test-fast: $(READY)
	$(PYTEST) -m "not slow" $(TESTS)

test-onedl: $(ONEDL)/.ready
	$(ONEDL)/bin/python -m mmclipdis.doctor
	OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(ONEDL)/bin/python -m pytest --timeout=300 \
		-n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ONEDL_TESTS)

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

tables: $(READY)
	$(BIN)/python tools/make_tables.py

notebooks: $(READY)
	$(BIN)/python tools/run_notebooks.py

install: $(READY)

$(READY): constraints.txt setup.py
	$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or newer is needed, for example: make PYTHON=python3.12 $(MAKECMDGOALS)" if sys.version_info < (3, 10) else 0)'
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(VENV)
	$(PIN) $(BIN)/python -m pip install --upgrade-strategy only-if-needed $(PIP_ARGS) -c constraints.txt -e ".[all,dev,web]"
	touch $@

# onedl-mmcv compiles its ops against the torch that is installed, so torch comes first. That takes
# ten minutes or more, once: the wheel is kept in .wheels-onedl, by make clean, too. (pip's cache is
# not asked: it may hold a wheel without ops, which pip makes where it builds without torch.)
# Then all of constraints.txt, but for OpenMMLab's packages, which the fork replaces.
$(ONEDL)/.ready: constraints.txt constraints-onedl.txt setup.py
	$(ONEDL)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv $(ONEDL)
	$(ONEDL_PIP) install $(PIP_ARGS) -c constraints-onedl.txt torch torchvision setuptools wheel ninja
	mkdir -p $(ONEDL_WHEELS)
	@ls $(ONEDL_WHEELS)/onedl_mmcv-*.whl 2>/dev/null || echo "The ops of onedl-mmcv are compiled, once: ten minutes or more (unless PIP_ARGS finds a wheel)."
	$(ONEDL_PIP) wheel --no-cache-dir --no-deps --no-build-isolation $(PIP_ARGS) --find-links $(ONEDL_WHEELS) -c constraints-onedl.txt -w $(ONEDL_WHEELS) onedl-mmcv
	grep -vE '^(mm(cv-lite|det|engine|segmentation)==|#)' constraints.txt >$(ONEDL)/rest.txt
	$(ONEDL_PIP) install $(PIP_ARGS) --find-links $(ONEDL_WHEELS) -c constraints-onedl.txt -r $(ONEDL)/rest.txt onedl-mmengine onedl-mmcv onedl-mmsegmentation onedl-mmdetection
	$(ONEDL_PIP) install $(PIP_ARGS) -c constraints-onedl.txt --no-deps --no-build-isolation -e .
	touch $@

clean:
	rm -rf $(ONEDL) $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
