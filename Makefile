# Every target sets up .venv by itself.
## make demo           export the embedded model, verify the artifact, generate text from it
## make test           lint, types, the suite, the Android app's Kotlin, and the web demo
## make test-android   the Android app's Kotlin on the JVM, and its APK built and driven
## make android-demo   build, sign and verify the Android app with the embedded model in it
## make test-web       the web demo in Node, it and the artifacts' pages in headless Chromium
## make web-bench      the 140M shape in headless Chromium, beside wllama's Llama of equal depth
## make web-demo       serve the web demo at http://localhost:4173
## make acceptance     the full matrix of targets, forms, loop counts and presets
## make shapes         300 random models on every target: verified, or refused by name
## make soak           fuzz the readers of files, and look for growth in generations, exports and hosts: hours
## make mutants        every fault of docs/mutants.md on every target, form and preset: caught by which check
## make bench          bytes, memory and speed of the 140M shape
## make app-kit        write the vectors and schemas that every app passes
## make app-artifacts  export what the apps' tests and demos bundle
## make lock           write requirements.hashes.txt: requirements.lock with the checksums of every file on the index
## make sbom           a bill of materials of the pinned packages, CycloneDX, in build/sbom.json
## make audit          look the pinned packages up in the advisory database (needs the network)
## make resources      peak memory of exporting the released shapes: hours
## make docs           write the generated pages and build the site in build/site
## make docs-check     run the code in the documents, say whether a generated page or a link is stale
## make clean          remove everything that the other targets made

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
SETUP := .venv/.installed
# The embedded model is small: one thread is faster than two that wait for each other.
export OMP_NUM_THREADS ?= 1

.PHONY: help demo test lint suite test-android android-demo acceptance shapes soak mutants bench resources app-kit app-artifacts web-demo test-web web-bench lock sbom audit docs docs-check clean

help:
	@sed -n 's/^## //p' Makefile

