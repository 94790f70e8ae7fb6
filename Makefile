# Every target sets up what it needs, in .venv and build/; the machine must have Python and a C compiler.
#
#   make bench         how fast the engine is on this machine
#   make test          all tests of the Python package
#   make test-native   the C tests: CC=clang for another compiler
#   make sanitize      the C tests under the address, undefined-behaviour and thread sanitizers
#   make test-arm      the C tests cross-compiled for 64-bit ARM and run by qemu
#   make packaging     every way of installing: wheel, sdist, editable, without a C compiler
#   make lint          style, types, C warnings

PYTHON ?= python3
INSTALL ?= -e .
VENV := .venv
BIN := $(VENV)/bin
CMAKE = $(BIN)/cmake -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja

.PHONY: bench test test-native sanitize test-arm packaging lint tree clean

bench: $(VENV)/with-numba
	$(BIN)/embgemma-bench --device cpu

test: $(VENV)/with-test
	$(BIN)/python -m pytest

# The package with one of its extras. Python code is served from the working tree; C code is compiled again when it changed.
$(VENV)/with-%: pyproject.toml kernels/CMakeLists.txt $(wildcard kernels/*.[ch])
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet '$(INSTALL)[$*]'
	touch $@
