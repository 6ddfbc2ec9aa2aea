"""Files that are whole or not there, and folders that one process at a time may write to."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from mmgen.errors import RunError, WriteError

LOCK = ".lock"
WRITER = ".writer"


def check_writable(path: Path) -> None:
    """Checks that a file can be written, before the work that it is for. Makes nothing.

    Raises:
        WriteError: If not: it is a folder or a device, its folder is barred or cannot be made, or
            its name is too long.
    """
    try:
        _check_file(path)
        # The nearest folder that is there, and the names that are to be made in it.
        folder, names = path.absolute().parent, [_beside(path).name]
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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        cause = error.strerror or error
        raise WriteError(f"{path}: its folder cannot be made: {cause}") from error
    write(path, content)


def _check_file(path: Path) -> None:
    """Lets nothing but a file be replaced: not a folder, and above all not ``/dev/null``."""
    try:
        if not path.name or path.is_dir():
            raise WriteError(f"{path}: is a folder; name a file in it")
        if path.exists() and not path.is_file():
            raise WriteError(f"{path}: is no file that can be replaced; name another")
    except OSError as error:
        raise WriteError(f"{path}: cannot be written: {error.strerror or error}") from error


def _beside(path: Path) -> Path:
    # Each process writes beside in a file of its own: two reports of one run do not mix.
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def write(path: Path, content: bytes | str) -> None:
    """Writes a file whole or not at all: beside its name, synced, then renamed.

    Raises:
        WriteError: If it cannot be written; what was there under the name is still there.
    """
    _check_file(path)
    beside = _beside(path)
    try:
        with beside.open("wb") as file:
            # Half characters, of file names that are no UTF-8, become question marks.
            encoded = content if isinstance(content, bytes) else content.encode(errors="replace")
            file.write(encoded)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        _sync(path.parent)
    except OSError as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        cause = error.strerror or str(error)
        raise WriteError(f"{path}: cannot be written: {cause}. Nothing was changed") from error


def _sync(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Makes this process the only one that writes to a folder, which is made if it is not there.

    The system lets go of the lock when the process ends, however it ends. Within a process the
    same thread may take it again.

    Raises:
        RunError: If another process is writing there; says which.
        WriteError: If the folder cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # On one real path, whatever it is called: a link leads to the same run.
        lock = FileLock(folder.resolve() / LOCK, timeout=0, is_singleton=True)
        lock.acquire()
    except Timeout:
        raise RunError(
            f"{folder}: {_writer(folder)} is writing to this run. Wait until it is done, stop it, "
            "or choose another --out"
        ) from None
    except OSError as error:
        raise WriteError(f"{folder}: cannot be written to: {error.strerror or error}") from error
    try:
        if lock.lock_counter == 1:
            _clean(folder)
            started = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
            who = f"process {os.getpid()} on {socket.gethostname()}, since {started},"
            with suppress(OSError):  # a courtesy, even to a full disk
                (folder / WRITER).write_text(who, encoding="utf-8")
        yield
    finally:
        if lock.lock_counter == 1:
            with suppress(OSError):
                (folder / WRITER).unlink(missing_ok=True)
        lock.release()


def _writer(folder: Path) -> str:
    with suppress(OSError, UnicodeDecodeError):
        return (folder / WRITER).read_text(encoding="utf-8") or "another process"
    return "another process"


def _clean(folder: Path) -> None:
    """Removes what a killed process left beside the names that it was writing."""
    for file in folder.rglob(".*.tmp"):
        with suppress(OSError):
            file.unlink()
