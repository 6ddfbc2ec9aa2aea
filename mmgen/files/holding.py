"""Folders held by identity (device and inode), so that a moved or replaced one is noticed.

A process holds a folder that it works in for long. Before every write below it (see
:mod:`mmgen.files.atomic`), its name must still lead to it; the write then goes through the
descriptor that was opened at the start. So nothing reaches a folder that took the name, and a
folder that was deleted does not come back.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mmgen.brief import OneLine
from mmgen.errors import RunError, WriteError

LOCK = ".lock"

_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE}
_DESCRIPTORS = os.open in os.supports_dir_fd  # Windows opens no folders

Identity = tuple[int, int]


class LostError(RunError):
    """A folder that was moved, replaced or deleted, or whose lock was, while it was written to.

    Attributes:
        now: Where the folder is now; ``None`` if it was deleted, or the system cannot find it.
    """

    def __init__(self, message: str, now: Path | None) -> None:
        super().__init__(message)
        self.now = now


@dataclass(eq=False, repr=False)
class Folder(OneLine):
    """A folder to work in.

    Attributes:
        path: Its path.
        descriptor: Names in it are resolved from this descriptor; ``None`` if the system opens no
            folders.
        within: The held folder that it is in, if there is one.
    """

    path: Path
    descriptor: int | None
    within: "Held | None" = None

    def at(self, name: str | Path) -> str:
        """Returns a name in it, for a call that takes ``dir_fd``."""
        return str(name if self.descriptor is not None else self.path / name)

    def open(self, name: str, mode: str) -> IO[Any]:
        """Opens a file in it; one of text in UTF-8."""

        def opener(name: str, flags: int) -> int:
            return os.open(name, flags, 0o666, dir_fd=self.descriptor)

        encoding = None if "b" in mode else "utf-8"
        return open(self.at(name), mode, encoding=encoding, opener=opener)


class Held(Folder):
    """A folder that this process holds.

    Attributes:
        names: Its paths at the start: as given, absolute, and without links.
        lock: The identity of the lock in it, if this process has locked it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, _open(path) if _DESCRIPTORS else None, self)
        status = path.stat() if self.descriptor is None else os.fstat(self.descriptor)
        self.identity: Identity = status.st_dev, status.st_ino
        self.names = _names(path)
        self.lock: Identity | None = None
        HELD.append(self)

    def let_go(self) -> None:
        """Stops holding the folder. Further calls, and calls in a child process, do nothing."""
        if self in HELD:
            HELD.remove(self)
            if self.descriptor is not None:
                os.close(self.descriptor)

    def check(self) -> None:
        """Checks that its name still leads to it, and that the lock in it is the one it had.

        Raises:
            LostError: If not.
        """
        # Either name: the working folder may have been renamed, or have been changed.
        found = [_identity(path) for path in (self.names[0], self.names[-1])]
        if self.identity not in found:
            raise self._lost(replaced=any(found))
        if self.lock is not None and self.lock_there() != self.lock:
            raise LostError(
                f"{self.path}: its {LOCK} was deleted or replaced while this process was writing, "
                "and another may write there now. What was written until then is kept",
                self.path,
            )

    def _lost(self, *, replaced: bool) -> LostError:
        now = self._now()
        if now is not None:
            fate, kept = f"was moved to {now}", "is kept there"
        elif self.descriptor is not None and not os.fstat(self.descriptor).st_nlink:
            fate, kept = "was deleted", "went with it"
        else:
            fate, kept = "was moved or deleted", "is where it is now, if anywhere"
        other = "; something else has its name now" if replaced else ""
        return LostError(
            f"{self.path}: {fate} while this process was writing{other}. "
            f"What was written until then {kept}",
            now,
        )

    def _now(self) -> Path | None:
        """Returns where the folder is now, if the system can find it."""
        with suppress(OSError):
            now = Path(f"/proc/self/fd/{self.descriptor}").readlink()
            return now if _identity(now) == self.identity else None
        return None

    def lock_there(self) -> Identity | None:
        """Returns the identity of the lock file that is in it now."""
        return _identity(self.at(LOCK), self.descriptor, follow_links=False)

    def is_called(self, folder: Path) -> bool:
        """Returns whether a path is, or was at the start, one of this folder."""
        return _identity(folder) == self.identity or not {*_names(folder)}.isdisjoint(self.names)


HELD: list[Held] = []
"""The folders that this process holds."""


def _forget_in_child() -> None:
    """Leaves the held folders to the parent; a child that writes has to lock them itself."""
    for held in HELD:
        if held.descriptor is not None:
            os.close(held.descriptor)
    HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)


@contextmanager
def pinned(folder: Path) -> Iterator[None]:
    """Makes every write below a folder check that it is still the same; others may write too.

    Raises:
        RunError: If there is no such folder.
    """
    try:
        held = Held(folder)
    except OSError as error:
        raise RunError(f"{folder}: holds no run ({error.strerror or error})") from None
    try:
        yield
    finally:
        held.let_go()


def check(path: Path) -> None:
    """Checks that the held folder that ``path`` is in, if there is one, is still there.

    Raises:
        LostError: If it is not, or if its lock is not.
    """
    held, _ = _holder(path)
    if held is not None:
        held.check()


def make(folder: Path) -> None:
    """Makes a folder and its parents, unless they exist; but none that is held and gone.

    Raises:
        WriteError: If it cannot be made.
        LostError: If it is in a folder that is held and no longer there.
    """
    try:
        held, below = _holder(folder)
        if held is None:
            folder.mkdir(parents=True, exist_ok=True)
            return
        held.check()
        for part in [*reversed(below.parents), below]:
            with suppress(FileExistsError):
                os.mkdir(held.at(part), dir_fd=held.descriptor)
    except OSError as error:
        raise WriteError(
            f"{folder}: the folder cannot be made: {error.strerror or error}"
        ) from error


@contextmanager
def opened(folder: Path) -> Iterator[Folder]:
    """Opens a folder to work in; one inside a held folder is opened from there.

    Raises:
        OSError: If there is none.
        LostError: If it is in a folder that is held and no longer there.
    """
    held, below = _holder(folder)
    if held is not None:
        held.check()
    if not _DESCRIPTORS:
        yield Folder(folder, None, held)
        return
    descriptor = _open(below, None if held is None else held.descriptor)
    try:
        yield Folder(folder, descriptor, held)
    finally:
        os.close(descriptor)


def _open(folder: Path, at: int | None = None) -> int:
    # A pipe in its place is refused: it would be waited for.
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY, dir_fd=at)


def _names(path: Path) -> tuple[Path, ...]:
    with suppress(OSError):  # the working folder is gone
        return path, Path(os.path.realpath(path)), path.absolute()
    return (path,)


def _holder(path: Path) -> tuple[Held | None, Path]:
    """Returns the held folder that a path is in, and the path from there."""
    for held in reversed(HELD):
        for name in _names(path):
            for start in held.names:
                if name.is_relative_to(start):
                    return held, name.relative_to(start)
    return None, path


def _identity(
    path: str | Path, at: int | None = None, *, follow_links: bool = True
) -> Identity | None:
    try:
        status = os.stat(path, dir_fd=at, follow_symlinks=follow_links)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise
    return status.st_dev, status.st_ino
