"""Parquet files: whether they can be read here, and a file object that hands over its bytes."""

from pathlib import Path
from typing import Any

from mmgen.errors import ConfigError

SUFFIXES = (".parquet", ".pq")


def is_parquet(path: Path) -> bool:
    """Tells whether a file is Parquet, by its suffix."""
    return path.suffix.lower() in SUFFIXES


def check_installed(path: Path) -> None:
    """Checks that pyarrow is there.

    Raises:
        ConfigError: If not; says how to install it.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise ConfigError(
            f'{path}: Parquet needs pyarrow: pip install "mmgen-vae[parquet]"; or use .csv'
        ) from None


class Sink:
    """A file to write to, whose bytes are taken from it part by part."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._written, self.closed = 0, False

    def write(self, content: Any) -> int:
        """Takes some bytes."""
        part = bytes(content)
        self._parts.append(part)
        self._written += len(part)
        return len(part)

    def tell(self) -> int:
        """Returns how many bytes were written."""
        return self._written

    def flush(self) -> None:
        """Does nothing: bytes are taken when they are asked for."""

    def close(self) -> None:
        """Does nothing but note it."""
        self.closed = True

    def writable(self) -> bool:
        """It is."""
        return True

    def readable(self) -> bool:
        """It is not."""
        return False

    def seekable(self) -> bool:
        """It is not."""
        return False

    def taken(self) -> bytes:
        """Returns what was written since it was asked last."""
        parts, self._parts = self._parts, []
        return b"".join(parts)
