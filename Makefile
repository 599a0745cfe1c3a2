# Two commands are all that a new machine needs: `make run` and `make test`.
# Python 3.11 or later; everything else comes from constraints.txt into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: run test check bench clean

run: $(VENV)/run.done
	$(BIN)/rag serve --with-manual

test: $(VENV)/test.done check
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: $(VENV)/test.done
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# This project beside its peers: an environment of their own (.venv-peers), then half an hour of measuring, alone.
bench: $(VENV)/test.done
	$(BIN)/python -m tests.benchmarks.peers

$(VENV)/run.done: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo "On Debian and Ubuntu, venv is a package of its own: apt-get install python3-venv"; exit 1; }
	@echo "Installing into $(VENV) (once; some minutes)"
	$(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(VENV)/test.done: $(VENV)/run.done
	$(PIP) install --constraint constraints.txt --editable '.[test,archive,langchain,llama-index,mcp,mlflow,qdrant,s3,telemetry,wandb]'
	@touch $@

clean:
	rm -rf $(VENV) $(VENV)-peers rag.egg-info
