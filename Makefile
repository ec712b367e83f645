# The only commands anyone must know. Everything is set up on the way: `make test` works on a fresh clone.

UV := $(shell command -v uv || echo .cache/uv/bin/uv)
RUN := $(UV) run --locked
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup tools node-tools lint test demo bench crd rbac proto fmt clean

help:  ## What can be made
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20

setup: $(UV)  ## The locked Python environment in .venv
	$(UV) sync --locked

.cache/uv/bin/uv:
	@echo 'uv is not on PATH: installing it into .cache/uv'
	python3 -m venv .cache/uv
	.cache/uv/bin/pip install --quiet uv

tools: setup  ## The control plane's binaries: from KUBEBUILDER_ASSETS, PATH, the cache, or a Go build
	$(RUN) python -m tests.support.tools build

node-tools: tools  ## What the node stage needs besides: kubelet, CoreDNS and (as root) Debian's packages
	$(RUN) python -m tests.support.node_tools

lint: tools  ## Style, types, layers and the chart
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy
	$(RUN) lint-imports
	$(RUN) python -m tests.support.tools run helm lint --strict chart

test: lint node-tools  ## All checks and all tests; ARGS='-k name' passes arguments to pytest
	$(RUN) pytest $(ARGS)

demo: node-tools  ## The product's story in the terminal, on a real control plane, in under two minutes
	$(RUN) python -m tests.support.demo

bench: tools  ## Measurements on the fleet stage
	$(RUN) python -m tests.bench

crd: setup  ## Generate crd/agentpools.velda.io.yaml and the chart's copy
	$(RUN) python -m crd.generate

rbac: tools  ## Render velda-rbac.yaml for those without helm
	$(RUN) python -m crd.rbac

proto: setup  ## Generate the modules of app/proto/velda.proto
	$(RUN) python -m app.proto.generate

fmt: setup  ## Format, and repair what ruff can
	$(RUN) ruff format
	$(RUN) ruff check --fix

clean:  ## Remove what the targets made inside the checkout
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
