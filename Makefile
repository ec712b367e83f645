# The only commands anyone must know. Everything is set up on the way: `make test` works on a fresh clone.

UV := $(shell command -v uv || echo .cache/uv/bin/uv)
RUN := $(UV) run --locked
ARGS ?=
SYSTEM_PYTHON ?= /usr/bin/python3

.DEFAULT_GOAL := help
.PHONY: help setup tools gitops-tools node-tools browser lint test demo screenshots docs bench fuzz audit sbom install crd rbac proto fmt clean

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

gitops-tools: tools  ## The libraries by which Argo CD and Flux judge, for tests/gitops
	$(RUN) python -m tests.support.tools build gitops

node-tools: tools  ## What the node stage needs besides: kubelet, CoreDNS and (as root) Debian's packages
	$(RUN) python -m tests.support.node_tools

browser: setup  ## Chromium for the dashboard's tests (as root, from Debian's packages)
	$(RUN) python -m tests.support.browser

lint: tools  ## Style, types, layers and the chart
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy
	$(RUN) lint-imports
	$(RUN) python -m tests.support.tools run helm lint --strict chart
	$(RUN) python -m tests.support.tools run promtool check rules chart/files/alerts.yaml

test: lint gitops-tools node-tools browser  ## All checks and all tests; ARGS='-k name' passes arguments to pytest
	$(RUN) pytest --numprocesses=3 --dist=loadfile --no-loadscope-reorder $(ARGS)

demo: node-tools  ## The product's story in the terminal, on a real control plane, in under two minutes
	$(RUN) python -m tests.support.demo

screenshots: browser  ## docs/images/dashboard-*.png, taken of the dashboard in Chromium
	$(RUN) python -m tests.dashboard.screenshots

docs: setup  ## The reference pages of docs/, and all of it as a site in .cache/site, its links checked
	$(RUN) python -m crd.reference
	NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict

bench: tools  ## Measurements on the fleet stage
	$(RUN) python -m tests.bench

fuzz: setup  ## Coverage-guided fuzzing by atheris; ARGS='TARGET SECONDS' (reviews, pods, pools, settings, agent; 60)
	$(UV) run --isolated --locked --group fuzz python -m tests.fuzz $(ARGS)

audit: setup  ## Known vulnerabilities of what uv.lock names; asks osv.dev, so it needs the network and is not in CI
	$(UV) audit --locked

sbom: setup  ## What we depend on, as CycloneDX, which the image has as /opt/velda/sbom.cdx.json
	$(UV) export --locked --no-dev --format cyclonedx1.5 --quiet --output-file velda-sbom.cdx.json

install: $(UV)  ## As root: the server in /opt/velda, its command and its systemd unit (docs/install.md)
	UV_PROJECT_ENVIRONMENT=/opt/velda/venv $(UV) sync --locked --no-dev --no-editable --compile-bytecode \
		--link-mode copy --python $(SYSTEM_PYTHON) --no-managed-python --reinstall-package velda-apiserver
	ln -sf /opt/velda/venv/bin/velda-apiserver /usr/local/bin/velda-apiserver
	install -D -m 644 deploy/systemd/velda-apiserver.service /usr/lib/systemd/system/velda-apiserver.service
	install -D -m 644 deploy/systemd/sysusers.conf /usr/lib/sysusers.d/velda-apiserver.conf
	install -D -m 644 deploy/systemd/tmpfiles.conf /usr/lib/tmpfiles.d/velda-apiserver.conf
	test -e /etc/velda/velda-config.yaml || \
		install -D -m 640 deploy/systemd/velda-config.yaml /etc/velda/velda-config.yaml

crd: setup  ## Generate crd/agentpools.velda.io.yaml, the chart's copy, and the JSON Schema for editors
	$(RUN) python -m crd.generate

rbac: tools  ## Render velda-rbac.yaml for those without helm
	$(RUN) python -m crd.rbac

proto: setup  ## Generate the modules of app/proto/velda.proto
	$(RUN) python -m app.proto.generate

fmt: setup  ## Format, and repair what ruff can
	$(RUN) ruff format
	$(RUN) ruff check --fix

clean:  ## Remove what the targets made inside the checkout
	rm -f velda-sbom.cdx.json
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
