# Two commands are enough on a machine with Python and make: `make run` and `make test`.
# What is called here is plain pip and plain python; README.md shows the same without make.

VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=
# How many tests run at a time: two more than there are cores, as tests wait at times.
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
TEST_WORKERS = $(or $(WORKERS),$(shell expr $(CORES) + 2))
KILLS ?= 20
ROUNDS ?= 50
OUTAGE ?= 10
MINUTES ?= 10
HOURS ?= 1
SEED ?=
FUZZ_SECONDS ?= 60
# The first interpreter that fits, unless you name one: make run PYTHON=/opt/python3.12/bin/python3
FITS := import sys, venv, ensurepip; sys.exit(not (3, 10) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python3.10 python; do \
	$$p -c '$(FITS)' 2>/dev/null && echo $$p && break; done)

RUN_READY := $(VENV)/.ready-to-run
TEST_READY := $(VENV)/.ready-to-test
PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check
# Nothing asked for, by flag or environment: the demo.
CONFIGURED := $(strip $(value ARGS) $(filter GRANTEX_%,$(.VARIABLES)))

.DELETE_ON_ERROR:
.PHONY: help run check test test-flink test-image wheel sbom bench bench-memory bench-receipts bench-replay bench-reconcile drop-test fuzz fuzz-journal gap-test webhook-flood kill-test standby-test outage-test torture soak lock clean
.DEFAULT_GOAL := help

help:  ## list what there is
	@echo "make <target> [ARGS='...']"
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; do \
		printf '  %-14s %s\n' "$$name" "$$text"; done

# Ctrl-C must stop the job, which drains and exits 0, and not make, which would call that a failure: on a
# terminal the job becomes its own foreground process group, as a shell would arrange it. A job that has
# the terminal to itself cannot be suspended by Ctrl-Z: nobody would be left to wake it.
#
# ARGS come by the environment and are taken apart here: make would read $KEY as $K and EY, and a shell would
# take an & for its own. Inside they are words and variables as in a shell; a blank after a comma is no end.
export RUN_ARGS := $(value ARGS)
define IN_FOREGROUND
import os, re, shlex, signal, sys
def words(text):
    found = []
    for word in shlex.split(text.replace("$$$$", "$$")):
        if found and found[-1].endswith(",") and not word.startswith("--"):
            found[-1] += word
        else:
            found.append(word)
    found = [os.path.expandvars(word) for word in found]
    for word in found:
        if unset := re.search(r"=[$$](?:\{(\w+)\}|(\w+))$$", word):
            raise ValueError(f"$${unset[1] or unset[2]} is not set in the environment")
    return found
try:
    given = words(os.environ["RUN_ARGS"])
except ValueError as error:
    print(f"ARGS: {error}", file=sys.stderr)
    sys.exit(2)
if os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp():
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    os.setpgid(0, 0)
    os.tcsetpgrp(0, os.getpid())
    signal.signal(signal.SIGTTOU, signal.SIG_DFL)
    signal.signal(signal.SIGTSTP, signal.SIG_IGN)
os.execv(sys.argv[1], [*sys.argv[1:], *given])
endef
export IN_FOREGROUND

run: $(RUN_READY)  ## start the job: the demo, or what ARGS="--feed_url=... " and GRANTEX_... ask for
	@exec $(BIN)/python -c "$$IN_FOREGROUND" $(BIN)/python -m pipelines.stream \
		$(if $(CONFIGURED),,--demo=true)

check: $(TEST_READY)  ## ruff, mypy and all tests that are quick and start no server: two minutes; what pre-commit runs
	$(call steps,pytest --numprocesses=$(TEST_WORKERS) --dist=worksteal --timeout=120 --without-servers $(ARGS))

# Tests that share a server share a worker (tests/servers/tiers.py).
test: $(TEST_READY)  ## the same with every test; ARGS go to pytest, WORKERS=0 for one at a time
	$(call steps,pytest --numprocesses=$(TEST_WORKERS) --dist=loadgroup --timeout=300 $(ARGS))

# $(call steps,PYTEST): all of them, whichever fails; types are checked beside the tests, as both wait at times.
# Bytecode is written even where somebody has turned that off: each worker would compile each module again, and
# so would each job that a test starts.
define steps
	@failed=; export PYTHONDONTWRITEBYTECODE=; types=$$(mktemp); \
	$(BIN)/python -m mypy >"$$types" 2>&1 & mypy=$$!; \
	trap 'rm -f "$$types"; kill $$mypy 2>/dev/null' EXIT; trap 'exit 130' INT TERM; \
	for step in "ruff check ." "ruff format --check ." "$(1)"; do \
		echo "== $$step"; \
		$(BIN)/python -m $$step || failed="$$failed [$$step]"; \
	done; \
	echo "== mypy"; wait $$mypy || failed="$$failed [mypy]"; trap 'rm -f "$$types"' EXIT; cat "$$types"; \
	if [ -n "$$failed" ]; then echo "FAILED:$$failed" >&2; exit 1; fi
