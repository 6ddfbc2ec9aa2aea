"""Reads a tree with one folder per class as a table of files and folders."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from mmgen.data.tables.table import BadRow, Row, Table
from mmgen.errors import DataError

FILE, FOLDER, SPLIT = "file", "folder", "split"
"""The headings of the table."""

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""The names of split folders, in lower case, and the splits they stand for."""


def read_tree(path: Path) -> Table:
    """Lists the files of a tree ``DIR/CLASS/...`` or ``DIR/SPLIT/CLASS/...``.

    The top folders are splits if all of them have names of splits and hold folders. Hidden files
    and folders are left out.

    Raises:
        DataError: If it is no folder, or holds no folders with files.
    """
    if not path.is_dir():
        raise DataError(f"{path} is no folder; for a CSV file, see `mmgen data table`")
    try:
        folders = _folders(path)
        split = bool(folders) and all(
            folder.name.lower() in SPLIT_WORDS and _folders(folder) for folder in folders
        )
        tops = folders if split else [path]
        rows = [
            Row(file, (file, folder.name, *([top.name] if split else [])))
            for top in tops
            for folder in _folders(top)
            for file in _files(folder, path)
        ]
        loose = [_file(file, path) for top in {path, *tops} for file in _visible(top)]
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    for row in rows:
        if re.search("[\ud800-\udfff]", row.place):  # bytes that are no UTF-8
            raise DataError(f"{path}: {row.place!r} has letters that cannot be shown; rename it")
    if not rows:
        raise DataError(
            f"{path} holds no folders with files in them: a tree is DIR/CLASS/picture.png, or "
            "DIR/train/CLASS/picture.png"
        )
    cause = "it lies in no folder that names its class"
    bad = tuple(BadRow(file, "", cause, "no class folder") for file in sorted(filter(None, loose)))
    return Table(path, path, (FILE, FOLDER, *([SPLIT] if split else [])), tuple(rows), bad)


def _visible(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if not each.name.startswith("."))


def _folders(folder: Path) -> list[Path]:
    return [each for each in _visible(folder) if each.is_dir()]


def _file(file: Path, root: Path) -> str:
    return "" if file.is_dir() else str(file.relative_to(root))


def _files(folder: Path, root: Path) -> Iterator[str]:
    for where, folders, files in os.walk(folder, onerror=_stop):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if not name.startswith("."):
                yield str(Path(where, name).relative_to(root))


def _stop(error: OSError) -> None:
    raise error
