"""Locks folders, so that one process at a time writes to them."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from threading import get_ident

from filelock import FileLock, Timeout

from mmgen.errors import RunError, WriteError
from mmgen.files.holding import HELD, LOCK, Held, make
from mmgen.files.reading import Reader

WRITER = ".writer"


class Locked(Held):
    """A folder that this process alone writes to.

    It is locked twice: the folder itself, whose lock survives renaming and deleted files, and a
    file in it, since network file systems can lock only files.

    Raises:
        BlockingIOError: If another process writes there.
        OSError: If it cannot be opened or written to.
    """

    def __init__(self, path: Path) -> None:
        self.thread = get_ident()
        self.depth = 0
        self.who = ""
        # On one real path, whatever it is called: a link leads to the same run.
        self.file = FileLock(path.resolve() / LOCK, timeout=0)
        super().__init__(path)
        try:
            self._lock_folder()
            self.file.acquire()
            self.lock = self.lock_there()
        except Timeout:
            self.let_go()
            raise BlockingIOError from None
        except BaseException:
            self.let_go()
            raise
        started = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
        self.who = f"process {os.getpid()} on {socket.gethostname()}, since {started},"
        with suppress(OSError), self.open(WRITER, "w") as file:  # a courtesy, even to a full disk
            file.write(self.who)

    def _lock_folder(self) -> None:
        if self.descriptor is None:
            return
        import fcntl

        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError:
            return  # the file system locks no folders

    def let_go(self) -> None:
        """Unlocks the folder for other processes."""
        if self not in HELD:  # in a child, which holds nothing of its parent's
            return
        if self.who:
            # Not if it is of a process that found no lock here, after this one's was deleted.
            with suppress(OSError, UnicodeDecodeError), self.open(WRITER, "r") as file:
                if file.read() == self.who:
                    os.unlink(self.at(WRITER), dir_fd=self.descriptor)
        self.file.release()
        super().let_go()


@contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Makes this process the only one that writes to a folder, which is made if necessary.

    Every write below it checks that folder and lock are still its own, see
    :mod:`mmgen.files.holding`.
    The system frees both when the process ends, however it ends. Within a process the same
    thread may take it again.

    Raises:
        RunError: If another process is writing there. The message names it.
        LostError: If this thread holds it already, and it is no longer there.
        WriteError: If the folder cannot be made or written to.
    """
    locked = _of_this_thread(folder) or _lock(folder)
    locked.check()
    locked.depth += 1
    try:
        yield
    finally:
        locked.depth -= 1
        if not locked.depth:
            locked.let_go()


def _of_this_thread(folder: Path) -> Locked | None:
    for held in HELD:
        if isinstance(held, Locked) and held.thread == get_ident() and held.is_called(folder):
            return held
    return None


def _lock(folder: Path) -> Locked:
    make(folder)
    try:
        locked = Locked(folder)
    except BlockingIOError:
        raise RunError(
            f"{folder}: {_writer(folder)} is writing to this run. Wait until it is done, stop it, "
            "or choose another --out"
        ) from None
    except OSError as error:
        raise WriteError(f"{folder}: cannot be written to: {error.strerror or error}") from error
    _clean(folder)
    return locked


def _writer(folder: Path) -> str:
    with suppress(RunError):
        return Reader(RunError).text(folder / WRITER, 1000) or "another process"
    return "another process"


def _clean(folder: Path) -> None:
    """Removes the partial files of a process that was killed while it was writing."""
    for path, folders, names in os.walk(folder):
        # A folder in it may be a run that another process writes to.
        folders[:] = [name for name in folders if not Path(path, name, LOCK).exists()]
        for name in names:
            if name.startswith(".") and name.endswith(".tmp"):
                with suppress(OSError):
                    Path(path, name).unlink()