endef

# Its files are not called test_*.py, so `make test` leaves them out: clusters start, and a quarter of an hour passes.
test-flink: $(TEST_READY)  ## the job on a real Flink, which is killed; needs Java 17 and Maven; OUTAGE=10 s each
	@exec env OUTAGE=$(OUTAGE) $(BIN)/python -m pytest -rP -o python_files='*_on_flink.py' tests/flink $(ARGS)

test-image: $(TEST_READY)  ## the one-machine image, built and started; needs root, Debian's buildah and debootstrap
	@exec $(BIN)/python -m tests.integration.image_test $(ARGS)

bench: $(TEST_READY)  ## this job against by_hand.py and others, side by side; ARGS=--quick: a smoke run, --curves: how it scales
	@exec $(BIN)/python -m tests.benchmarks.bench $(ARGS)

bench-receipts: $(TEST_READY)  ## what receipts cost, and how long `where` takes; ARGS=--events=10000000
	@exec $(BIN)/python -m tests.benchmarks.receipts $(ARGS)

bench-memory: $(TEST_READY)  ## resident memory over 100,000 tiny bundles
	@exec $(BIN)/python -m tests.benchmarks.memory $(ARGS)

bench-reconcile: $(TEST_READY)  ## a million rows of the ledger reconciled with files: time, requests, memory; ARGS=--rows=1000000
	@exec $(BIN)/python -m tests.benchmarks.reconcile $(ARGS)

bench-replay: $(TEST_READY)  ## a million archived events into a practice Splunk and a real S3, killed on the way
	@exec $(BIN)/python -m tests.benchmarks.replay $(ARGS)

fuzz: $(TEST_READY)  ## readers against slow references for FUZZ_SECONDS=60, new examples each time
	@exec $(BIN)/python -m tests.fuzz.fuzzing --seconds=$(FUZZ_SECONDS) $(ARGS)

gap-test: $(TEST_READY)  ## streams killed, frozen, cut, the job stalled: what is missing lies in a gap
	@exec $(BIN)/python -m tests.integration.gap_test $(ARGS)

drop-test: $(TEST_READY)  ## silent drops of the service in a simulated hour; ARGS="--minutes=60 --rate=50 --drops=300"
	@exec $(BIN)/python -m tests.integration.silent_drops $(ARGS)

webhook-flood: $(TEST_READY)  ## a thousand bad webhooks a second: what they do to the feed
	@exec $(BIN)/python -m tests.integration.webhook_flood $(ARGS)

kill-test: $(TEST_READY)  ## kill -9 at KILLS=20 random moments, six destinations, then count every event
	@exec $(BIN)/python -m tests.integration.kill_test --kills $(KILLS) $(ARGS)

standby-test: $(TEST_READY)  ## two processes that stand by for each other, upgraded and killed ROUNDS=50 times
	@exec $(BIN)/python -m tests.integration.standby_test --rounds $(ROUNDS) $(ARGS)

outage-test: $(TEST_READY)  ## two of six destinations away for 60 s each; ARGS="--away=hang:kafka --seconds=20"
	@exec $(BIN)/python -m tests.integration.outage $(ARGS)

torture: $(TEST_READY)  ## all faults at once for MINUTES=10, then every id is accounted for; SEED=1 for the same deeds
	@exec $(BIN)/python -m tests.integration.torture --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(ARGS)

soak: $(TEST_READY)  ## HOURS=1 of steady events and small outages: does anything grow? draws ARGS=--picture=soak.svg
	@exec $(BIN)/python -m tests.integration.soak --hours $(HOURS) $(if $(SEED),--seed $(SEED)) $(ARGS)

fuzz-journal: $(TEST_READY)  ## damage a journal at random; ARGS="--damages=5000 --kills=300 --seed=1"
	@exec $(BIN)/python -m tests.fuzz.journal $(ARGS)

# What only clusters do: keys with gigabytes behind them; a state that pauses make grow.
.PHONY: backlog-test idle-growth
backlog-test: $(TEST_READY)  ## a cluster's key with gigabytes behind it: what is written and committed; ARGS=--gigabytes=2
	@exec $(BIN)/python -m tests.integration.backlog $(ARGS)

idle-growth: $(TEST_READY)  ## how much a job's state on Flink grows while nothing comes; ARGS=--minutes=10
	@exec $(BIN)/python -m tests.flink.idle_growth $(ARGS)

# URL, TOKEN and the keys reach them by the environment, where make puts what it is given, and not by `ps`.
.PHONY: verify-splunk verify-datadog
verify-splunk: $(TEST_READY)  ## what the pack's searches find on a real Splunk; URL=https://host:8089 TOKEN=...
	@exec $(BIN)/python -m tests.integration.verify_splunk $(ARGS)

verify-datadog: $(TEST_READY)  ## what the pack's monitors count on a real Datadog; API_KEY=... APP_KEY=... SITE=...
	@exec $(BIN)/python -m tests.integration.verify_datadog $(ARGS)

