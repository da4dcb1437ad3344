# Everything a person or CI runs, from a bare clone. The first target that needs the environment makes it.
# Not here: which packages and versions (pyproject.toml, constraints.txt) and what the tools check (pyproject.toml).
#
# pip's own settings (PIP_* variables, pip.conf) apply untouched; PIP_ARGS adds options to the one `pip install`.

PYTHON ?= python3
ARGS ?=
PIP_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
EXTRA_demo := offline
EXTRA_dev := dev
EXTRA_bench := dev,bench

.NOTPARALLEL:
.PHONY: help demo test test-slow check format bench clean

help:  ## list these targets
	@sed -n 's/^\([a-z-]*\):.*  ## /\1: /p' Makefile

demo: $(VENV)/.installed-demo  ## install, then run the whole chain on the simulated market (ARGS="--seed 1")
	$(BIN)/tapewire demo $(ARGS)

# Two processes with one thread each: with torch threads of their own they would fight for two cores. Which files they
# begin with is said in tests/conftest.py.
test: $(VENV)/.installed-dev  ## install, then run the tests (ARGS="-n 0 tests/data -k lake")
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-slow: $(VENV)/.installed-dev  ## run the long tests that `test` leaves out
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n 2 --dist worksteal --durations=25 $(ARGS)

check: $(VENV)/.installed-dev  ## lint, format, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev  ## apply the formatter and the safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-bench  ## install the peers too, then run every benchmark
	@for file in benchmarks/*.py; do [ ! -e "$$file" ] || $(BIN)/python "$$file" $(ARGS) || exit 1; done

clean:  ## remove the environment and all caches; workspaces and results stay
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find data encoders fusion pipelines tests benchmarks -type d -name __pycache__ -prune -exec rm -rf {} +

# One sentence where the machine lacks something, nothing where it can install. Python 2 must be able to answer too.
define lacking
if ! command -v git >/dev/null 2>&1; then \
  echo 'Install git: it was not found'; \
elif ! found=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2]); sys.exit(sys.version_info < (3, 11))' 2>/dev/null); then \
  echo "Install Python 3.11 or newer, or name one with make PYTHON=/path/to/python3: $(PYTHON) is $${found:-not found}"; \
elif ! $(PYTHON) -c 'import ensurepip, venv' >/dev/null 2>&1; then \
  echo "Install the venv module of Python $$found (on Debian and Ubuntu: apt-get install python$$found-venv)"; \
elif [ ! -e $(VENV)/.installed-demo ] && ! $(PYTHON) -c 'import shutil, sys; sys.exit(shutil.disk_usage(".").free < 6e9)'; then \
  echo 'Free some disk space: installing takes up to 6 GB in this folder and there is less'; \
fi
endef

# `.installing` turns into the stamp only when pip has succeeded, so a run cut short leaves no stamp and the next one
# starts from an empty environment. The stamp has the time of the start: a file edited meanwhile is seen as newer.
# What dev installs includes what demo needs.
$(VENV)/.installed-%: pyproject.toml constraints.txt
	$(eval sentence := $(shell $(lacking)))$(if $(sentence),$(error $(sentence)))
	@if [ -e $(VENV)/.installing ] || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  $(PYTHON) -m venv --clear $(VENV); \
	fi
	@touch $(VENV)/.installing
	@rm -f $(VENV)/.installed-*
	$(BIN)/python -m pip install -c constraints.txt $(PIP_ARGS) -e '.[$(EXTRA_$*)]'
	@touch -r $(VENV)/.installing $(VENV)/.installed-demo
	@mv -f $(VENV)/.installing $@
