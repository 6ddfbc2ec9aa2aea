"""Writes files whole or not at all, into folders whose identity is checked first."""

import errno
import os
import shutil
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from mmgen.errors import WriteError
from mmgen.files.holding import Folder, make, opened


def check_writable(path: Path) -> None:
    """Checks that a file can be written, before the work that it is for. Makes nothing.

    Raises:
        WriteError: If not: it is a folder or a device, its folder is barred or cannot be made, or
            its name is too long.
    """
    try:
        _check_file(path)
        # The nearest folder that is there, and the names that are to be made in it.
        folder, names = path.absolute().parent, [_temporary(path.name)]
        while not folder.exists():
            folder, names = folder.parent, [*names, folder.name]
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        for name in names:
            with suppress(FileNotFoundError):
                (folder / name).lstat()
    except OSError as error:
        raise WriteError(f"{path}: cannot be written: {error.strerror or error}") from error


def deliver(path: Path, content: bytes | str) -> None:
    """Writes a file where a user asked for it, as :func:`write` does, and makes its folder.

    Raises:
        WriteError: If it cannot be written.
    """
    make(path.parent)
    write(path, content)


def _check_file(path: Path) -> None:
    """Raises unless a path is free or a regular file: no folder, and above all no ``/dev/null``."""
    try:
        if not path.name or path.is_dir():
            raise WriteError(f"{path}: is a folder; name a file in it")
        if path.exists() and not path.is_file():
            raise WriteError(f"{path}: is no file that can be replaced; name another")
    except OSError as error:
        raise WriteError(f"{path}: cannot be written: {error.strerror or error}") from error


def _temporary(name: str) -> str:
    # Each process writes beside in a file of its own: two reports of one run do not mix.
    return f".{name}.{os.getpid()}.tmp"


def write(path: Path, content: bytes | str | Iterable[bytes | memoryview]) -> None:
    """Writes a file whole or not at all: beside its name, synced, then renamed.

    Args:
        path: The file.
        content: Its content; of several parts, no more than one is held at a time.

    Raises:
        WriteError: If it cannot be written; what was there under the name is still there.
        LostError: If it is in a folder that is held, see :mod:`mmgen.files.holding`, and no longer
            there.
    """
    _check_file(path)
    try:
        with opened(path.parent) as folder:
            _write(folder, path.name, content)
    except OSError as error:
        cause = error.strerror or str(error)
        raise WriteError(f"{path}: cannot be written: {cause}. Nothing was changed") from error


def remove(path: Path) -> None:
    """Removes a file or a folder with all that is in it, if it is there.

    Raises:
        WriteError: If it cannot be removed.
        LostError: If it is in a folder that is held and no longer there.
    """
    try:
        with opened(path.parent) as folder:
            name, at = folder.at(path.name), folder.descriptor
            try:
                status = os.stat(name, dir_fd=at, follow_symlinks=False)
            except FileNotFoundError:
                return
            if stat.S_ISDIR(status.st_mode):
                shutil.rmtree(name, dir_fd=at)
            else:
                os.unlink(name, dir_fd=at)
    except OSError as error:
        raise WriteError(f"{path}: cannot be removed: {error.strerror or error}") from error


def _write(folder: Folder, name: str, content: bytes | str | Iterable[bytes | memoryview]) -> None:
    temporary = _temporary(name)
    beside, final = folder.at(temporary), folder.at(name)
    at = folder.descriptor
    if isinstance(content, str):
        # Half characters, of file names that are no UTF-8, become question marks.
        content = content.encode(errors="replace")
    try:
        with folder.open(temporary, "wb") as file:
            # writelines() lets go of each part before it asks for the next, which a loop would not.
            file.writelines([content] if isinstance(content, bytes) else content)
            file.flush()
            os.fsync(file.fileno())
        if folder.within is not None:
            folder.within.check()  # once more, as late as can be: the content may have taken long
        os.replace(beside, final, src_dir_fd=at, dst_dir_fd=at)
        if at is not None:
            os.fsync(at)
    except BaseException:
        with suppress(OSError):
            os.unlink(beside, dir_fd=at)
        raise
