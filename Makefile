# Everything a person or a workflow does; each target installs what it needs into .venv first.

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
OUT := runs
DEVICE ?= cpu
EXPERIMENTS ?=
BUDGET ?= 8.5m
JOBS ?= $(if $(filter cpu,$(DEVICE)),1,4)
BRANCH ?= records
RESOLUTION ?= lowest-direct
ALONE := .cache/alone
export NO_MKDOCS_2_WARNING := 1

# pip has variables of its own: make test PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu

.PHONY: help install serve docs offline docs-update browser test alone check experiments publish propose mutate lighthouse gpu-figures gpu-comparisons lint format lock clean

help:           ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/:/'

install: $(STAMP)  ## install the package, its tests and the site's tools into .venv

$(STAMP): pyproject.toml requirements.lock hooks/web/package-lock.json
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --constraint requirements.lock --group dev --group docs --editable .
	$(BIN)/python -c "from hooks import node; node.install()"
	touch $@

serve: $(STAMP)    ## build the site and serve it at http://127.0.0.1:8000
	$(BIN)/mkdocs serve --dirty --no-strict

docs: $(STAMP)     ## build the site into site/; any warning is an error
	$(BIN)/mkdocs build --strict

offline: $(STAMP)  ## build resnet-notes.zip: unpack it and open index.html, no server needed
	OFFLINE=true $(BIN)/mkdocs build --strict --site-dir .cache/offline/resnet-notes
	cd .cache/offline && rm -f ../../resnet-notes.zip && \
	  ../../$(BIN)/python -m zipfile -c ../../resnet-notes.zip resnet-notes

browser:        ## what the tests of the site need: Chromium, a Chinese font and emoji (Debian)
	command -v chromium >/dev/null && fc-list :lang=zh | grep -q . && fc-list | grep -q Emoji || { \
	  sudo=$$([ "$$(id -u)" -eq 0 ] || echo sudo); $$sudo apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive $$sudo apt-get install -y -qq --no-install-recommends \
	    $$(command -v chromium >/dev/null || echo chromium) fontconfig fonts-noto-cjk fonts-noto-color-emoji; } >/dev/null

test: $(STAMP)     ## run all tests (CIFAR10_ROOT adds those on the real data set)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile cifar_resnet hooks tests

alone:          ## install the package alone, its dependencies by RESOLUTION, and train
	rm -rf $(ALONE)
	$(PYTHON) -m venv $(ALONE)
	$(ALONE)/bin/python -m pip install --quiet uv
	$(ALONE)/bin/uv pip install --quiet --python $(ALONE)/bin/python --resolution $(RESOLUTION) .
	$(ALONE)/bin/cifar-resnet train smoke --data synthetic --out $(ALONE)/run
	$(ALONE)/bin/cifar-resnet evaluate $(ALONE)/run/weights.safetensors --data synthetic

docs-update: $(STAMP)  ## rewrite the printed output of the pages' examples
	$(BIN)/pytest tests/test_docs.py --update-examples

check: $(STAMP)    ## fail if the code no longer stands behind a published record
	$(BIN)/cifar-resnet results check

experiments: $(STAMP)  ## run what is missing of EXPERIMENTS on DEVICE within BUDGET
	$(BIN)/cifar-resnet experiments run $(EXPERIMENTS) --device $(DEVICE) --budget $(BUDGET) \
	  --jobs $(JOBS) --out $(OUT)

publish: $(STAMP)  ## copy the records of all finished runs below OUT to results/
	$(BIN)/cifar-resnet results add $$(find $(OUT) -name record.json -not -path '*.set-aside-*' -exec dirname {} +) \
	  $$(find $(OUT) -path '*/bench/*.json' -o -path '*/analyses/*.json')

propose:        ## open a pull request with the new records in results/, from branch BRANCH
	git switch --create $(BRANCH)
	git add results
	if ! git diff --cached --quiet; then \
	  git -c user.name=cifar-resnet -c user.email=noreply@github.com \
	    commit --message "New run records" && \
	  gh auth setup-git && git push origin $(BRANCH) && gh pr create --fill --head $(BRANCH) && \
	  gh workflow run ci.yml --ref $(BRANCH); \
	fi

mutate: $(STAMP)   ## make dozens of deliberate mistakes; fail unless every one is caught
	$(BIN)/python -m tests.mutate

lighthouse: docs  ## Lighthouse's scores of four pages; fails below 95
	$(BIN)/python -m tests.lighthouse

# Pieces of the GPU's work; run them again until `experiments status` shows nothing open. They
# install nothing: a cluster's own Python has the right torch, and often no network. The
# benchmark is a piece of its own, since BUDGET counts for the runs alone.
TRAIN = $(if $(wildcard $(STAMP)),$(BIN)/python,$(PYTHON)) -m cifar_resnet
gpu-figures:       ## on a machine with a GPU: recipe fast, its parts, bf16; the benchmark alone, where there is none
	if ls results/bench/resnet18-nvidia-* $(OUT)/cuda/bench/resnet18-* 2>/dev/null | grep -q .; then \
	  $(TRAIN) experiments run fast fast-short fast-parts precision \
	    --device cuda --budget $(BUDGET) --jobs 1 --out $(OUT); \
	else \
	  $(TRAIN) bench --device cuda --out $(OUT)/cuda/bench; \
	fi

gpu-comparisons:   ## on a machine with a GPU: the full experiments, four runs side by side
	$(TRAIN) experiments run notes surgery configuration degradation \
	  --device cuda --budget $(BUDGET) --jobs 4 --out $(OUT)

lint: $(STAMP)     ## style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/zizmor --quiet --offline .github

format: $(STAMP)   ## rewrite the code in the project's style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

lock: $(STAMP)     ## pin the newest versions of everything in requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade --no-header \
	  --group dev --group docs pyproject.toml --output-file requirements.lock

clean:          ## remove what the targets above made
	rm -rf .venv hooks/web/node_modules tests/lighthouse/node_modules site resnet-notes.zip .cache .pytest_cache .ruff_cache .mypy_cache
