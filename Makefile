# Every target makes the environment it needs, in a fresh clone or over an older one's. PYTHON=/path/to/python chooses the interpreter.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help environment demo test plain torture simulate integration others check format coverage golden promises mutants bench clean

BIN := .venv/bin
BENCHMARKS := $(patsubst %/,%,$(sort $(dir $(wildcard benchmarks/*.py))))
CODE := actors storage tracing tests $(BENCHMARKS)
PHOENIX := arize-phoenix==20.26.1
WORKERS ?= 2
SEEDS ?= 1000
SEED ?= 1
COUNT ?= 300

help:  ## this list
	@sed -nE 's/^([a-z]+):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 14

environment:  ## .venv, with everything that the other targets need
	@.ci/environment

demo: environment  ## kill a busy host three times and count what was lost
	@$(BIN)/perdure demo

test: environment  ## the full suite, the actors' tests with none of them in memory, then the others' plain suite (see there)
	$(BIN)/pytest -n $(WORKERS)
	$(BIN)/pytest -n $(WORKERS) tests/actors -m "not slow" --max-active=0
	@$(MAKE) --no-print-directory others

plain: environment  ## the suite without its slow tests
	$(BIN)/pytest -n $(WORKERS) -m "not slow"

torture: environment  ## the durability tests in full: a thousand kills, and so on; an hour or more
	$(BIN)/pytest tests/durability --torture -n $(WORKERS) --timeout 3600 -rP

simulate: environment  ## random programs from seeds against a model: SEEDS=10000
	$(BIN)/python -m tests.durability.simulate --seeds $(SEEDS) --workers $(WORKERS)

integration: environment  ## have Phoenix, which it installs for this alone, read back what it is sent, and a real log: PERDURE_PROCESS_LOG=/path/to/receipt.csv
	@[ -x .venv-integration/bin/phoenix ] || { \
		printf 'installing %s into .venv-integration\n' '$(PHOENIX)'; \
		$(BIN)/python -m venv .venv-integration && .venv-integration/bin/python -m pip --quiet --disable-pip-version-check --no-input install '$(PHOENIX)'; \
	} || printf 'pip cannot get %s here, so what needs it is skipped\n' '$(PHOENIX)'
	$(BIN)/pytest tests/tracing/test_receivers.py --integration --timeout 900

others: environment  ## the plain suite, with one actor and every store in memory, on every other CPython >= 3.11
	@.ci/environment --others | while read -r version path; do \
		.ci/environment "$$version" "$$path" </dev/null; \
		printf '\nplain suite on Python %s\n' "$$version"; \
		".venv-$$version/bin/pytest" -n $(WORKERS) -m "not slow" --max-active=1 --memory </dev/null; \
	done

check: environment  ## lint, format, types, architecture
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/mypy
	$(BIN)/mypy --explicit-package-bases tests $(BENCHMARKS)
	$(BIN)/basedpyright
	$(BIN)/lint-imports --no-logo

format: environment  ## let ruff put the code in order
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

coverage: environment  ## which lines the plain suite never reaches
	$(BIN)/coverage run -m pytest -m "not slow"
	$(BIN)/coverage report

golden: environment  ## write the golden store of this release, once: RELEASE=v1_2
	$(BIN)/python -m tests.durability.goldens.write $(RELEASE)

promises: environment  ## write docs/promises.md: every promise, the tests that hold it, what was broken
	$(BIN)/python -m tests.project.promises

mutants: environment  ## change the core in COUNT small ways, drawn by SEED, and see whether the tests notice; an hour or two, and it can be resumed
	@$(BIN)/python -c 'import cosmic_ray' 2>/dev/null || $(BIN)/pip install --quiet --no-build-isolation --config-settings editable_mode=strict --editable '.[mutants]'
	$(BIN)/python -m tests.mutants --seed $(SEED) --count $(COUNT) --workers $(WORKERS)

bench: environment  ## measure speed and memory; the figures also go to benchmarks/results
	@for benchmark in commit turns tracing client workflows timers replay rest testkit imports; do \
		$(BIN)/python -m benchmarks.$$benchmark --json benchmarks/results/$$benchmark.json; \
	done

clean:  ## forget every environment and cache
	rm -rf .venv .venv-* build dist *.egg-info .*_cache .coverage .hypothesis
