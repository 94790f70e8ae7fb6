"""What differs between operating systems for Python code; the folder platform/ is the same for C."""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path

LIBRARY_NAME = {"darwin": "libembgemma.dylib", "win32": "embgemma.dll"}.get(sys.platform, "libembgemma.so")

if sys.platform == "win32":
    import ctypes
    import msvcrt
    from ctypes import wintypes

    _GENERIC_READ, _SHARE_ALL, _OPEN_EXISTING, _NORMAL = 0x80000000, 7, 3, 0x80
    _create_file = ctypes.WinDLL("kernel32", use_last_error=True).CreateFileW
    _create_file.argtypes = [wintypes.LPCWSTR, *[wintypes.DWORD] * 2, wintypes.LPVOID, *[wintypes.DWORD] * 2]
    _create_file.argtypes += [wintypes.HANDLE]
    _create_file.restype = wintypes.HANDLE

    def open_shared(name: str, _flags: int) -> int:
        """Opens a file for reading, as an opener of open(): others may rename it while it is open or mapped."""
        handle = _create_file(os.fspath(name), _GENERIC_READ, _SHARE_ALL, None, _OPEN_EXISTING, _NORMAL, None)
        if handle == wintypes.HANDLE(-1).value:
            error = ctypes.WinError(ctypes.get_last_error())
            error.filename = os.fspath(name)
            raise error
        return msvcrt.open_osfhandle(handle, os.O_RDONLY | os.O_BINARY)

    def forget(_mapping: mmap.mmap) -> None:
        """Gives back the memory of a mapping: Python cannot on Windows."""

    def replace(made: Path, path: Path) -> None:
        """Gives a file the name of another, which is moved to `made` and ".old" if it is open or mapped."""
        try:
            made.replace(path)
        except PermissionError:
            path.rename(f"{made}.old")
            made.rename(path)

else:

    def open_shared(name: str, flags: int) -> int:
        """Opens a file for reading, as an opener of open(): a pipe does not make it wait."""
        return os.open(name, flags | os.O_NONBLOCK)

    def forget(mapping: mmap.mmap) -> None:
        """Gives back the memory of a mapping, which is read again when it is next used."""
        mapping.madvise(mmap.MADV_DONTNEED)

    def replace(made: Path, path: Path) -> None:
        """Gives a file the name of another, which stays as it is for those that have it open."""
        made.replace(path)
