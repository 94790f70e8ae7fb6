"""Writes an XCFramework of the static libraries for macOS: a folder, which Xcode and Swift packages take as it is.

xcframework.py FOLDER BUILD …   Each BUILD is a folder in build/cross of one processor.

Apple's tools would join the processors of a system in one library; that is done here, since it is a header and padding
(mach-o/fat.h, 32-bit entries).
"""

from __future__ import annotations

import plistlib
import shutil
import struct
import sys
from pathlib import Path

FAT_MAGIC = 0xCAFEBABE
CPUS = {"x86_64": (0x01000007, 3), "aarch64": (0x0100000C, 0)}  # type and subtype: mach/machine.h
NAMES = {"x86_64": "x86_64", "aarch64": "arm64"}
ALIGNMENT = 14  # a power of two: pages of 16 KiB
LIBRARY = "libembgemma.a"
KERNELS = Path(__file__).resolve().parents[2] / "kernels"
MODULE = 'module CEmbgemma {\n    header "embgemma.h"\n    export *\n}\n'


def universal(libraries: dict[str, bytes]) -> bytes:
    """One file with the library of each processor."""
    header = struct.pack(">II", FAT_MAGIC, len(libraries))
    at = 1 << ALIGNMENT
    content = b""
    for processor, library in libraries.items():
        header += struct.pack(">5I", *CPUS[processor], at + len(content), len(library), ALIGNMENT)
        content += library + bytes(-len(library) % at)
    return header.ljust(at, b"\0") + content


def main(folder: Path, builds: list[Path]) -> None:
    libraries = {build.name.split("-")[0]: (build / LIBRARY).read_bytes() for build in sorted(builds)}
    identifier = "macos-" + "_".join(sorted(NAMES[processor] for processor in libraries))
    headers = folder / identifier / "Headers"
    headers.mkdir(parents=True)
    shutil.copyfile(KERNELS / "embgemma.h", headers / "embgemma.h")
    (headers / "module.modulemap").write_text(MODULE)
    (folder / identifier / LIBRARY).write_bytes(universal(libraries))
    library = {
        "BinaryPath": LIBRARY,
        "HeadersPath": "Headers",
        "LibraryIdentifier": identifier,
        "LibraryPath": LIBRARY,
        "SupportedArchitectures": sorted(NAMES[processor] for processor in libraries),
        "SupportedPlatform": "macos",
    }
    info = {
        "AvailableLibraries": [library],
        "CFBundlePackageType": "XFWK",
        "XCFrameworkFormatVersion": "1.0",
    }
    (folder / "Info.plist").write_bytes(plistlib.dumps(info))


main(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
