# make serve   set everything up and serve the demo model on 127.0.0.1:8000
# make test    set everything up and run every check and test, for every release of vLLM in version_matrix.toml
#              make test ROW=vllm083               one release
#              make test ROW=vllm083 ENGINE=V0 ARGS="-k greedy"   one engine of it, and arguments for pytest
# make locks   write locks/*.txt anew; make docs: the tables and the picture of the documents; make wheel: what is published, in dist/
# make bench   measure against llama.cpp and vLLM's own CPU backend, see docs/performance.md
#              make bench PEER=/path/to/python LLAMA=/folder/of/programs ARGS="--only decode,prefill"
#
# The project is installed as a user installs it (not editable), and again whenever a source changes.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UV := $(shell command -v uv || echo $(BIN)/uv)
SOURCES := $(shell find vllm_mindspore compat kernels -type f -not -name '*.pyc')

# uv compiles nothing. Python shall keep what it compiles, also where it is told not to: an import of vLLM takes twice as long otherwise.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: env serve test lint locks docs wheel bench clean

env: $(STAMP)

serve: $(STAMP)
	model=$$($(BIN)/vllm-mindspore demo-model) && \
	exec $(BIN)/vllm-mindspore serve "$$model" --served-model-name smollm2 --host 127.0.0.1 --port 8000

# The demo model is made here once: the environments of other releases find it in the user's cache.
test: $(if $(ROW),$(STAMP),lint)
	$(BIN)/vllm-mindspore demo-model
	$(BIN)/nox -f ci/noxfile.py $(if $(ROW),-s $(ROW)) -- $(ENGINE) $(ARGS)

# mypy and import-linter look at the installed package, so not from here: there compat and kernels are where they are imported from.
lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/shellcheck ci/*.sh ci/images/*.sh .ci/run
	$(BIN)/hadolint ci/images/Dockerfile.*
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/zizmor --offline --quiet .github/workflows
	cd $(VENV) && bin/mypy --config-file ../pyproject.toml -p vllm_mindspore
	cd $(VENV) && bin/lint-imports --config ../pyproject.toml

bench: $(STAMP)
	$(UV) pip install --quiet --python $(BIN)/python --group bench
	$(BIN)/python ci/bench $(if $(PEER),--peer $(PEER)) $(if $(LLAMA),--llama $(LLAMA)) $(ARGS)

locks: $(STAMP)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python ci/lock.py

docs: $(STAMP)
	$(BIN)/python ci/write_docs.py
	$(BIN)/d2 --layout elk --pad 20 docs/architecture.d2 docs/architecture.svg

wheel: $(STAMP)
	rm -rf dist build/wheel
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m build --installer uv --outdir build/wheel
	PATH="$(CURDIR)/$(BIN):$$PATH" auditwheel repair --wheel-dir dist build/wheel/*.whl
	mv build/wheel/*.tar.gz dist
	$(BIN)/twine check --strict dist/*

clean:
	rm -rf $(VENV) .envs build dist

$(BIN)/python:
	@$(or $(PYTHON),false) -c 'import sys; sys.exit(not (3, 9) <= sys.version_info[:2] <= (3, 11))' || \
		{ echo "vllm-mindspore needs Python 3.9, 3.10 or 3.11, and $(or $(PYTHON),no python3) is none of them: run make PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "The environment could not be made: on Debian and Ubuntu, install $$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')" >&2; exit 1; }
	command -v uv >/dev/null || $(BIN)/python -m pip install --quiet uv

$(STAMP): ci/demo-overrides.txt pyproject.toml version_matrix.toml README.md LICENSE $(SOURCES) | $(BIN)/python
	$(UV) pip install --python $(BIN)/python --override ci/demo-overrides.txt --reinstall-package vllm-mindspore '.[vllm091,demo,dev]'
	touch $@
