"""Writes a folder completely or not at all."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Yields a hidden folder beside ``path``; moves it to ``path`` when the block ends well.

    What was written is flushed to the disk before the move. If there is a folder at ``path``
    already, it is replaced then. If the block raises, nothing is left, no folder above it either
    that was made for it, and ``path`` is as it was.

    Raises:
        OSError: If the folder cannot be made, flushed or moved; or if something else is at
            ``path`` than there was at the start, which is never touched.
    """
    before = _identity(path)
    unfinished = path.with_name(f".{path.name}-{token_hex(4)}")
    absent = [folder for folder in path.parents if not folder.exists()]
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        for entry in [*unfinished.rglob("*"), unfinished]:
            _flush(entry)
        _move(unfinished, path, before)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        with suppress(OSError):  # something else is in it by now
            for folder in absent:
                folder.rmdir()
        raise


def _move(unfinished: Path, path: Path, before: tuple[int, int] | None) -> None:
    replaced = unfinished.with_name(f"{unfinished.name}-replaced")
    if before is not None:
        with suppress(FileNotFoundError):  # it was removed meanwhile
            path.rename(replaced)
    try:
        # The old one is looked at under a name that nobody else uses. The system moves a folder
        # over nothing but an empty one.
        if _identity(replaced) not in (None, before) or (before is None and _identity(path)):
            raise FileExistsError(errno.EEXIST, "something else is there by now", str(path))
        unfinished.rename(path)
    except OSError:
        if replaced.exists():
            replaced.rename(path)
        raise
    _flush(path.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
