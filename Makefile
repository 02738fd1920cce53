# Each target does all of its own set-up; nothing outside this folder is touched.
PYTHON ?= python3
VENV ?= .venv
RUNTIME ?= .venv-runtime
OUT ?= out

.PHONY: example check test benchmarks wheel clean

# Install clickseg without PyTorch, generate a CT, segment it with the bundled model.
example: $(RUNTIME)/.ready
	rm -rf $(OUT)/example
	$(RUNTIME)/bin/clickseg phantom $(OUT)/example --cases 1 --seed 2026
	$(RUNTIME)/bin/clickseg segment $(OUT)/example/imagesTr/phantom_000.nii.gz \
		--clicks examples/kidney.json -o $(OUT)/kidney.nii.gz --preview $(OUT)/kidney.png

# Everything that has to hold: style, types, import directions, tests.
check: $(VENV)/.ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/python -m pytest

test: $(VENV)/.ready
	$(VENV)/bin/python -m pytest

benchmarks: $(VENV)/.ready
	$(VENV)/bin/python -m pip install --quiet -e '.[bench]'
	$(VENV)/bin/python benchmarks/run_all.py

# What is published: fails if the viewer of `clickseg demo` cannot be had.
wheel: $(VENV)/.ready
	CLICKSEG_RELEASE=1 $(VENV)/bin/python -m build

$(RUNTIME)/.ready: pyproject.toml
	$(PYTHON) -m venv $(RUNTIME)
	$(RUNTIME)/bin/python -m pip install --quiet -e .
	touch $@

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet -e '.[test]'
	touch $@

clean:
	rm -rf $(VENV) $(RUNTIME) $(OUT) build dist
