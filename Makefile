# `make quickstart` and `make test` are all a newcomer needs; both run `make setup` first.

VENV   := .venv
BIN    := $(VENV)/bin
PYTHON ?= $(shell command -v python3.11 || command -v python3)
STAMP  := $(VENV)/.setup-done
TOOLS  := $(VENV)/tools
PEER   := .venv-peer
LOCKS  := requirements/cpu.txt requirements/dev.txt

.PHONY: help setup quickstart watch tools bench bench-peer generated test test-unit test-live test-faults check format clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

setup: $(STAMP) ## install everything into .venv (quick when nothing changed)

# Everything is pinned and --no-deps: the resolver would add torchvision and friends in builds
# that break transformers on a CPU (docs/decisions/0001-lock-file.md).
$(STAMP): $(LOCKS) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
	  { echo "error: the lock file is for Python 3.11, and $(PYTHON) is another; run make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing about 3.5 GB of pinned packages into $(VENV) (two to three minutes) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(addprefix -r ,$(LOCKS))
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

quickstart: setup ## distil a teacher into a student on this machine, on real parts
	@$(BIN)/python -m orchestration.run quickstart $(ARGS)

watch: setup ## a local Prometheus, on loopback, that finds running jobs by itself
	@$(BIN)/python -m orchestration.watch $(ARGS)

tools: $(TOOLS)/.done ## get Prometheus and Chromium for watching and testing (Debian, Ubuntu)

# Unpacked and not installed: Prometheus's package would start a service on every interface.
$(TOOLS)/.done: Makefile
	@command -v apt-get >/dev/null && command -v dpkg >/dev/null || \
	  { echo "error: this needs apt-get and dpkg; elsewhere put prometheus, promtool and chromium on the PATH"; exit 1; }
	@mkdir -p $(TOOLS)/archives/partial
	@apt-get -qq -y --no-install-recommends --download-only -o Debug::NoLocking=1 \
	  -o Acquire::http::Timeout=20 -o Acquire::Retries=1 \
	  -o Dir::Cache::archives=$(abspath $(TOOLS))/archives install prometheus chromium
	@for package in $(TOOLS)/archives/*.deb; do dpkg -x $$package $(TOOLS); done
	@rm -r $(TOOLS)/archives && touch $@

bench-peer: $(PEER)/.setup-done ## install TRL into .venv-peer, for benchmarks.loop_vs_trl

# An environment of its own: TRL's packages stay out of ours, which has none that it needs.
$(PEER)/.setup-done: requirements/peer.txt
	@test -x $(PEER)/bin/python || $(PYTHON) -m venv $(PEER)
	@echo "installing TRL into $(PEER) (about 1.5 GB, one to two minutes) ..."
	@$(PEER)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements/peer.txt
	@touch $@

test: setup ## run every test
	@.ci/isolated $(BIN)/python -m pytest $(ARGS)

test-unit: setup ## run the tests that start no engine and no Ray
	@$(BIN)/python -m pytest -m "not engine and not e2e" $(ARGS)

test-live: setup tools ## what shows a run: metrics, live page, reports, alerts, dashboard
	@.ci/isolated $(BIN)/python -m pytest tests/deploy tests/e2e/test_watched.py tests/e2e/test_in_a_browser.py \
	  tests/orchestration/test_exporter.py tests/orchestration/test_live.py tests/orchestration/test_report.py \
	  tests/orchestration/test_watch.py tests/orchestration/test_busy_clock.py tests/orchestration/test_time_account.py \
	  tests/configs/test_metrics.py tests/orchestration/test_role_metrics.py tests/orchestration/test_timeline.py tests/orchestration/test_trackers.py \
	  $(ARGS)
	@.ci/isolated $(BIN)/python -m pytest tests/e2e/test_main_job.py -k "exporter or second or timeline or tracker or report"
	@$(BIN)/python benchmarks/metrics.py

test-faults: setup ## kill, hang and spoil parts of real runs, soak included; prints a table
	@DPKD_SOAK=1 .ci/isolated $(BIN)/python -m pytest tests/faults $(ARGS)

bench: setup ## take every figure of docs/performance.md anew (about an hour, on an idle machine)
	@.ci/isolated $(BIN)/python -m benchmarks.all $(ARGS)

generated: setup ## write anew what is made of the catalogue and the alerts: dashboard, table, rule
	@PYTHONPATH=. $(BIN)/python deploy/grafana/dashboard.py > .generated && mv .generated deploy/grafana/dpkd.json
	@PYTHONPATH=. $(BIN)/python deploy/prometheus/rule.py > .generated && mv .generated deploy/prometheus/prometheusrule.yaml
	@PYTHONPATH=. $(BIN)/python -m configs.metrics > .generated && mv .generated docs/metrics.md

check: setup ## format, lint, types, import arrows
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/pyright
	@$(BIN)/lint-imports

format: setup ## rewrite the code in the house format
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean: ## remove what runs and tools leave behind (not .venv)
	@rm -rf runs .pytest_cache .ruff_cache .hypothesis build *.egg-info
