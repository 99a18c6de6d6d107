# make demo: the main job on the embedded model. make test: lint, types and the suite. Both set up .venv by themselves.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
SETUP := .venv/.installed
# The embedded model is small: one thread is faster than two that wait for each other.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test lint suite acceptance bench clean

$(SETUP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "parcae-mobile needs Python 3.11: make PYTHON=/path/to/python3.11"; exit 5; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -qq --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install -qq --disable-pip-version-check --no-deps -e .
	@touch $@

demo: $(SETUP)
	$(BIN)/parcae-export --target onnx --loops dynamic --out dist --force --threads 1
	$(BIN)/parcae-export verify dist/parcae-tiny-onnx-dynamic-int4 --threads 1
	$(BIN)/parcae-export generate dist/parcae-tiny-onnx-dynamic-int4 --tokens 80 --temperature 0.7 --top-k 40 --threads 1

test: lint suite

lint: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/mypy

suite: $(SETUP)
	$(BIN)/pytest -n 2 --dist loadfile

# The full matrix of forms, presets and loop counts: minutes, not part of `make test`.
acceptance: $(SETUP)
	$(BIN)/pytest -n 2 -m acceptance

# Memory and speed of the 140M shape with random weights; the table is kept in build/bench/bench.json.
bench: $(SETUP)
	$(BIN)/parcae-export bench

clean:
	rm -rf .venv dist build *.egg-info
