# Builds for any system on any other, with the compiler and the C libraries of PyPI's ziglang. An instruction set that the
# compiler lacks is an error:
#
#   cmake -S kernels -B build/zig -DCMAKE_TOOLCHAIN_FILE=cmake/zig.cmake -DEMBGEMMA_TARGET=aarch64-linux-musl
#
# EMBGEMMA_TARGET is a name of zig's, with the oldest system that must do: x86_64-linux-gnu.2.17, aarch64-macos.11.0,
# x86_64-windows-gnu, wasm32-wasi. zig is looked for in PATH, or as Python's module ziglang.
set(optimise -O3)
string(REPLACE "-" ";" target_parts "${EMBGEMMA_TARGET}")
list(GET target_parts 0 CMAKE_SYSTEM_PROCESSOR)
list(SUBLIST target_parts 1 -1 system)
if(system MATCHES "^macos")
  set(CMAKE_SYSTEM_NAME Darwin)
elseif(system MATCHES "^windows")
  set(CMAKE_SYSTEM_NAME Windows)
  set(CMAKE_CROSSCOMPILING_EMULATOR wine)
elseif(system MATCHES "^wasi")
  set(CMAKE_SYSTEM_NAME Generic)
  # What all browsers with SIMD have.
  set(CMAKE_BUILD_TYPE MinSizeRel) # it is downloaded; kernels are optimised for speed all the same
  set(optimise -Os)
  set(features -mcpu=generic+atomics+bulk_memory+mutable_globals+nontrapping_fptoint+sign_ext+simd128)
else()
  set(CMAKE_SYSTEM_NAME Linux)
  if(CMAKE_SYSTEM_PROCESSOR STREQUAL "aarch64" AND system MATCHES "musl")
    set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64)
  endif()
endif()

find_program(EMBGEMMA_ZIG NAMES zig python-zig REQUIRED)
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES EMBGEMMA_TARGET EMBGEMMA_ZIG)
# Always the same flags of optimising and stripping, and no linking in checks: zig builds a C library for each set.
set(CMAKE_C_COMPILER "${EMBGEMMA_ZIG}" cc -target ${EMBGEMMA_TARGET} ${features} ${optimise} -s)
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)
foreach(tool ar ranlib) # CMake wants programs
  string(TOUPPER ${tool} name)
  set(CMAKE_${name} "${CMAKE_BINARY_DIR}/zig-${tool}" CACHE FILEPATH "")
  file(WRITE "${CMAKE_${name}}" "#!/bin/sh\nexec '${EMBGEMMA_ZIG}' ${tool} \"$@\"\n")
  file(CHMOD "${CMAKE_${name}}" PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE)
endforeach()
set(EMBGEMMA_REQUIRE_ISAS ON CACHE BOOL "")
