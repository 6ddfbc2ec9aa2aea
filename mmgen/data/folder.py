"""A folder that appears under its name complete, or not at all."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """Lends a hidden folder beside ``path``; moves it to ``path`` when the block ends well.

    What was written is flushed to the disk before the move. If there is a folder at ``path``
    already, it is replaced then. If the block raises, nothing is left and ``path`` is as it was.

    Raises:
        OSError: If the folder cannot be made, flushed or moved.
    """
    unfinished = path.with_name(f".{path.name}-{token_hex(4)}")
    try:
        unfinished.mkdir(parents=True)
        yield unfinished
        for entry in [*unfinished.rglob("*"), unfinished]:
            _flush(entry)
        _move(unfinished, path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _move(unfinished: Path, path: Path) -> None:
    replaced = unfinished.with_name(f"{unfinished.name}-replaced")
    if path.exists():
        path.rename(replaced)
    try:
        unfinished.rename(path)
    except OSError:
        if replaced.exists():
            replaced.rename(path)
        raise
    _flush(path.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
