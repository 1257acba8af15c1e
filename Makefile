# make demo   sets up and runs the main job        make test    sets up and runs the tests
# make check  format, lint, types, layers          make bench   measures; see docs/benchmarks.md
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
CORE := $(VENV)/.core-installed
DEV := $(VENV)/.dev-installed
DEMO := examples/lighthouse
RUN := runs/demo

.PHONY: demo test check format bench docs clean

demo: $(CORE)
	$(BIN)/plume check $(DEMO)/train.jsonl --eval-data $(DEMO)/demo.jsonl
	rm -rf $(RUN)
	$(BIN)/plume train $(DEMO)/train.jsonl --output-dir $(RUN)
	@printf '\nNow 180 questions phrased in ways that took no part in training:\n'
	$(BIN)/plume eval $(RUN) $(DEMO)/demo.jsonl
	@printf '\nThree questions of your own kind:\n'
	$(BIN)/plume ask $(RUN) 'What height is the lighthouse?'
	$(BIN)/plume ask $(RUN) 'Sais-tu comment s’appelle le chien du phare ?'
	$(BIN)/plume ask $(RUN) 'When does the last ferry of the day leave?'
	@printf '\nCurves, scores and the worst rows: %s/report.html\n' '$(RUN)'

test: $(DEV)
	$(BIN)/python -m pytest -n 2

check: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

format: $(DEV)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(DEV)
	$(BIN)/python docs/generate.py

bench: $(DEV)
	$(BIN)/python benchmarks/training.py
	$(BIN)/python benchmarks/doctor.py

# torch comes first and pinned, so that no resolver picks another build.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(CORE): $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check '$(TORCH)'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(DEV): $(CORE)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis
