"""Checks wheels without running them: what each holds, and what its library asks of the system.

check_wheels.py WHEEL …   The table that it prints gives the digest of each, to compare two builds.
"""

from __future__ import annotations

import hashlib
import re
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import lief

MOST_BYTES = 700 << 10  # without a model, which is the same file in all
X86 = ("amx", "avx512vbmi", "avx512vnni", "avxvnni", "avx2", "scalar")
ARM = ("i8mm", "neondot", "scalar")
GLIBC = r"lib(c|m|pthread|dl|rt)\.so\.\d|ld-linux-.*"
# What linkers add: of macOS, and the start code that zig puts into a library for Windows.
OF_THE_LINKER = {"_mh_dylib_header", "__dso_handle", "_CRT_INIT", "atexit", "__mingw_module_is_dll"}
SYSTEM_OF_WINDOWS = r"KERNEL32\.dll|ntdll\.dll|api-ms-win-crt-.*\.dll|ucrtbase\.dll"


@dataclass(frozen=True)
class Facts:
    """What a library is, and what it needs: libraries of the system, and how old that may be."""

    machine: str
    needs: set[str]
    oldest: str
    exports: set[str]


def elf_facts(library: lief.ELF.Binary) -> Facts:
    versions = [aux.name for needed in library.symbols_version_requirement for aux in needed.get_auxiliary_symbols()]
    numbers = [tuple(map(int, name.removeprefix("GLIBC_").split("."))) for name in versions]
    assert all(name.startswith("GLIBC_") for name in versions), versions
    oldest = ".".join(map(str, max(numbers))) if numbers else "any"
    exports = {str(symbol.name) for symbol in library.exported_symbols}
    return Facts(library.header.machine_type.name, {str(name) for name in library.libraries}, oldest, exports)


def macho_facts(library: lief.MachO.Binary) -> Facts:
    build = library.build_version
    needs = {str(found.name) for found in library.libraries if not str(found.name).startswith("@rpath/libembgemma")}
    exports = {str(symbol.name).removeprefix("_") for symbol in library.exported_symbols} - OF_THE_LINKER
    assert build is not None
    assert library.has_code_signature or library.header.cpu_type.name != "ARM64", "arm64 code must be signed"
    return Facts(library.header.cpu_type.name, needs, ".".join(map(str, build.minos[:2])), exports)


def pe_facts(library: lief.PE.Binary) -> Facts:
    header = library.optional_header
    oldest = f"{header.major_subsystem_version}.{header.minor_subsystem_version}"
    export = library.get_export()
    exports = {str(entry.name) for entry in export.entries} - OF_THE_LINKER if export is not None else set()
    return Facts(library.header.machine.name, {str(found.name) for found in library.imports}, oldest, exports)


# By the platform of the wheel: the library, its processor as the format names it, what it may need, how old a system.
EXPECTED = {
    "manylinux_2_17_x86_64": ("libembgemma.so", "X86_64", GLIBC, "2.17"),
    "manylinux_2_17_aarch64": ("libembgemma.so", "AARCH64", GLIBC, "2.17"),
    "musllinux_1_2_x86_64": ("libembgemma.so", "X86_64", r"libc\.so", "any"),
    "musllinux_1_2_aarch64": ("libembgemma.so", "AARCH64", r"libc\.so", "any"),
    "macosx_11_0_x86_64": ("libembgemma.dylib", "X86_64", r"/usr/lib/libSystem\.B\.dylib", "11.0"),
    "macosx_11_0_arm64": ("libembgemma.dylib", "ARM64", r"/usr/lib/libSystem\.B\.dylib", "11.0"),
    "win_amd64": ("embgemma.dll", "AMD64", SYSTEM_OF_WINDOWS, "6.0"),
    "win_arm64": ("embgemma.dll", "ARM64", SYSTEM_OF_WINDOWS, "6.0"),
}


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split("."))) if version != "any" else ()


def check(path: Path) -> dict[str, str]:
    """Checks one wheel; gives the digests of its files other than the library and its own description."""
    platform = path.stem.removesuffix(".whl").split("-")[-1]
    name, machine, may_need, oldest = EXPECTED[platform]
    with zipfile.ZipFile(path) as wheel:
        files = {entry: wheel.read(entry) for entry in wheel.namelist()}
        models = [entry.compress_size for entry in wheel.infolist() if entry.filename.endswith(".safetensors")]
    content = files.pop(f"embgemma/kernels/{name}")
    parsed = lief.parse(content)
    if isinstance(parsed, lief.ELF.Binary):
        facts = elf_facts(parsed)
    elif isinstance(parsed, lief.MachO.Binary):
        facts = macho_facts(parsed)
    else:
        assert isinstance(parsed, lief.PE.Binary), parsed
        facts = pe_facts(parsed)
    assert facts.machine == machine, facts
    assert all(re.fullmatch(may_need, each, re.IGNORECASE) for each in facts.needs), facts
    assert numbers(facts.oldest) <= numbers(oldest) or oldest == facts.oldest, facts
    assert facts.exports, platform
    assert all(each.startswith("eg_") for each in facts.exports), facts
    for isa in X86 if machine in ("X86_64", "AMD64") else ARM:
        assert isa.encode() + b"\0" in content, f"{platform} lacks {isa}"
    assert path.stat().st_size - sum(models) < MOST_BYTES, f"{path}: {path.stat().st_size} bytes"
    tag = next(line for line in files if line.endswith(".dist-info/WHEEL"))
    assert f"Tag: py3-none-{platform}".encode() in files[tag], files[tag]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    print(f"{platform:24} {path.stat().st_size:7} bytes, library {len(content):7}, system {facts.oldest:5} {digest}")
    own = (tag, tag.replace("WHEEL", "RECORD"))
    return {entry: hashlib.sha256(data).hexdigest() for entry, data in files.items() if entry not in own}


lief.logging.disable()


def main(paths: list[str]) -> None:
    code = [check(Path(path)) for path in sorted(paths)]
    assert all(each == code[0] for each in code), "the wheels differ in more than the library"
    assert any(name.endswith("runtime/__init__.py") or name == "embgemma/__init__.py" for name in code[0]), "no code"


main(sys.argv[1:])
