.DEFAULT_GOAL := help
.PHONY: help install up down test check gen lock baseline bench chaos
SHELL := /bin/bash
export PATH := $(CURDIR)/.venv/bin:$(PATH)
DATA_DIR ?= $(CURDIR)/.parley
PYTEST ?= pytest

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

install: .venv/.installed .venv-models/.installed  ## install everything from the lock files

up: install  ## start the mesh and show it; Ctrl-C stops it
	@exec parley up --data-dir $(DATA_DIR)

down:  ## stop a mesh that runs in the background
	@parley down --data-dir $(DATA_DIR)

test: install web/node_modules  ## run every test, on the real components
	$(PYTEST) -n 2 --dist loadfile -m "not faults"
	$(PYTEST) -m faults

check: install web/node_modules  ## lint: style, types, contract
	ruff check
	ruff format --check
	buf lint
	buf format --diff --exit-code --path proto/parley
	buf breaking --against proto/baseline.binpb
	mypy

bench: install  ## measure, and print the figures with machine and conditions
	python -m bench

chaos: install  ## 2,000 turns while everything is killed, paused and cut: make chaos CHAOS="--seed 7"
	python -m tests.chaos $(CHAOS)

gen: .venv/.installed web/node_modules  ## generate gen/ from proto/
	buf generate --template proto/buf.gen.yaml
	buf generate --template proto/buf.gen.validate.yaml
	mkdir -p gen/descriptors
	buf build --exclude-source-info --output gen/descriptors/parley.binpb

baseline:  ## move the contract's baseline on: make baseline REASON="why a break is right"
	@test -n "$(REASON)" || { echo 'say why: make baseline REASON="..."'; exit 1; }
	buf build --exclude-source-info --path proto/parley --output proto/baseline.binpb
	@printf '| %s | %s | %s |\n' "$$(date -u +%F)" "$$(sha256sum < proto/baseline.binpb | cut -c1-16)" "$(REASON)" >> proto/BASELINE.md

lock:  ## choose the newest allowed versions anew, with hashes
	uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras --generate-hashes pyproject.toml --output-file requirements.lock
	uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --excludes models/requirements.excludes --overrides models/requirements.overrides models/requirements.in --output-file models/requirements.lock

.venv/.installed: requirements.lock pyproject.toml
	test -x .venv/bin/python || python3 -m venv .venv
	test -x .venv/bin/uv || pip install --quiet "$$(sed -n 's/^\(uv==[^ ]*\).*/\1/p' requirements.lock)"
	uv pip sync --quiet --require-hashes requirements.lock
	uv pip install --quiet --no-deps --editable .
	touch $@

.venv-models/.installed: models/requirements.lock .venv/.installed
	# numpy 1 has no wheels for Python 3.13: there it is built, which takes minutes and a C compiler.
	test -x .venv-models/bin/python || uv venv --quiet --no-python-downloads --python '>=3.11,<3.13' .venv-models \
		|| uv venv --quiet --python .venv/bin/python .venv-models
	uv pip sync --quiet --require-hashes --python .venv-models models/requirements.lock
	touch $@

web/node_modules: web/package-lock.json .venv/.installed
	cd web && npm ci --silent --no-fund --no-audit
	touch $@
