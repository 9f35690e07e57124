# Two commands do all: `make repro` reruns every experiment, `make test` checks the project.
PYTHON ?= python3
BIN := .venv/bin
UV := uv==0.13.9
LOCKED := .venv/.locked

.DEFAULT_GOAL := help
.PHONY: help repro sweep test coco perf verify fuzz check lint lock clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

repro: $(LOCKED) check ## rerun what is out of date: data, runs, reports
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/dvc repro

sweep: $(LOCKED) ## the same, several stages at once: make sweep JOBS=2, or RAY=address and REMOTE=name
	$(BIN)/python -m bench.sweep $(if $(JOBS),--jobs $(JOBS)) $(if $(RAY),--ray $(RAY)) \
		$(if $(REMOTE),--remote $(REMOTE))

test: $(LOCKED) ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder \
		tests/test_pipeline.py tests # one thread for each of the two; the longest file begins

coco: $(LOCKED) ## download COCO's keypoint data into data/coco, or go on with it; ARGS="val2017 --mirror URL"
	$(BIN)/python -m bench.data.download $(ARGS)

perf: $(LOCKED) ## measure speed, as ratios: reports/performance.md
	@mkdir -p runs
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest tests/perf -s \
		-o addopts="--import-mode=importlib --benchmark-only --benchmark-json=runs/performance.json"; \
	measured=$$?; $(BIN)/python -m bench.performance runs/performance.json && exit $$measured

verify: $(LOCKED) ## run a small experiment twice, in two clones, and compare every file
	$(BIN)/python -m bench.verify

fuzz: $(LOCKED) ## read 10,000 spoilt files of every kind
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --hypothesis-profile=fuzz tests/fuzz

check: $(LOCKED) ## check params.yaml without running anything
	@$(BIN)/python -m bench.stages.resolve --check

lint: $(LOCKED) ## ruff, mypy, typos
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/typos

lock: $(LOCKED) ## pin the newest versions that pyproject.toml allows
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra onnx --universal --upgrade --no-emit-index-url --no-annotate --no-header -o requirements.lock

clean: ## remove what stages wrote in data/ and runs/, by name (not the environment, the reports, or your data)
	@test -x $(BIN)/python || { echo "error: .venv: not there, wanted the environment that make check makes" >&2; exit 1; }
	@$(BIN)/python -m bench.stages.outputs

# The marker is newer than the lock exactly when the environment holds what the lock says.
$(LOCKED): requirements.lock pyproject.toml
	@$(PYTHON) -I bench/needs.py .venv
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --disable-pip-version-check $(UV)
	$(BIN)/uv pip install -q --python $(BIN)/python -r requirements.lock
	touch $@
