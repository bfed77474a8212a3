# Everything that is done in a checkout. `make help` lists it.
#
# Kernel tests, the demonstration and the benchmark make network namespaces and so run as root;
# where you are not root they run through sudo.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# What the tests load into, and what they send through it.
PACKAGES := python3 python3-venv python3-nftables nftables iptables ipset conntrack iproute2 \
            netbase tzdata vsftpd curl lftp tftpd-hpa ngircd samba samba-common-bin sane-utils \
            sip-tester openssh-server faketime systemd openssl git mmdebstrap

# Kernel tests wait more than they work: four at a time, those of one file one after the other. In
# the order of the folders, so that the run ends with files that take no time.
PARALLEL := --numprocesses 4 --dist loadfile --no-loadscope-reorder

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
MAKEFLAGS += --no-print-directory

# Programs in /usr/sbin are not on the PATH of every user. What root leaves in a checkout of
# another user, that user cannot remove: so no caches there.
export PATH := $(PATH):/usr/sbin:/sbin
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo --preserve-env=CI env PYTHONDONTWRITEBYTECODE=1)
NO_CACHE := $(if $(AS_ROOT),-p no:cacheprovider)

.PHONY: help demo test lint format bench collection clean packages

help:  ## this list
	@sed -n 's/^\([a-z]*\):.*  ## \(.*\)/make \1\t\2/p' Makefile | expand -t 16

demo: packages $(READY)  ## real FTP transfers through a compiled firewall, in namespaces
	@$(AS_ROOT) $(BIN)/python examples/ftp-server/demo.py

test: packages $(READY)  ## all tests; PYTEST="-k ftp" passes options on
	$(AS_ROOT) $(BIN)/python -m pytest $(PARALLEL) $(NO_CACHE) $(PYTEST)

lint: $(READY)  ## style, format and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(READY)  ## what of `make lint` can be mended by itself
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: packages $(READY)  ## what a compile costs, and what a packet does
	@$(AS_ROOT) $(BIN)/python -m tests.benchmark

collection: $(READY)  ## the collection for Ansible, in dist/
	$(BIN)/ansible-galaxy collection build ansible --output-path dist --force

clean:  ## remove everything that is not part of the source
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

packages:
	@.ci/packages $(PACKAGES)

# The distribution's own Python first: another one on the PATH may lack what a venv needs.
$(READY): pyproject.toml
	@.ci/packages python3 python3-venv
	@for python in $(PYTHON) /usr/bin/python3 python3 python3.1{4,3,2,1}; do \
	  if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	  then break; fi; python=; \
	done; \
	[[ -n $$python ]] || { echo "policylang needs Python 3.11 or later, with venv" >&2; exit 1; }; \
	echo "making $(VENV) with $$("$$python" --version)"; \
	rm -rf $(VENV); "$$python" -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	@touch $@
