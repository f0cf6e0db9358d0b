# Needs only make, git and Python 3.11 or newer; everything else goes into .venv, pinned by hash.
#   make demo [KAFKA=host:port]     make test [ARGS="-k windows"]     make check     make bench [KAFKA=host:port]
#   make test-unit [ARGS="-k windows"]     make test-pythons     make bench-detect [ARGS="fast --json"]
PYTHON ?= $(firstword $(foreach p,python3 python3.14 python3.13 python3.12 python3.11,$(shell \
	$(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(p))) python3)
KAFKA ?=
ARGS ?=
PROCESSES ?= 4
CONFIG ?=
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
BROKER := $(if $(KAFKA),--kafka $(KAFKA))

.PHONY: install demo test test-unit test-pythons test-live check bench bench-detect mutants lock
.DELETE_ON_ERROR:

install: $(STAMP)

$(STAMP): requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "flipback needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1)." >&2; \
	  echo "Install one and name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make virtual environments: its modules venv and ensurepip are missing." >&2; \
	  echo "On Debian and Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; }
	@echo "Installing into $(VENV) (once; about a minute)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: install
	@$(BIN)/flipback demo $(BROKER)

# All tests in several processes, more than cores, because most wait for brokers and seconds; some tests in one. With
# bytecode kept, whatever the environment says: the tests start flipback hundreds of times.
test: install
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest $(or $(ARGS),-n $(PROCESSES))

# What needs neither a broker nor a server: a rule each, in a few minutes.
test-unit: install
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest tests/unit tests/house tests/contract \
	  -m 'not kafka and not unleash and not faketime' $(or $(ARGS),-n auto)

# The unit tests on every other Python that is found on the PATH or in pyenv, each in an environment of its own.
OTHER_PYTHONS := 3.12 3.13 3.14
test-pythons: install
	@own=$$($(BIN)/python -c 'import sys; print("%d.%d" % sys.version_info[:2])'); failed=; \
	for version in $(OTHER_PYTHONS); do \
	  test $$version = $$own && continue; \
	  for python in "$$(command -v python$$version)" "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$$version.*/bin/python -; do \
	    "$$python" -c 'import ensurepip, venv' 2>/dev/null && break; \
	  done; \
	  if test "$$python" = -; then echo "NOT TESTED: Python $$version is not installed"; continue; fi; \
	  echo "Python $$version"; \
	  $(MAKE) --no-print-directory test-unit PYTHON="$$python" VENV=.venv-$$version || failed="$$failed $$version"; \
	done; \
	test -z "$$failed" || { echo "failed: Python$$failed" >&2; exit 1; }

test-live: install
ifneq ($(CONFIG),)
	@FLIPBACK_LIVE=$(CONFIG) $(BIN)/python -m pytest tests/contract/test_backends.py -k 'live:' $(ARGS)
else
	@echo "NOT TESTED: no real flag system. make test-live CONFIG=flipback.yaml tries the backends of that file, which"
	@echo "must hold the flags new-checkout and other with the variants on, off and beta; both are written."
endif

check: install
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/house/test_imports.py

bench: install
	@$(BIN)/python -m tests.bench.broker $(BROKER) $(ARGS)

bench-detect: install
	@$(BIN)/python -m tests.bench.detect $(ARGS)

# Breaks the safety core in some thousand ways and runs the unit tests on each: an hour on two cores. In an environment
# of its own, because the tool needs an older pytest. ARGS="agent.commands.command*" for some of them.
mutants:
	@test -e .venv-mutants/.installed || { $(PYTHON) -m venv .venv-mutants && \
	  .venv-mutants/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-mutants.txt && \
	  .venv-mutants/bin/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e . && \
	  touch .venv-mutants/.installed; }
	@.venv-mutants/bin/python -m tests.mutants $(ARGS)

# The pins anew from pyproject.toml; needs `uv` on the PATH. The development pins contain the runtime pins.
LOCK := uv pip compile -q --universal --python-version 3.11 --generate-hashes --custom-compile-command 'make lock'
lock:
	$(LOCK) $(ARGS) pyproject.toml -o requirements.txt
	$(LOCK) $(ARGS) --extra dev --extra demo --extra drift -c requirements.txt pyproject.toml -o requirements-dev.txt
	$(LOCK) $(ARGS) --extra dev --extra demo --extra drift --extra mutants pyproject.toml -o requirements-mutants.txt
