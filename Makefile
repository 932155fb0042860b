# Two commands: `make serve` and `make test`. Both set up what they need.
PYTHON ?= python3
PORT ?= 8080
SERVE = .venv
TEST = .venv-test

.PHONY: help serve test fast lint types slow docker-replay bench clean

help:  ## Show the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

serve: $(SERVE)/.ready  ## Set up (no torch) and serve the bundled model with a sample collection
	$(SERVE)/bin/embedsvc serve --demo --port $(PORT)

test: lint types fast  ## Set up, then lint, types and the fast test suite

lint: $(TEST)/.ready  ## ruff: style and format
	$(TEST)/bin/ruff check .
	$(TEST)/bin/ruff format --check .

types: $(TEST)/.ready  ## mypy --strict
	$(TEST)/bin/mypy

# A worker for each processor: more threads in each would only wait for one another.
# A file stays with one worker: what its tests share (servers, models, indexes) is made once.
# Folders of long files come first (tests/conftest.py), so that no worker ends long before the other.
fast: $(TEST)/.ready  ## The fast test suite
	OMP_NUM_THREADS=1 $(TEST)/bin/pytest -n auto --dist loadfile --no-loadscope-reorder

slow: $(TEST)/.ready  ## The slow tests
	$(TEST)/bin/pytest -m slow

docker-replay: $(TEST)/.ready  ## Build and try the cpu image without a container engine
	$(TEST)/bin/python docker/replay.py cpu

clean:  ## Remove the virtual environments and caches
	rm -rf $(SERVE) $(TEST) .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(SERVE)/.ready: pyproject.toml
	$(PYTHON) -m venv $(SERVE)
	$(SERVE)/bin/pip install --quiet --disable-pip-version-check --editable .
	touch $@

# torch first and alone: this exact version has a CPU build where one is offered locally;
# a looser range would bring gigabytes of CUDA packages.
$(TEST)/.ready: pyproject.toml
	$(PYTHON) -m venv $(TEST)
	$(TEST)/bin/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(TEST)/bin/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@
