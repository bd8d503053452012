# Everything starts from here; `make` alone says what there is.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
WHERE  ?= .lnh-demo
TESTS  ?= tests/cluster
N      ?= 20
LOAD   ?= all
JOBS   ?= 3

.PHONY: help setup demo drill up down pkcs11 stubs test test-one test-often test-versions test-compose test-apps test-browser check bench soak clean

help:            ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps 'openapi-python-client>=0.26' || \
		echo "not installed: openapi-python-client, which needs Python 3.11; the test of a generated client is skipped"
	@$(BIN)/python -m compileall -q common client services tests bench
	@touch $@

setup: $(BIN)/.ready  ## the virtual environment, once

demo: setup      ## a cluster from nothing to a signature, and back to nothing
	@$(BIN)/lnh demo

drill: setup     ## lose members, the primary, everything, on a cluster made for it, and bring it back; writes build/drill.html
	@mkdir -p build && rm -f build/drill.html
	@$(BIN)/lnh drill --report build/drill.html

up: setup        ## start a cluster with a registered client and the dashboard, and leave it running
	@$(BIN)/lnh up --dir $(WHERE)

down: setup      ## end what `make up` started
	@$(BIN)/lnh down --dir $(WHERE)

pkcs11:          ## the PKCS#11 module, as build/lnh-pkcs11.so, and where `lnh pkcs11 env` finds it; needs a C compiler
	@$(PYTHON) client/lnh_pkcs11/module/build.py build/lnh-pkcs11.so client/lnh_pkcs11/module/lnh-pkcs11.so

stubs: setup     ## the messages of gRPC's interfaces, of their .proto files
	@$(BIN)/python tests/stubs.py

test: setup      ## every test, JOBS=3 at a time: on two cores, while one waits two go on
	@$(BIN)/pytest -q -n $(JOBS) --durations 25

test-one: setup  ## the tests of one member by itself, in a few minutes
	@$(BIN)/pytest -q -n $(JOBS) -m "not several"

test-often: setup  ## chosen tests again and again: TESTS=tests/cluster/test_client.py N=20 LOAD=quiet|busy|fsync|all
	@$(BIN)/python tests/beside.py $(LOAD) $(BIN)/pytest -q --maxfail 3 --count $(N) $(TESTS)

test-versions: setup  ## a cluster of the version before, out of the history, is upgraded and goes back: a minute or two
	@LNH_TEST_VERSIONS=1 $(BIN)/pytest -q -x -n 0 tests/cluster/test_versions.py

test-compose: setup  ## compose.yaml for real, for some minutes; needs docker (compose v2) or podman-compose, and the base image
	@$(BIN)/python tests/compose/engine.py
	@LNH_TEST_COMPOSE=1 $(BIN)/pytest -q -x -p no:randomly tests/compose

test-apps: setup  ## the recipes of docs/pkcs11-recipes.md, on a real cluster; needs the Debian packages that .ci/run installs
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check PyKCS11
	@LNH_TEST_APPS=1 $(BIN)/pytest -q -n 0 -p no:randomly tests/apps

test-browser: setup  ## the dashboard in headless Chromium, on a real cluster: a minute or two; needs chromium and chromium-driver
	@LNH_TEST_BROWSER=1 $(BIN)/pytest -q -n 0 -p no:randomly tests/browser

check: setup     ## ruff and mypy, and whether lnh.aio and the stubs are made of the SDK and the .proto files as they are
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/python tests/surface.py --check && $(BIN)/python tests/stubs.py --check && $(BIN)/mypy

bench: setup     ## measure, with its references in the same run; writes build/bench.json
	@$(BIN)/python -m bench

soak: setup      ## a million inputs for every decoder, 50 times the examples for every property; then simulated clusters under faults, and real crashes, until stopped (LNH_SOAK=seconds each, default an hour)
	@LNH_SOAK_INPUTS=$${LNH_SOAK_INPUTS:-1000000} $(BIN)/pytest -q -p no:randomly tests/property/test_decoders.py tests/unit/pkcs11_module/test_replies.py
	@LNH_SOAK_EXAMPLES=$${LNH_SOAK_EXAMPLES:-50} $(BIN)/pytest -q -n $(JOBS) tests/property tests/unit/hsm
	@LNH_SOAK=$${LNH_SOAK:-3600} $(BIN)/pytest -q -p no:randomly tests/simulation/test_simulation.py::test_invariants_hold_for_as_long_as_asked tests/simulation/test_etcd.py::test_invariants_hold_over_etcd_for_as_long_as_asked tests/cluster/test_store_crash.py tests/cluster/test_failover.py::test_members_are_killed_stopped_and_cut_off_at_random_for_as_long_as_asked tests/cluster/test_drill.py

clean:
	rm -rf $(VENV) build .lnh-demo