.PHONY: screenshots
screenshots: $(TEST_READY)  ## the docs' pictures of the status page, taken anew; needs chromium
	@exec $(BIN)/python -m tests.browser.screenshot $(ARGS)

# What a release has; the build system itself makes it, from a clean `build`.
wheel: $(RUN_READY)  ## the package into dist, as wheel and as source
	@rm -rf build && mkdir -p dist && $(BIN)/python -c "from setuptools import build_meta as it; \
		print('dist/' + it.build_sdist('dist'), 'dist/' + it.build_wheel('dist'), sep='\n')" | grep ^dist/grantex

sbom: $(RUN_READY)  ## bills of materials of both locks into dist (CycloneDX), and docs/licenses.md
	@mkdir -p dist; set -e; version=$$(sed -n 's/^    version="\(.*\)",/\1/p' setup.py); \
	$(BIN)/python templates/sbom.py > dist/grantex-beam-$$version.cdx.json; \
	$(BIN)/python templates/sbom.py requirements-machine.txt > dist/grantex-beam-$$version-machine.cdx.json; \
	$(BIN)/python templates/sbom.py --licenses > docs/licenses.md; ls dist/*.cdx.json

# requirements-machine.txt is for one machine (templates/Dockerfile.machine): without what Beam's clusters on Google
# need, and without Arrow, which pipelines/beam.py hides from Beam. Without apitools Beam warns at every start.
lock:  ## pin every dependency again, with hashes; ARGS=--upgrade for the newest of each
	@$(PYTHON) -m venv $(VENV)-lock && $(VENV)-lock/bin/python -m pip install --quiet uv
	@set -e; compile() { $(VENV)-lock/bin/uv pip compile --quiet --universal --python-version 3.10 \
		--generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate \
		--custom-compile-command "make lock" "$$@" $(ARGS); }; \
	echo 'setuptools>=77' | compile - setup.py -o requirements.txt; \
	printf '%s\n' "apache-beam>=2.77,<2.78" "pyarrow ; python_version < '3'" > $(VENV)-lock/one-machine.txt; \
	printf '%s\n' 'setuptools>=77' google-apitools | compile - setup.py \
		--override $(VENV)-lock/one-machine.txt -c requirements.txt \
		-o requirements-machine.txt; \
	echo 'setuptools>=77' | compile - -c requirements.txt -o requirements-build.txt; \
	echo 'setuptools>=77' | compile - setup.py --extra dev --extra msk -c requirements.txt -o requirements-dev.txt; \
	grep -c == requirements*.txt

clean:  ## remove the virtual environment and caches; never your ./state
	rm -rf $(VENV) $(VENV)-lock build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# $(call install,LOCK FILE): pip with hashes, one line that counts on a terminal, every 25th otherwise.
# Without --no-deps a pip before 23.3 takes a package that somebody wants with an extra (google-auth[pyopenssl])
# in its newest version, which no lock has, and stops. The lock is complete; a test asks pip whether it is.
define install
	@echo "Installing $(1), at most $$(grep -c == $(1)) packages, a minute or two the first time"; \
	rm -f $@; n=0; \
	{ $(PIP_INSTALL) --no-deps --no-build-isolation --require-hashes -r $(1) 2>&1 && touch $@; } \
	| tee -a $(VENV)/install.log | while IFS= read -r line; do case $$line in \
		Collecting*) n=$$((n + 1)); name=$${line#Collecting }; \
			if [ -t 1 ]; then printf '\r  %d %s\033[K' $$n "$${name%% *}"; \
			elif [ $$((n % 25)) = 0 ]; then echo "  $$n fetched"; fi;; \
		"Installing collected"*) [ ! -t 1 ] || printf '\r\033[K'; echo "  unpacking $$n packages";; \
		ERROR*|error*|*"HASHES"*|WARNING*) echo "$$line" >&2;; \
	esac; done; \
	[ -e $@ ] || { echo "pip could not install $(1); all it said is in $(VENV)/install.log" >&2; exit 1; }
endef

$(RUN_READY): requirements.txt requirements-build.txt setup.py pyproject.toml
	@if ! $(or $(PYTHON),false) -c '$(FITS)' 2>/dev/null; then \
		echo "grantex-beam needs Python 3.10 to 3.13 with venv (Debian: apt install python3-venv);" \
			"found $$($(or $(PYTHON),python3) --version 2>&1 | head -n 1)." \
			"Name another: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; exit 1; fi
	@[ -x $(BIN)/pip ] || { echo "Creating $(VENV) with $$($(PYTHON) --version)"; \
		$(PYTHON) -m venv --clear $(VENV); }
	@$(PIP_INSTALL) --quiet --no-deps --require-hashes -r requirements-build.txt
	$(call install,requirements.txt)
	@rm -f $@; $(PIP_INSTALL) --quiet --no-deps --no-build-isolation --editable . && touch $@

$(TEST_READY): $(RUN_READY) requirements-dev.txt
	$(call install,requirements-dev.txt)
