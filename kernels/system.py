"""What differs between operating systems for Python code; the folder platform/ is the same for C."""

from __future__ import annotations

import mmap
import os
import sys
from pathlib import Path
from typing import BinaryIO

from .errors import InputError

LIBRARY_NAME = {"darwin": "libembgemma.dylib", "win32": "embgemma.dll"}.get(sys.platform, "libembgemma.so")


def utf8_path(path: Path, library: str) -> str:
    """The path for a library that takes names in UTF-8 alone, whatever the locale is; raises InputError for others."""
    try:
        return os.fsencode(path.absolute()).decode()
    except UnicodeDecodeError:
        raise InputError(f"{path}: {library} opens no path that is not UTF-8; rename what is not") from None


if sys.platform == "win32":
    import ctypes
    import msvcrt
    import time
    from ctypes import wintypes

    _GENERIC_READ, _SHARE_ALL, _OPEN_EXISTING, _NORMAL = 0x80000000, 7, 3, 0x80
    _LOOK_AGAIN = 0.2  # seconds
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

    def take_lock(file: BinaryIO, *, wait: bool) -> bool:
        """Locks a file until it is closed, for one of all who open it; False if another has the lock."""
        while not (taken := _try_lock(file)) and wait:
            time.sleep(_LOOK_AGAIN)
        return taken

    def _try_lock(file: BinaryIO) -> bool:
        file.seek(0)
        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:
    import fcntl

    def open_shared(name: str, flags: int) -> int:
        """Opens a file for reading, as an opener of open(): a pipe does not make it wait."""
        return os.open(name, flags | os.O_NONBLOCK)

    def forget(mapping: mmap.mmap) -> None:
        """Gives back the memory of a mapping, which is read again when it is next used."""
        mapping.madvise(mmap.MADV_DONTNEED)

    def replace(made: Path, path: Path) -> None:
        """Gives a file the name of another, which stays as it is for those that have it open."""
        made.replace(path)

    def take_lock(file: BinaryIO, *, wait: bool) -> bool:
        """Locks a file until it is closed, for one of all who open it; False if another has the lock.

        On a file system without locks everybody has it.
        """
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        except OSError:
            pass
        return True
