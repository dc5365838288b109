# make help    this list
# make demo    a thousand OTPs through a sandbox: no account, no network
# make demo-fleet   the same through a fleet, of which a worker is killed in the middle: no database either
# make test    everything that must pass: lint, types, tests with coverage
# make lint    format, lint, types and security only
# make format  what ruff can format and fix
# make test-lowest, make test-newest   the tests with the lowest and with the newest versions of what is depended on
# make test-pythons   the tests on every Python there is, from 3.11 on
# make audit   known vulnerabilities of what is installed; needs the network
# make bench   speed and memory, beside other clients too; some minutes, and nothing fails for being slow
# make performance   docs/performance.md, all of it measured anew; takes about half an hour
# make docs    the documentation as a site, in docs/_build; a warning is an error
# make screenshots   the pictures of the sandbox's page in the documentation; needs Chromium
# make faults  servers that misbehave on their connections, and what the client says of its messages; some minutes
# make dumps   10,000 verifications over each store, whose files then hold no code, no number and no key; a minute or two
# make kills   kills a bulk run of 10,000 messages a hundred times; takes a minute or two
# make fleet-kills   kills a fleet's workers and its database 170 times; takes about ten minutes

# Asked, because pyenv's python3.11 refuses to run where another one is selected.
PYTHON ?= $(shell python3.11 -c 'import sys; print(sys.executable)' 2>/dev/null || command -v python3)
BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
# A process for each processor; the tests of a file stay together, and share its fixtures.
PARALLEL := -n auto --dist loadfile

.PHONY: demo demo-fleet help test test-lowest test-newest test-pythons lint audit format bench bench-clients performance docs
.PHONY: screenshots dumps faults kills fleet-kills
.PHONY: clean
.DELETE_ON_ERROR:

demo: .venv/installed-cli
	$(BIN)/python -m nxotp_async demo

demo-fleet: .venv/installed-fleet-demo
	$(BIN)/python -m nxotp_async fleet demo

help:
	@sed -n 's/^# make /make /p' Makefile

test: lint
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(PARALLEL)
	@$(BIN)/coverage combine --quiet
	@report=$$($(BIN)/coverage report) || { echo "$$report"; exit 1; }

# TESTS=... runs some of them only.
test-lowest: .venv-lowest/installed
	.venv-lowest/bin/python -m pytest $(PARALLEL) $(TESTS)

# Made anew each time: the newest versions are others tomorrow.
test-newest:
	$(call install-for-tests,.venv-newest,,--group dev --group docs)
	.venv-newest/bin/python -m pytest $(PARALLEL) $(TESTS)

# PYTHONS="3.12 3.14" chooses; so does PYTHONS=newest.
test-pythons:
	$(PYTHON) tests/pythons.py --only "$(PYTHONS)" $(PARALLEL) $(TESTS)

lint: .venv/installed-dev
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/pyright
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml nxotp_async _nxotp_async_pytestplugin.py examples

audit: .venv/installed-dev
	$(BIN)/python tests/audit.py

bench: .venv/installed-dev bench-clients
	$(BIN)/python benchmarks/one_at_a_time.py --pairs 10
	$(BIN)/python benchmarks/bulk_in_web_app.py --messages 10000 --rounds 2 --idle 5
	$(BIN)/python benchmarks/send_many_memory.py --many 100000
	$(BIN)/python benchmarks/import_cost.py --rounds 15
	$(BIN)/python benchmarks/hostile_answers.py
	$(BIN)/python benchmarks/bulk_overhead.py --rounds 3
	$(BIN)/python benchmarks/bulk_memory.py --messages 100000

bench-clients: .venv-bench/installed
	.venv-bench/bin/python benchmarks/compare_clients.py --sends 4000 --rounds 3

performance: .venv-bench/installed
	.venv-bench/bin/python benchmarks/write_page.py docs/performance.md

docs: .venv/installed-dev
	$(BIN)/python -m sphinx --fail-on-warning --fresh-env --jobs auto --quiet docs docs/_build
	@echo "docs/_build/index.html"

screenshots: .venv/installed-dev
	$(BIN)/python tests/screenshots.py docs

faults: .venv/installed-dev
	$(BIN)/python tests/faults.py --loop both

dumps: .venv/installed-dev
	NXOTP_TEST_VERIFICATIONS=10000 $(BIN)/python -m pytest -o faulthandler_timeout=0 -k never_holds \
		tests/verification/test_verifier_stores.py

kills: .venv/installed-dev
	$(BIN)/python tests/kills.py --messages 10000 --kills 100

fleet-kills: .venv/installed-dev
	$(BIN)/python tests/fleet_kills.py --messages 20000 --kills 100 --terms 50 --restarts 10 --pauses 10

format: .venv/installed-dev
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.venv/installed-cli: pyproject.toml constraints.txt
	@echo "installing into .venv ..."
	$(PYTHON) -m venv .venv
	$(PIP_INSTALL) --upgrade pip
	$(PIP_INSTALL) --editable '.[cli]'
	touch $@

.venv/installed-fleet-demo: .venv/installed-cli
	$(PIP_INSTALL) --editable '.[cli,fleet,fleet-demo]'
	touch $@

.venv/installed-dev: .venv/installed-cli
	$(PIP_INSTALL) --editable '.[bench,cli,fast,fleet,otel,postgres,prometheus,redis,verification]' --group dev --group docs
	touch $@

.venv-lowest/installed: pyproject.toml constraints-lowest.txt
	$(call install-for-tests,.venv-lowest,--constraint constraints-lowest.txt,--group test)
	touch $@

.venv-3.%/installed: pyproject.toml constraints.txt
	$(call install-for-tests,$(@D),--constraint constraints.txt,--group test)
	touch $@

define install-for-tests
@echo "installing into $(1) ..."
$(PYTHON) -m venv --clear $(1)
$(1)/bin/python -m pip install --quiet --disable-pip-version-check $(2) --upgrade pip
$(1)/bin/python -m pip install --quiet --disable-pip-version-check $(2) \
	--editable '.[bench,cli,fast,fleet,otel,postgres,prometheus,redis,verification]' $(3)
endef

# niquests would bring its own HTTP library in under the name of urllib3, and requests would run on that: built from
# source with this variable, it leaves urllib3 alone.
.venv-bench/installed: pyproject.toml constraints.txt benchmarks/constraints.txt
	@echo "installing into .venv-bench ..."
	$(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	URLLIB3_NO_OVERRIDE=1 .venv-bench/bin/python -m pip install --quiet --disable-pip-version-check \
		--constraint constraints.txt --constraint benchmarks/constraints.txt --no-binary urllib3-future \
		--editable '.[bench,cli,fast]' --group benchmarks
	touch $@

clean:
	rm -rf .venv .venv-* .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache
