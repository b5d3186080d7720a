# Everything a person needs: make demo · make test · make lint · make install
PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python
PIP    := $(RUN) -m pip install --quiet --disable-pip-version-check --require-hashes

.PHONY: demo test bench chaos guards lint install lock clean

demo: $(VENV)/.runtime          ## the whole product on this machine, with a simulated Slack and Argo CD
	@$(RUN) -m bot demo

test: $(VENV)/.dev              ## every test; needs no root
	@$(RUN) -m pytest

bench: $(VENV)/.dev             ## how fast a commit is, against a bare git push; about five minutes
	@PYTHONPATH=tests $(RUN) -m benchmarks

chaos: $(VENV)/.dev             ## kill the bot everywhere, alone and in a storm, and check every promotion; about 35 minutes
	@$(RUN) -m chaos

guards: $(VENV)/.dev            ## take each guard out of the code, and see that a test fails; about five minutes
	@$(RUN) -m chaos.guards

lint: $(VENV)/.dev              ## style, types, and the architecture's import contracts
	@$(RUN) -m ruff check .
	@$(RUN) -m ruff format --check .
	@$(RUN) -m mypy
	@$(VENV)/bin/lint-imports

install: $(VENV)/.dev           ## the set-up alone; the interpreter is .venv/bin/python

$(VENV)/bin/python:
	@command -v git >/dev/null || { echo "git is missing: install Debian's package git"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "venv is missing: install Debian's package python3-venv"; exit 1; }

$(VENV)/.runtime: requirements.lock $(VENV)/bin/python
	@echo "Setting up: installing the locked packages (about a minute, once) …"
	@$(PIP) -r requirements.lock
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/bin/python
	@echo "Setting up: installing the locked packages and the tools for development (about a minute, once) …"
	@$(PIP) -r requirements-dev.lock
	@touch $(VENV)/.runtime $@

lock: $(VENV)/.dev              ## exact versions with hashes, without index addresses (needs uv on PATH)
	uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -q -o requirements.lock
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-header --no-annotate -q -o requirements-dev.lock

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage*
