"""Reads files that may be damaged or hostile: never waits, limits sizes, checks, runs nothing.

A run or a data set may be from someone else, or from a disk that failed. What is read through a
:class:`Reader` is a regular file (opening a pipe would wait for ever), no larger than it may be,
and holds values that the program can hold. Anything else raises one error with the file, the
fault and a remedy.
"""

import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from mmgen.brief import OneLine
from mmgen.errors import MmgenError
from mmgen.files.documents import KEYS, first_of, from_json, from_toml
from mmgen.formatting import size

MIB = 2**20

DOCUMENT = 16 * MIB
"""The most bytes of a JSON or TOML document: a configuration takes a few KiB."""

LINES = 512 * MIB
"""The most bytes of a file of JSON lines: metrics of thousands of epochs and hundreds of terms."""

HEADER = 16 * MIB
"""The most bytes of a safetensors header: some 100 per tensor."""

_SORTS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, repr=False)
class Reader(OneLine):
    """How files of one sort are read.

    Attributes:
        error: The class of error that is raised if one cannot be read.
        remedy: What the user can do then, as the end of a sentence; may be empty.
    """

    error: type[MmgenError]
    remedy: str = ""

    def wrong(self, where: object, cause: str) -> MmgenError:
        """Returns an error with the file, the fault and the remedy."""
        return self.error(f"{where}: {cause}" + (f"; {self.remedy}" if self.remedy else ""))

    def content(self, path: Path, most: int = DOCUMENT) -> bytes:
        """Reads a whole file of at most ``most`` bytes.

        Raises:
            MmgenError: Of the class :attr:`error`, as all methods: if it is not there, no regular
                file, too large, or cannot be read.
        """
        with self.opened(path, most) as file:
            try:
                content: bytes = file.read(most + 1)  # it may have grown since it was looked at
            except OSError as error:
                raise self.wrong(path, f"cannot be read: {error.strerror or error}") from None
        if len(content) > most:
            raise self.wrong(path, f"is larger than {size(most)}")
        return content

    def text(self, path: Path, most: int = DOCUMENT, errors: str = "strict") -> str:
        """Reads a text in UTF-8; a byte order mark, as Windows writes it, is no part of it."""
        try:
            return self.content(path, most).decode("utf-8-sig", errors)
        except UnicodeDecodeError as error:
            cause = f"is not text in UTF-8: {error.reason} at byte {error.start:,}"
            raise self.wrong(path, cause) from None

    def json(self, path: Path, *, finite: bool = True) -> dict[str, Any]:
        """Reads a JSON object.

        Args:
            path: The file.
            finite: Refuses NaN and Infinity, which Python's JSON has beyond the standard.
        """
        return self.json_object(self.text(path), path, finite=finite)

    def json_object(
        self, text: str, where: object, *, finite: bool = True, keys: int = KEYS
    ) -> dict[str, Any]:
        """Reads a JSON object from a text; ``where`` names it in messages."""
        try:
            return from_json(text, finite=finite, keys=keys)
        except ValueError as error:
            raise self.wrong(where, str(error)) from None

    def json_lines(self, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields the place and the JSON object of each line; NaN and Infinity may be in it."""
        lines = self.text(path, LINES).split("\n")
        for number, line in enumerate(lines[:-1] if not lines[-1] else lines, 1):
            where = f"{path}, line {number:,}"
            yield where, self.json_object(line, where, finite=False)

    def toml(self, path: Path) -> dict[str, Any]:
        """Reads a TOML document."""
        try:
            return from_toml(self.text(path))
        except ValueError as error:
            raise self.wrong(path, str(error)) from None

    def check(self, model: type[M], values: Mapping[str, Any], where: object) -> M:
        """Checks values against what they must be.

        Raises:
            MmgenError: If they are wrong. The message names the first key, and counts the others.
        """
        try:
            return model.model_validate(values)
        except ValidationError as error:
            raise self.wrong(where, first_of(error)) from None

    def descriptor(self, path: Path, most: float = math.inf) -> int:
        """Opens a regular file, as :func:`open_regular` does; the caller closes it."""
        try:
            return open_regular(path, most)
        except ValueError as error:
            raise self.wrong(path, str(error)) from None

    @contextmanager
    def opened(self, path: Path, most: float = math.inf) -> Iterator[Any]:
        """Opens a regular file of at most ``most`` bytes to read."""
        with os.fdopen(self.descriptor(path, most), "rb") as file:
            yield file


def open_regular(path: Path, most: float = math.inf) -> int:
    """Opens a regular file to read, without waiting for anyone who writes to it.

    Args:
        path: The file.
        most: The most bytes that it may have.

    Returns:
        The descriptor, which the caller closes.

    Raises:
        ValueError: If it is not there, no regular file, too large, or cannot be read.
    """
    # NONBLOCK: a pipe that nobody writes to opens at once; its sort is then seen on what was
    # opened, which nobody can exchange any more. NOCTTY: a terminal stays a stranger.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
    try:
        descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0))
    except (FileNotFoundError, NotADirectoryError):
        link = ", only a link to it" if path.is_symlink() else ""
        raise ValueError(f"there is no such file{link}") from None
    except (OSError, ValueError) as error:  # ValueError: a name that holds a zero byte
        cause = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"cannot be read: {cause}") from None
    status, cause = os.fstat(descriptor), ""
    if not stat.S_ISREG(status.st_mode):
        cause = f"is {_SORTS.get(stat.S_IFMT(status.st_mode), 'something else')}, not a file"
    elif status.st_size > most:
        cause = f"is {size(status.st_size)}, more than {size(most)}"
    if cause:
        os.close(descriptor)
        raise ValueError(cause)
    return descriptor


def exists(path: Path) -> bool:
    """Returns whether a path exists, even if it cannot be looked at."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        return True
    return True
