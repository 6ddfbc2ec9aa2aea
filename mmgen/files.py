"""Files that are whole or not there, and folders that one process at a time may write to."""

import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from filelock import FileLock, Timeout

from mmgen.errors import RunError, WriteError

LOCK = ".lock"
WRITER = ".writer"


def write(path: Path, content: bytes | str | Iterable[bytes | memoryview]) -> None:
    """Writes a file whole or not at all: beside its name, synced, then renamed.

    Args:
        path: The file.
        content: What is in it; of several parts, no more than one is held at a time.

    Raises:
        WriteError: If it cannot be written; what was there under the name is still there.
    """
    # Each process writes beside in a file of its own: two reports of one run do not mix.
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with beside.open("wb") as file:
            if isinstance(content, str):
                content = content.encode()
            # writelines() lets go of each part before it asks for the next, which a loop would not.
            file.writelines([content] if isinstance(content, bytes) else content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        _sync(path.parent)
    except BaseException as error:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
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
