# `make demo` and `make test` install what they need first; a second run takes seconds. `make` alone lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.NOTPARALLEL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= /usr/bin/python3
BIN := .venv/bin
DECLARED := setup.cfg setup.py pyproject.toml $(wildcard distributions/emulate/*.*) romana-ovs-ryu.pth constraints.txt
SYSTEM := openvswitch-switch mininet iproute2 nftables ethtool iputils-ping procps curl openssl python3-venv
# What nodes of a real cluster need, too.
CLUSTER_SYSTEM := containerd runc containernetworking-plugins conntrack iptables busybox-static
TEST_SECONDS ?= 3600
# A file's tests stay with one worker: they share what takes long to start. Much of their time is waiting.
TEST_WORKERS ?= --numprocesses=2 --dist=loadfile --no-loadscope-reorder
# Without what measures time, which keeps everybody else waiting. Nothing takes long to start: single tests are handed out.
UNIT_TESTS := -m "not root and not apiserver and not alone and not slow and not sessions" --numprocesses=2 --dist=load
PYTEST_ARGS ?=
KUBE_ARGS ?=
IMAGE_ARGS ?=
CLUSTER_ARGS ?=
ATTACK_SECONDS ?= 2700
ATTACK_ARGS ?=
KERNEL_ARGS ?=
SWITCH_ARGS ?=

# Relative on purpose: pip splits these at blanks, and the checkout's path may have some.
# The second name is what newer versions of pip ask for.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help romana-cni image demo demo-kube demo-cluster kube cluster test test-cluster test-kernel test-kernel-sample test-newer-switch unit attack lint format contracts types docs docs-check goldens bench bench-kernel lock clean root system kube-binaries

help:  ## This list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 27

demo: root .venv/.installed  ## The demonstration, on emulated nodes of real Open vSwitch bridges
	@exec $(BIN)/romana-ovs demo

demo-kube: root .venv/.installed kube-binaries  ## The same on a real Kubernetes API server, with kubectl
	@exec $(BIN)/romana-ovs demo --kubernetes

kube: .venv/.installed  ## A real Kubernetes API server to try things on (KUBE_ARGS=--controllers: with controllers too)
	@exec $(BIN)/python -m romana_ovs_emulate.kube $(KUBE_ARGS)

cluster: SYSTEM += $(CLUSTER_SYSTEM)
cluster: root .venv/.installed  ## A real Kubernetes cluster with romana-ovs (CLUSTER_ARGS=--help: its options)
	@exec $(BIN)/python -m romana_ovs_emulate.cluster $(CLUSTER_ARGS)

demo-cluster: SYSTEM += $(CLUSTER_SYSTEM)
demo-cluster: root .venv/.installed  ## The demonstration on a real Kubernetes cluster: kubelets, containers, kubectl exec
	@exec $(BIN)/python -m romana_ovs_emulate.cluster.demo $(CLUSTER_ARGS)

# A cluster of real kubelets takes its time: apart from `make test`.
test-cluster: SYSTEM += $(CLUSTER_SYSTEM)
test-cluster: root .venv/.installed-test  ## Tests on a cluster of real kubelets and containerd
	@$(BIN)/python -m romana_ovs_emulate.binaries --nodes
	@exec $(BIN)/python -m pytest -q tests/cluster $(PYTEST_ARGS)

test: root lint contracts types docs-check kube-binaries  ## Lint, import contracts, types, generated docs, tests
	@echo "== tests"
	@timeout --foreground --signal=INT --kill-after=60 $$(( $(TEST_SECONDS) + 300 )) \
		$(BIN)/python -m pytest --durations=15 --time-limit=$(TEST_SECONDS) --ignore=tests/cluster $(TEST_WORKERS) $(PYTEST_ARGS)

# Compiled tests are kept, whatever the environment says of that: compiling them anew is half of collecting them.
unit: .venv/.installed-test  ## The fast lane: tests that need neither root nor an API server, a minute and a half
	@env -u PYTHONDONTWRITEBYTECODE ROMANA_HYPOTHESIS=brief \
		$(BIN)/python -m pytest -q $(UNIT_TESTS) $(PYTEST_ARGS)

attack: root .venv/.installed-test  ## Attacks from inside pods, all of them on all fabrics: how many held
	@timeout --foreground --signal=INT --kill-after=60 $(ATTACK_SECONDS) \
		$(BIN)/python -m pytest -qq --tb=no -rN --attacks=all tests/attacks $(ATTACK_ARGS)

# Installs QEMU and mmdebstrap, and builds a virtual machine, once for each set of package versions: a minute.
test-kernel: root .venv/.installed-test  ## Tests on the kernel's datapath, in a virtual machine
	@exec $(BIN)/python -m tests.kernel $(KERNEL_ARGS)

test-kernel-sample: root .venv/.installed-test  ## The same, a sample of them, at most ten minutes
	@echo "== the kernel's datapath"
	@exec $(BIN)/python -m tests.kernel --sample $(KERNEL_ARGS)

# Its packages are unpacked into a folder of the user's cache, once, and run from there: the system's stay as they are.
test-newer-switch: root .venv/.installed-test  ## Tests that start a switch, on the Open vSwitch of a newer Debian
	@exec $(BIN)/python -m tests.newer_switch $(SWITCH_ARGS)

lint: .venv/.installed-test  ## Style and common mistakes
	@echo "== lint"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { echo 'Run `make format`.'; exit 1; }

format: .venv/.installed-test  ## Format the code
	@$(BIN)/ruff format .

contracts: .venv/.installed-test  ## Which part may import which
	@echo "== import contracts"
	@$(BIN)/lint-imports --config setup.cfg --no-logo > .venv/contracts.log || { cat .venv/contracts.log; exit 1; }

types: .venv/.installed-test  ## Type annotations
	@echo "== types"
	@$(BIN)/mypy --no-error-summary

docs: .venv/.installed  ## Write the docs that are rendered from code
	@$(BIN)/python -m romana_ovs_emulate.docs

docs-check: .venv/.installed
	@echo "== generated docs"
	@$(BIN)/python -m romana_ovs_emulate.docs --check

goldens: .venv/.installed-test  ## Rewrite the expected texts under tests/; review the difference
	@$(BIN)/python -m pytest -q -m "not root" --rewrite-goldens $(PYTEST_ARGS)

bench: root .venv/.installed  ## The figures of bench/results.md
	@exec $(BIN)/python bench/run.py

bench-kernel: root .venv/.installed-test  ## Traffic on the kernel's datapath, in a virtual machine: ratios only
	@exec $(BIN)/python -m tests.kernel --script bench/traffic-kernel.sh

# A new pip in an environment of its own: pip-tools and the one that Debian ships do not fit each other.
LOCK := .venv/lock/bin/pip-compile --quiet --strip-extras --generate-hashes --no-header --annotation-style=line \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options \
	--unsafe-package=ovs --constraint=constraints.txt

LOCK_HEADER := 'Exact versions, written by `make lock`. Not `ovs`: Open vSwitch brings its Python module, in its own version.'

lock: .venv/.installed  ## Newest versions into the lock files
	@$(PYTHON) -m venv --clear .venv/lock
	@env -u PIP_CONSTRAINT .venv/lock/bin/pip install --quiet --upgrade pip pip-tools
	@rm -f requirements.lock requirements-test.lock
	@env -u PIP_CONSTRAINT $(LOCK) --output-file=requirements.lock setup.cfg
	@env -u PIP_CONSTRAINT $(LOCK) --extra=test --constraint=requirements.lock --output-file=requirements-test.lock setup.cfg
	@for file in requirements.lock requirements-test.lock; do \
		{ printf '# %s\n' $(LOCK_HEADER); sed '/^# WARNING/,$$d' "$$file"; } > .venv/lock/new; cp .venv/lock/new "$$file"; done

clean:  ## Remove the environment and everything that was built
	@rm -rf .venv build distributions/emulate/build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Built once per machine, which takes minutes: apart from the tests, whose time is limited.
romana-cni: .venv/.installed  ## The CNI plugin as build/romana-cni (needs Go)
	@$(BIN)/python -m romana_ovs_emulate.cni_plugin build/romana-cni

# Of Debian's packages by mmdebstrap, which is installed if it is missing; no Docker, no registry.
image: .venv/.installed  ## The container image as a file (needs Go; IMAGE_ARGS="--output FILE": also there)
	@exec $(BIN)/python -m romana_ovs_emulate.image $(IMAGE_ARGS)

kube-binaries: .venv/.installed
	@$(BIN)/python -m romana_ovs_emulate.binaries

root:
	@[[ $$EUID -eq 0 ]] || { echo "make $(MAKECMDGOALS): needs root for Open vSwitch and network namespaces; run it as root (sudo make $(MAKECMDGOALS))." >&2; exit 1; }

# Where dpkg is missing, other distributions' names are not ours to guess.
system:
	@if ! command -v dpkg-query > /dev/null; then \
		for tool in ovs-vswitchd ovsdb-server mn ip nft ethtool ping curl openssl; do \
			command -v "$$tool" > /dev/null || { echo "$$tool is missing: install Open vSwitch, Mininet, iproute2, nftables, ethtool, ping, curl and openssl." >&2; exit 1; }; \
		done; exit 0; \
	fi; \
	missing=$$(for package in $(SYSTEM); do \
		dpkg-query -W -f '$${Status}' "$$package" 2> /dev/null | grep -q 'ok installed' || printf '%s ' "$$package"; done); \
	[[ -n $$missing ]] || exit 0; \
	[[ $$EUID -eq 0 ]] || { echo "These system packages are missing: $${missing% }. Install them, or run this once as root." >&2; exit 1; }; \
	echo "Installing system packages: $${missing% }"; \
	log=$$(mktemp); \
	export DEBIAN_FRONTEND=noninteractive; \
	{ apt-get update -q && apt-get install -qy --no-install-recommends -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 $$missing; } < /dev/null 2>&1 \
		| tee "$$log" | sed -un 's/^Setting up \([^ ]*\).*/  \1/p' || { tail -20 "$$log" >&2; exit 1; }; \
	rm -f "$$log"

# The system's site-packages hold Mininet's module and the one of Open vSwitch's own version (so it is not in the lock).
.venv/.installed: $(DECLARED) requirements.lock | system
	@echo "Installing Python packages into .venv (a minute or so the first time)"
	@$(BIN)/python -c pass 2> /dev/null || $(PYTHON) -m venv --clear --system-site-packages .venv
	@$(BIN)/pip install --quiet --use-pep517 --requirement requirements.lock
	@$(BIN)/pip install --quiet --editable . --editable distributions/emulate
	@touch $@

.venv/.installed-test: .venv/.installed requirements-test.lock
	@echo "Installing the tools of the tests into .venv"
	@$(BIN)/pip install --quiet --use-pep517 --requirement requirements-test.lock
	@touch $@
