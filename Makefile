# make demo | test | test-long | test-all | seconds | bench | docs | figures | clean. Needs Python 3.11 or newer and make, nothing else;
# uv is used when it is on PATH. Index, proxy and certificate settings are left to pip's or uv's own
# configuration. The install is editable, so only a change of pyproject.toml installs again.

VENV := .venv
PYTHONS := $(PYTHON) python3 python3.13 python3.12 python3.11 python3.14
UV := $(shell command -v uv 2>/dev/null)
WORKERS ?= 2
PYTEST_ARGS ?=
# make bench BENCH_ARGS=--quick prints the smallest sizes and keeps nothing.
BENCH_ARGS ?= --save
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NUMBA_NUM_THREADS=1

ifneq ($(UV),)
  NEEDED := venv
  CREATE := "$(UV)" venv --quiet --allow-existing $(VENV) --python "$$found"
  INSTALL := "$(UV)" pip install --python $(VENV)/bin/python
else
  NEEDED := venv, ensurepip
  CREATE := "$$found" -m venv $(VENV)
  INSTALL := $(VENV)/bin/python -m pip install
endif

.PHONY: demo test test-long test-all seconds bench docs figures clean

demo: $(VENV)/installed-demo
	$(VENV)/bin/jaxfc demo

test: $(VENV)/installed-test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright
	$(VENV)/bin/pytest -n $(WORKERS) --dist loadfile $(PYTEST_ARGS)

# What the default leaves out: tests of some seconds each, as tests/seconds.csv tells.
test-long: $(VENV)/installed-test
	$(VENV)/bin/pytest -n $(WORKERS) --dist loadfile -m 'long and not slow' $(PYTEST_ARGS)

test-all: PYTEST_ARGS += -m ''
test-all: test

# The table of tests and their seconds, measured with nothing compiled.
seconds: $(VENV)/installed-test
	rm -rf .jax_cache .seconds
	$(VENV)/bin/pytest -n $(WORKERS) --dist loadfile -m 'not slow' --seconds=.seconds
	$(VENV)/bin/python tests/seconds.py .seconds
	rm .seconds

bench: $(VENV)/installed-bench
	@failed=; for script in benchmarks/bench_*.py; do echo "== $$script"; \
	  $(ONE_THREAD) $(VENV)/bin/python "$$script" $(BENCH_ARGS) || failed="$$failed $$script"; done; \
	$(VENV)/bin/python benchmarks/page.py || exit 1; \
	if [ -n "$$failed" ]; then echo "not finished:$$failed (see benchmarks/README.md)" >&2; exit 1; fi

docs: $(VENV)/installed-docs
	$(VENV)/bin/mkdocs build --strict

# The pictures of the pages, drawn by the pages' own Python: PAGES=volatility.md for one of them.
figures: $(VENV)/installed-demo
	$(VENV)/bin/python docs/draw_figures.py $(PAGES)

clean:
	rm -rf $(VENV) .jax_cache .pytest_cache .ruff_cache build dist site
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An interpreter is tried by running it: a version manager may put names on PATH that only print an
# error. Without uv it also needs ensurepip, which Debian and Ubuntu ship apart from Python.
$(VENV)/created:
	@found=; lacking=; \
	for candidate in $(PYTHONS); do \
	  "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
	  "$$candidate" -c 'import $(NEEDED)' >/dev/null 2>&1 || { lacking=$$candidate; continue; }; \
	  found=$$candidate; break; \
	done; \
	if [ -z "$$found" ] && [ -n "$$lacking" ]; then \
	  echo "$$lacking cannot create a virtual environment: it lacks $(NEEDED)." >&2; \
	  echo "On Debian or Ubuntu: apt-get install python3-venv. Or put uv on PATH." >&2; exit 1; \
	fi; \
	if [ -z "$$found" ]; then \
	  echo "No Python 3.11 or newer runs under the names: $(strip $(PYTHONS))." >&2; \
	  echo "Install one, or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; \
	fi; \
	echo "Creating $(VENV) with $$found ($$("$$found" --version))"; \
	$(CREATE)
	@touch $@

$(VENV)/installed-demo: EXTRAS := data
$(VENV)/installed-test: EXTRAS := dev,data,macro,cluster
$(VENV)/installed-bench: EXTRAS := data,peers
$(VENV)/installed-docs: EXTRAS := docs
$(VENV)/installed-%: pyproject.toml $(VENV)/created
	$(INSTALL) --editable '.[$(EXTRAS)]'
	@touch $@
