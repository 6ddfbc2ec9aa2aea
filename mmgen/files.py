"""Files that are whole or not there, in folders that are still what they were."""

import os
import shutil
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from mmgen.errors import WriteError
from mmgen.holding import Folder, opened


def write(path: Path, content: bytes | str | Iterable[bytes | memoryview]) -> None:
    """Writes a file whole or not at all: beside its name, synced, then renamed.

    Args:
        path: The file.
        content: What is in it; of several parts, no more than one is held at a time.

    Raises:
        WriteError: If it cannot be written; what was there under the name is still there.
        LostError: If it is in a folder that is held, see :mod:`mmgen.holding`, and no longer there.
    """
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
    # Each process writes beside in a file of its own: two reports of one run do not mix.
    temporary = f".{name}.{os.getpid()}.tmp"
    beside, final = folder.at(temporary), folder.at(name)
    at = folder.descriptor
    if isinstance(content, str):
        content = content.encode()
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
