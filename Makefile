# Everything a new clone needs: `make run` and `make test`. Python 3.11 or newer with venv; nothing is compiled.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.PHONY: help run test lint format bench bench-full bench-check bench-profile bench-start demo crash buses fuzz acceptance sbom audit clean flood bench-journal

help:  ## Say what there is to make.
	@awk -F ':[^#]*##' '/^[a-z-]+:[^#]*##/ { printf "%-14s%s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(BIN)/dc09-receiver: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "dc09-receiver needs Python 3.11 or newer")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(PIP) install --constraint constraints.txt --editable .
	@touch $@

$(VENV)/dev: $(BIN)/dc09-receiver
	@$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@$(PIP) install --no-deps dc09-spt==0.0.4  # declares pycrypto, which no longer builds; the tests hand it pycryptodome
	@touch $@

$(VENV)/bench: $(VENV)/dev
	@$(PIP) install --constraint constraints.txt --editable '.[bench]'
	@touch $@

$(VENV)/pysiaalarm: $(BIN)/dc09-receiver  # in an environment of its own; without it make bench measures the rest
	@$(PYTHON) -m venv $@
	@$@/bin/python -m pip --disable-pip-version-check --quiet install --constraint constraints.txt pysiaalarm || \
	  { echo 'no package index in reach: nothing is compared with pysiaalarm'; rm -rf $@; }

$(VENV)/tools: $(BIN)/dc09-receiver
	@$(PYTHON) -m venv $@
	@$@/bin/python -m pip --disable-pip-version-check --quiet install --constraint constraints.txt cyclonedx-bom pip-audit
	@touch $@

$(VENV)/fuzz: $(BIN)/dc09-receiver
	@$(PIP) install --constraint constraints.txt --only-binary atheris --editable '.[fuzz]' || { echo \
	  'make fuzz needs atheris, of which there is no wheel for this Python (or no registry in reach): try CPython 3.11 on Linux.'; \
	  exit 1; }
	@touch $@

run: $(BIN)/dc09-receiver  ## Run the receiver on its defaults: TCP and UDP on port 12128, events on standard output.
	@exec $(BIN)/dc09-receiver serve

demo: $(BIN)/dc09-receiver  ## A receiver, a panel, an encrypted duress: shows the event and the time of its ACK.
	@$(BIN)/python -m receiver.demo

test: $(VENV)/dev  ## Run every test, three files at a time: many of them wait.
	@$(BIN)/python -m pytest --numprocesses 3 --dist loadfile

lint: $(VENV)/dev  ## Format, style and types.
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

format: $(VENV)/dev  ## Write the code in the house's format.
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(VENV)/dev $(VENV)/pysiaalarm  ## Measure against a bare echo in the same run, in about 10 minutes; ONLY names part of it.
	@BENCH_RIVAL=$(VENV)/pysiaalarm/bin/python $(BIN)/python -m bench --only "$(ONLY)"

bench-full: $(VENV)/dev $(VENV)/pysiaalarm  ## The same and what takes long, a million accounts for minutes and five million stored signals.
	@BENCH_RIVAL=$(VENV)/pysiaalarm/bin/python $(BIN)/python -m bench --full --only "$(ONLY)"

bench-check: $(VENV)/dev  ## Fail when speed was lost grossly (plain signals against the echo, under 30 s).
	@$(BIN)/python -m bench.check

bench-profile: $(VENV)/bench  ## Draw where the time of one message goes, docs/images/message.svg.
	@$(BIN)/python -m bench.profile

bench-journal: $(VENV)/dev  ## Measure what the journal costs by itself, a commit and a signal.
	@$(BIN)/python -m bench.journal

bench-start: $(VENV)/dev  ## Measure the time from exec to ready, with 100,000 accounts and 200,000 stored signals.
	@$(BIN)/python -m bench.start

crash: $(VENV)/dev  ## Kill the receiver under load at random instants, CYCLES times (300), and count what was lost.
	@CYCLES=$(or $(CYCLES),300) $(BIN)/python -m pytest tests/wire/test_crash.py -s

fuzz: $(VENV)/fuzz  ## Fuzz the wire formats and the pipeline for SECONDS (60) in all; exit 1 on a finding.
	@$(BIN)/python -m fuzz --seconds $(or $(SECONDS),60)

flood: $(VENV)/dev  ## Attack the receiver in ten ways, SECONDS (10) each, and time a panel's duress meanwhile.
	@SECONDS=$(or $(SECONDS),10) ONLY="$(ONLY)" $(BIN)/python -m tests.wire.flood

buses: $(VENV)/dev  ## Kill every output's server and the receiver under load, CYCLES times (20), with 20,000 signals waiting.
	@CYCLES=$(or $(CYCLES),20) KILLS=$(or $(CYCLES),20) WAITING=$(or $(WAITING),20000) $(BIN)/python -m pytest -s tests/wire/test_buses.py \
	  tests/wire/test_refusing_buses.py tests/wire/test_automation_waiting.py tests/wire/test_automation.py tests/wire/test_relay.py

acceptance: $(BIN)/dc09-receiver  ## The public acceptance run, from ../shared.
	@$(BIN)/python ../shared/acceptance/run.py --command "$(CURDIR)/$(BIN)/dc09-receiver"

sbom: $(VENV)/tools  ## Write sbom.json (CycloneDX): what a running receiver is made of, and nothing of its tests.
	@$(PYTHON) -m venv --clear $(VENV)/runtime
	@$(VENV)/runtime/bin/python -m pip --disable-pip-version-check --quiet install --constraint constraints.txt .
	@$(VENV)/runtime/bin/python -m pip --disable-pip-version-check --quiet uninstall --yes pip setuptools
	@$(VENV)/tools/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file sbom.json $(VENV)/runtime/bin/python
	@$(BIN)/python -c 'import json; print("sbom.json:", len(json.load(open("sbom.json"))["components"]), "components")'

audit: $(VENV)/tools  ## Ask the advisory service about every pinned version; it needs the network and fails without an answer.
	@$(VENV)/tools/bin/pip-audit --strict --no-deps --disable-pip --requirement constraints.txt

clean:  ## Remove what was made, except data.
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
