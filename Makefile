# Everything starts here; needs nothing but make and Python 3.11 or newer.

VENV := .venv
INSTALLED := $(VENV)/.installed
BIN := $(VENV)/bin
# The first of these that works makes the environment; `make PYTHON=/path/to/python` says which.
PYTHON ?= python3.13 python3.12 python3.11 python3
# An index to take torch from, for a build other than PyPI's: the README says which is a tenth of the size.
TORCH_INDEX ?=
TORCH = $(shell sed -n 's/^ *"\(torch==[^"]*\)".*/\1/p' pyproject.toml)
PIP_INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check
# Fides has an environment of its own: it wants other versions of what is in ours. The last one for Python before 3.13.
FIDES := .venv-fides
FIDES_PACKAGE := ethyca-fides==2.78.2
FIDES_PYTHON ?= python3.12 python3.11 python3
# What the explorer's tests check accessibility with; the tests name the browsers that they find, too.
AXE := axe-core@4.14.1
BROWSERS := chromium chromium-browser google-chrome
SUDO ?= sudo
# Of the slow network over which the drills try the explorer once more.
SEED ?= 1
# A catalog for the checks of the migrations.
SCRATCH := $(VENV)/scratch.sqlite
ON_SCRATCH := NEVERSEEN_DATABASE_URL=sqlite:///$(SCRATCH)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup demo serve test check lint browser test-cluster drills test-fides soak bench picture clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile

setup: $(INSTALLED) ## make .venv, and install what is missing there
	@echo '$(VENV) is ready'

demo: $(INSTALLED) ## train on real names, answer, compare with retraining, serve
	@$(BIN)/neverseen demo

serve: $(INSTALLED) ## serve the catalog in ./var
	@$(BIN)/neverseen serve

test: lint ## every check and every test
	$(BIN)/pytest --quiet --numprocesses 3 --dist worksteal

check: test ## the same as test

lint: $(INSTALLED) ## the checks that run nothing: style, types, layers, migrations
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check
	$(BIN)/clang-format --dry-run --Werror engine/native/*.h engine/native/*.cpp
	$(BIN)/mypy --no-error-summary
	$(call quietly,$(BIN)/lint-imports --no-logo)
	@rm -f $(SCRATCH)*
	$(call quietly,$(ON_SCRATCH) $(BIN)/alembic upgrade head)
	$(call quietly,$(ON_SCRATCH) $(BIN)/alembic check)
	@rm -f $(SCRATCH)*

browser: $(INSTALLED) ## what the explorer's tests need: Chromium and axe-core; with Debian's packages, as root, where they are missing
	@for browser in "$$CHROMIUM" $(BROWSERS); do command -v "$$browser" >/dev/null && exit; done; $(call install,chromium)
	@[ ! -d /usr/share/fonts ] || find /usr/share/fonts -name '*.[ot]tf' | grep -q . || { $(call install,fonts-dejavu-core); }
	@grep -qs '"version": "$(lastword $(subst @, ,$(AXE)))"' $(VENV)/axe/node_modules/axe-core/package.json || { \
	    command -v npm >/dev/null || { $(call install,npm); } && \
	    echo 'Installing $(AXE) into $(VENV)/axe' && \
	    npm install --prefix $(VENV)/axe --loglevel error --no-audit --no-fund --ignore-scripts $(AXE) >/dev/null; \
	}

test-cluster: $(INSTALLED) ## builds and serving on Ray: several nodes on this machine, killed meanwhile; about six minutes
	$(BIN)/pytest --quiet -m 'cluster and not drill'

drills: $(INSTALLED) ## the long fault drills: kills, restarts, full disks, thousands of connections, the explorer over a slow network; some twenty minutes
	$(BIN)/pytest --quiet -m drill
	SLOW_NETWORK=$(SEED) $(BIN)/pytest --quiet --numprocesses 3 --dist worksteal tests/explorer

test-fides: $(INSTALLED) $(FIDES)/.installed ## the real Fides calls the service, which is killed meanwhile; needs redis-server and PostgreSQL
	$(BIN)/pytest --quiet -m 'drill or not drill' tests/fides tests/end_to_end/fides

soak: $(INSTALLED) ## ten minutes at 80 % of the highest rate: no error, and no memory that goes
	@$(BIN)/python -m tests.benchmarks.soak

bench: $(INSTALLED) ## time the engine beside plain torch, the service over HTTP, erasure requests, and clusters; appends to ./bench.jsonl
	@$(BIN)/python -m engine bench --output bench.jsonl
	@$(BIN)/python -m tests.benchmarks.service --output bench.jsonl
	@$(BIN)/python -m tests.benchmarks.privacy --output bench.jsonl
	@$(BIN)/python -m tests.benchmarks.cluster --output bench.jsonl
	@$(BIN)/python -m tests.benchmarks.sharded --output bench.jsonl

picture: $(INSTALLED) ## draw the README's picture of the explorer, from a demo that is built for it; needs what `make browser` installs
	@$(BIN)/python -m tests.explorer.picture docs/figures/explorer.png

clean: ## remove the environments, builds and caches; ./var with the catalog stays
	rm -rf $(VENV) $(FIDES) build dist *.egg-info .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find app engine migrations tests -name __pycache__ -prune -exec rm -rf {} +

# Says what runs; what it prints only where it fails.
quietly = @echo '$(1)'; said=$$($(1) 2>&1) || { echo "$$said"; exit 1; }

# Installs one of Debian's packages, or says that somebody has to; commands for a shell.
define install
command -v apt-get >/dev/null || { echo '$(1) is needed: install it. CHROMIUM=/path says where a browser is.' >&2; exit 2; }; \
    root=; [ "$$(id -u)" = 0 ] || root='$(SUDO)'; \
    echo 'Installing $(1)'; \
    $$root apt-get update -qq && \
    $$root env DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $(1) >/dev/null
endef

# Ends with $$python being the first that is new enough and can make environments, or says what to install.
define find_python
for python in $(PYTHON) ''; do \
    "$$python" -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && break; \
done; \
if [ -z "$$python" ]; then \
    echo 'Python 3.11 or newer, with venv, is needed; tried: $(PYTHON).' >&2; \
    echo 'Install it (Debian, Ubuntu: apt install python3-venv), or say where it is: make PYTHON=/path/to/python' >&2; \
    exit 2; \
fi
endef

# An environment without pip was interrupted, or its Python is gone: made anew.
$(INSTALLED): pyproject.toml
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	    $(find_python); \
	    echo "Making $(VENV) with $$("$$python" --version)"; \
	    "$$python" -m venv --clear $(VENV); \
	}
	@echo 'Installing into $(VENV): takes minutes the first time'
	@if [ -n '$(TORCH_INDEX)' ]; then $(PIP_INSTALL) --index-url '$(TORCH_INDEX)' $(TORCH); fi
	@$(PIP_INSTALL) --editable '.[dev]'
	@touch $@

$(FIDES)/.installed:
	@for python in $(FIDES_PYTHON) ''; do \
	    "$$python" -c 'import sys, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null && break; \
	done; \
	if [ -z "$$python" ]; then \
	    echo 'Fides needs Python 3.11 or 3.12, with venv; tried: $(FIDES_PYTHON). Say where it is: FIDES_PYTHON=/path' >&2; \
	    exit 2; \
	fi; \
	"$$python" -m venv --clear $(FIDES)
	@echo 'Installing $(FIDES_PACKAGE) into $(FIDES): 250 packages, 800 MB, two minutes'
	@$(FIDES)/bin/python -m pip install -qq --disable-pip-version-check '$(FIDES_PACKAGE)'
	@touch $@
