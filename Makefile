# Needs make, Python and a package index; everything else goes into .venv.
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
WHEEL_DIR ?= dist
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' celery_plugin/__init__.py)
SERVER := build/server
CONTAINER ?= podman

.PHONY: help setup demo test test-matrix image-test lint audit format types bench wheel dist sbom image release-check clean

help: ## Show what there is
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## Install everything into .venv (again only when dependencies or version have changed)

# The stamp comes last: an installation that broke off is done again.
$(INSTALLED): pyproject.toml celery_plugin/__init__.py
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "$(PYTHON) cannot make a virtual environment; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[server,dev]'
	@touch $@

demo: $(INSTALLED) ## Start Redis, a worker, tasks and the sidecar on http://127.0.0.1:8000 (Ctrl-C ends all)
	@$(BIN)/python -m deploy.demo

test: $(INSTALLED) ## Run the tests; ARGS="-k word" for some of them
	$(BIN)/python -m pytest --numprocesses=4 --dist=loadfile --no-loadscope-reorder $(ARGS)

test-matrix: $(INSTALLED) ## Run the suites on Celery 5.3 to 5.7, each with its own redis-py, and on Redis 6.2 and Valkey 8.1; Sentinel, Cluster, TLS
	$(BIN)/python -m tests.matrix $(ARGS)

image-test: $(INSTALLED) ## Build the image and run what is in it; needs root, buildah and debootstrap
	IMAGE_TEST=true $(BIN)/python -m pytest tests/image $(ARGS)

lint: $(INSTALLED) ## Check format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# With the certificates that pip is told of: in a network that has its own, no others reach the index.
PIP_CERTIFICATES = $(BIN)/pip config list | sed -n "s/^global.cert='\(.*\)'$$/\1/p"

audit: $(INSTALLED) ## Look for known vulnerabilities in what is installed (asks PyPI; names what PyPI does not know)
	REQUESTS_CA_BUNDLE="$${REQUESTS_CA_BUNDLE:-$$($(PIP_CERTIFICATES))}" \
		$(BIN)/pip-audit --local --skip-editable --progress-spinner off

format: $(INSTALLED) ## Put the format right
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(INSTALLED) ## Write the TypeScript types of the API anew
	@$(BIN)/python -m deploy.api_types

bench: $(INSTALLED) ## Measure the way from a worker's event to a client
	@$(BIN)/python -m bench $(ARGS)

wheel: $(INSTALLED) ## Build the wheel into dist/
	$(BIN)/python -m build --wheel --outdir $(WHEEL_DIR)

dist: $(INSTALLED) ## Build the sdist, and from it the wheel, into dist/
	$(BIN)/python -m build --outdir $(WHEEL_DIR)

# The packages of the image, by the same lock, so that what is told is what runs.
sbom: wheel ## Write into dist/ what the image has inside (CycloneDX)
	rm -rf $(SERVER)
	$(PYTHON) -m venv --without-pip $(SERVER)
	$(BIN)/pip --python $(SERVER)/bin/python install --quiet --no-compile --require-hashes --requirement deploy/requirements.lock
	$(BIN)/pip --python $(SERVER)/bin/python install --quiet --no-compile "$(WHEEL_DIR)/celery_sidecar-$(VERSION)-py3-none-any.whl[server,crypto]"
	sed 's/^dynamic = .*/version = "$(VERSION)"/' pyproject.toml >$(SERVER)/pyproject.toml
	$(BIN)/cyclonedx-py environment $(SERVER)/bin/python --pyproject $(SERVER)/pyproject.toml --mc-type application \
		--output-reproducible --validate --output-format JSON --output-file $(WHEEL_DIR)/celery-sidecar-$(VERSION).cdx.json

# Podman's own format has no health check.
image: export BUILDAH_FORMAT = docker
image: ## Build the image, with CONTAINER=docker or podman
	$(CONTAINER) build --file Containerfile --tag celery-sidecar:$(VERSION) \
		--build-arg VERSION=$(VERSION) --build-arg REVISION=$$(git rev-parse HEAD) .

release-check: $(INSTALLED) ## Build wheel, sdist and SBOM, and use them as one who has nothing else
	RELEASE_TEST=true $(BIN)/python -m pytest tests/release $(ARGS)

clean: ## Remove .venv and what was built
	rm -rf $(VENV) .matrix build dist
