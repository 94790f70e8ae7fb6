# Builds for any system on any other, with the compiler and the C libraries of PyPI's ziglang, and without warnings or
# missing instruction sets:
#
#   cmake -S kernels -B build/zig -DCMAKE_TOOLCHAIN_FILE=cmake/zig.cmake -DEMBGEMMA_TARGET=aarch64-linux-musl
#
# EMBGEMMA_TARGET is a name of zig's, with the oldest system that must do: x86_64-linux-gnu.2.17, aarch64-macos.11.0,
# x86_64-windows-gnu. zig is looked for in PATH, or as Python's module ziglang.
string(REPLACE "-" ";" target_parts "${EMBGEMMA_TARGET}")
list(GET target_parts 0 CMAKE_SYSTEM_PROCESSOR)
list(GET target_parts 1 system)
if(system MATCHES "^macos")
  set(CMAKE_SYSTEM_NAME Darwin)
elseif(system MATCHES "^windows")
  set(CMAKE_SYSTEM_NAME Windows)
else()
  set(CMAKE_SYSTEM_NAME Linux)
endif()

find_program(EMBGEMMA_ZIG NAMES zig python-zig REQUIRED)
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES EMBGEMMA_TARGET EMBGEMMA_ZIG)
set(CMAKE_C_COMPILER "${EMBGEMMA_ZIG}" cc -target ${EMBGEMMA_TARGET})
foreach(tool ar ranlib) # CMake wants programs
  string(TOUPPER ${tool} name)
  set(CMAKE_${name} "${CMAKE_BINARY_DIR}/zig-${tool}" CACHE FILEPATH "")
  file(WRITE "${CMAKE_${name}}" "#!/bin/sh\nexec '${EMBGEMMA_ZIG}' ${tool} \"$@\"\n")
  file(CHMOD "${CMAKE_${name}}" PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE)
endforeach()
set(CMAKE_SHARED_LINKER_FLAGS_INIT -s)
set(CMAKE_EXE_LINKER_FLAGS_INIT -s)
set(EMBGEMMA_REQUIRE_ISAS ON CACHE BOOL "")