$(SETUP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "parcae-mobile needs Python 3.11: make PYTHON=/path/to/python3.11"; exit 5; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -qq --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install -qq --disable-pip-version-check --no-deps -e .
	@touch $@

TINY := dist/parcae-tiny-onnx-dynamic-int4
demo: $(SETUP)
	@echo "1. Export: a small language model, made smaller, checked, and written for phones. A minute or two."
	@$(BIN)/parcae-export --target onnx --loops dynamic --out dist --force --threads 1
	@echo "2. Verify: is the folder whole, and does this machine compute what it should?"
	@$(BIN)/parcae-export verify $(TINY) --threads 1
	@echo "3. Generate: it goes on with a text. It is small and knows only Python: this looks like code, and means nothing."
	@$(BIN)/parcae-export generate $(TINY) --tokens 64 --temperature 0.7 --top-k 40 --threads 1
	@echo "Next: open $(TINY)/report.html, or make web-demo for the same model in a browser, with a slider for T"

test: lint suite test-android test-web

lint: $(SETUP)
	$(BIN)/ruff check .
	$(BIN)/mypy

# Files in their order, so that short ones come last and no worker waits for the other's long one.
suite: $(SETUP)
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

# The Android app's Kotlin on the JVM, against the desktop's onnxruntime, and its APK; says what it did not run where tools are missing.
ANDROID_MODELS := $(addprefix build/app/,exact/parcae-tiny-onnx-dynamic-int4 shared/parcae-tiny-onnx-dynamic-fp32 \
	full/parcae-tiny-onnx-dynamic-fp32 pte/parcae-tiny-executorch-dynamic-int4)
test-android: $(SETUP) $(ANDROID_MODELS)
	$(BIN)/python android_demo/tools/check.py

# The Android app as a signed APK with the embedded model in it; docs/android.md says what it needs.
android-demo: $(SETUP) $(ANDROID_MODELS)
	$(BIN)/python android_demo/tools/build_apk.py

# The full matrix of forms, presets and loop counts: minutes, not part of `make test`.
acceptance: $(SETUP)
	$(BIN)/pytest -n 2 -m acceptance

# Random models over every option of the original, on every target: verified, or refused by name. Hours.
shapes: $(SETUP)
	$(BIN)/python -m tests.random_shapes --count 300

# The fuzzer on the readers of files, then growth: full sizes by default, a short run with
#   make soak FUZZ_SECONDS=10 SOAK='--generations 60 --hosts 200 --exports 4'
FUZZ_SECONDS ?= 300
SOAK ?= --generations 1000 --exports 200 --hosts 10000
soak: $(SETUP)
	$(BIN)/python -m tests.attacks.fuzz --seconds $(FUZZ_SECONDS) --corpus build/fuzz
	$(BIN)/python -m tests.soak $(SOAK)

# Every fault in every column, what is not in build/mutants yet: two hours on a busy machine. Results go to the docs by
# `python -m tests.mutants --docs` and `make docs`.
mutants: $(SETUP)
	$(BIN)/python -m tests.mutants

# Bytes, memory and speed of the 140M shape with random weights: hours. Every line adds to build/bench/bench.json.
BENCH := $(BIN)/parcae-export bench --model parcae-140m --random-weights --out build/bench --threads 1
SHORT := --context 128 --context 1024
# It is compiled when it is installed, so it is measured where it is: pip install 'parcae-mobile[llama-cpp]'.
LLAMA_CPP := $(if $(wildcard $(BIN)/../lib/python3*/site-packages/llama_cpp),--baseline llama-cpp)
bench: $(SETUP)
	$(BENCH) --quant int4 --quant int4-small --quant fp32 --loops 8 $(SHORT) --context 512 \
		--baseline naive-onnx --baseline genai-llama $(LLAMA_CPP)
	$(BENCH) --quant int4 --quant int4-small --loop-form scan --baseline naive-onnx
	$(BENCH) --quant int4-small --loop-form stages $(SHORT) --loops 1 --loops 4 --loops 8 --loops 16
	$(BENCH) --quant int4 --loop-form stages --kv full --kv shared --kv-dtype fp32 --kv-dtype int8 --loops 8
	$(BENCH) --quant int4-small --loop-form unrolled --loops 1 --loops 8 --loops 16 $(SHORT)
	$(BENCH) --target onnx --target executorch --quant int4 --quant int4-small --loops 8 $(SHORT) \
		--loop-form stages --loop-form unrolled --loop-form scan --baseline naive-executorch
	$(BENCH) --target coreml --quant int4 --loop-form stages --measure size
	$(BENCH) --quant int4 --quant int4-small --loops 8 $(SHORT) --context 512 --threads 2 $(LLAMA_CPP)
	$(BENCH) --show --plot build/bench/bench.svg --markdown build/bench/bench.md

# The vectors and schemas that every app passes, from their definitions and the embedded model.
app-kit: $(SETUP)
	$(BIN)/python -m app_kit.make

# What the apps' tests and demos bundle: as a user exports it for a phone and for a browser, and the fp32 ones that the
# vectors of app_kit/vectors/model.json hold for. Kept until removed.
APPS := build/app
app-artifacts: $(APPS)/web/parcae-tiny-onnx-dynamic-int4-portable $(APPS)/phone/parcae-tiny-onnx-dynamic-int4 \
	$(APPS)/exact/parcae-tiny-onnx-dynamic-int4 $(APPS)/shared/parcae-tiny-onnx-dynamic-fp32 \
	$(APPS)/full/parcae-tiny-onnx-dynamic-fp32

$(APPS)/web/%: | $(SETUP)
	$(BIN)/parcae-export --quant int4 --compute fp32 --portable --out $(@D) --quiet --threads 1

$(APPS)/phone/%: | $(SETUP)
	$(BIN)/parcae-export --quant int4 --out $(@D) --quiet --threads 1

$(APPS)/exact/%: | $(SETUP)
	$(BIN)/parcae-export --quant int4 --compute fp32 --out $(@D) --quiet --threads 1

$(APPS)/pte/%: | $(SETUP)
	$(BIN)/parcae-export --quant int4 --target executorch --out $(@D) --no-verify --quiet --threads 1

$(APPS)/shared/%: | $(SETUP)
	$(BIN)/parcae-export --quant fp32 --kv shared --out $(@D) --no-verify --quiet --threads 1

$(APPS)/full/%: | $(SETUP)
	$(BIN)/parcae-export --quant fp32 --kv full --out $(@D) --no-verify --quiet --threads 1

# The pins with checksums, for every platform. torch is left out: its CPU and CUDA builds are different files of one
# version, on different indexes. docs/trust.md says how the two are installed.
build/.supply: docs/supply.txt | $(SETUP)
	$(BIN)/python -m venv build/supply
	build/supply/bin/pip install -qq --disable-pip-version-check -r docs/supply.txt
	@touch $@

lock: build/.supply
	build/supply/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-deps --no-annotate \
		--no-header --no-emit-package torch requirements.lock -o requirements.hashes.txt

sbom: build/.supply
	build/supply/bin/cyclonedx-py requirements requirements.lock --pyproject pyproject.toml --output-reproducible \
		--of JSON -o build/sbom.json

audit: build/.supply
	build/supply/bin/pip-audit -r requirements.hashes.txt --disable-pip

resources: $(SETUP)
	$(BIN)/python -m export.bench.resources

docs: build/.docs
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/generate.py --messages
	$(BIN)/mkdocs build --quiet --strict

docs-check: build/.docs
	$(BIN)/python docs/generate.py --check
	$(BIN)/python docs/generate.py --messages
	$(BIN)/pytest -m "acceptance or not acceptance" tests/test_docs.py tests/test_notebook.py
	$(BIN)/mkdocs build --quiet --strict

build/.docs: docs/requirements.txt | $(SETUP)
	$(BIN)/pip install -qq --disable-pip-version-check -r docs/requirements.txt
	@mkdir -p build
	@touch $@

# The web demo at http://localhost:4173, with the embedded model in it; other artifacts join by parcae-export bundle.
web-demo: $(SETUP) $(APPS)/web/parcae-tiny-onnx-dynamic-int4-portable
	$(BIN)/parcae-export bundle $(APPS)/web/parcae-tiny-onnx-dynamic-int4-portable --platform web \
		--app web_demo/public/models --name parcae-tiny
	@command -v npm > /dev/null || { echo "the web demo needs npm: install Node.js 20.19 or later"; exit 5; }
	cd web_demo && npm ci --no-audit --no-fund && npm run build && npm run preview

WEB_MODELS := build/web-test-models
REPORTS := build/report-test
JUDGED := $(APPS)/web/parcae-tiny-onnx-dynamic-int4-portable
NOT_JUDGED := $(APPS)/shared/parcae-tiny-onnx-dynamic-fp32
# Types, lint, the kit's vectors and real artifacts in Node, and the app and the artifacts' pages in headless Chromium, whose benchmark `bench` reads.
test-web: $(SETUP) $(WEB_MODELS)/.made $(REPORTS)/.made
	web_demo/tests/run.sh $(WEB_MODELS) $(REPORTS)
	@test ! -e build/web-test/bench.json || $(BIN)/parcae-export bench --show --out build/web-test > /dev/null

$(WEB_MODELS)/.made: | $(SETUP) app-artifacts
	$(BIN)/parcae-export bundle $(APPS)/web/parcae-tiny-onnx-dynamic-int4-portable --platform web --app $(@D) --name parcae-tiny
	$(BIN)/parcae-export bundle $(APPS)/phone/parcae-tiny-onnx-dynamic-int4 --platform web --app $(@D) --name rounded
	$(BIN)/parcae-export bundle $(APPS)/full/parcae-tiny-onnx-dynamic-fp32 --platform web --app $(@D) --name exact-full
	$(BIN)/parcae-export bundle $(APPS)/shared/parcae-tiny-onnx-dynamic-fp32 --platform web --app $(@D) --name exact-shared
	@touch $@

# An artifact's own page, one that nothing judged, and the page of several with times of a short bench.
COMPARED := $(JUDGED) $(APPS)/exact/parcae-tiny-onnx-dynamic-int4 $(NOT_JUDGED)
$(REPORTS)/.made: | $(SETUP) app-artifacts
	@mkdir -p $(@D)
	cp $(JUDGED)/report.html $(@D)/judged.html
	cp $(NOT_JUDGED)/report.html $(@D)/not-judged.html
	$(BIN)/parcae-export bench $(COMPARED) --measure speed --loops 1 --loops 4 --loops 8 --context 64 --context 512 \
		--rounds 3 --prompts 1 --out $(@D) > /dev/null
	$(BIN)/parcae-export compare $(COMPARED) --bench $(@D)/bench.json --out $(@D)/compare.html --force > /dev/null
	@touch $@

# The 140M shape (random weights) in headless Chromium at T = 1, 4 and 8, and a Llama of equal depth and width in wllama.
WEB_BENCH := build/web-bench
web-bench: $(SETUP) $(WEB_BENCH)/models/models.json $(WEB_BENCH)/llama/T8.gguf
	@command -v npm > /dev/null || { echo "the bench needs npm: install Node.js 20.19 or later"; exit 5; }
	@test -x "$${CHROMIUM:-/usr/bin/chromium}" || { echo "the bench needs Chromium: apt-get install chromium, or CHROMIUM=/path/to/it"; exit 5; }
	cd web_demo && npm ci --no-audit --no-fund --silent && npm run --silent bench
	@cat $(WEB_BENCH)/*.md

$(WEB_BENCH)/models/models.json: | $(SETUP)
	$(BIN)/parcae-export --model parcae-140m --random-weights --portable --compute fp32 --kv shared --no-verify \
		--out $(WEB_BENCH)/artifact --force --quiet
	$(BIN)/parcae-export bundle $(WEB_BENCH)/artifact/parcae-140m-onnx-dynamic-int4-portable --platform web \
		--app $(@D) --name parcae-140m

$(WEB_BENCH)/llama/T8.gguf: | $(SETUP)
	$(BIN)/python -m export.bench.baselines.web_llama --loops 1 --loops 4 --loops 8 --out $(@D)

clean:
	rm -rf .venv dist build *.egg-info android_demo/build android_demo/*/target web_demo/node_modules web_demo/dist web_demo/public/models web_demo/public/runtime
