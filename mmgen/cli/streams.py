"""Standard streams that outlast their readers, and take every letter.

A terminal that was closed, a pipe that nobody reads any more, a full disk: none of them ends a
command whose work is worth more than its words. What cannot be shown is dropped; that results could
not be written is said at the end, see :func:`failure`. A stream that knows few letters gets others
for those that it lacks.
"""

import codecs
import errno
import io
import os
import sys
from typing import BinaryIO

REPLACED = {
    "…": "...", "–": "-", "—": "-", "−": "-", "×": "x", "·": "*", "±": "+-", "≈": "~", "≤": "<=",
    "≥": ">=", "→": "->", "∅": "{}", "∞": "inf", "²": "^2", "α": "alpha", "β": "beta", "σ": "sigma",
    "τ": "tau", "‖": "||", "∣": "|", "━": "-", "╸": "-", "╺": "-", "•": "*", "’": "'", "“": '"',
    "”": '"', "�": "?", "✓": "ok", "✗": "x",
}  # fmt: skip
"""What stands for the letters of messages and tables where a stream lacks them."""


class _Lasting(io.TextIOWrapper):
    """A stream of text to write to; whatever happens where it leads, writing goes on.

    Args:
        buffer: Where the bytes go.
        encoding: Which letters there are.

    Attributes:
        terminal: Whether it leads, or led, to a terminal.
        failed: The first error; what is written after it is dropped.
    """

    def __init__(self, buffer: BinaryIO, encoding: str) -> None:
        super().__init__(buffer, encoding=encoding, errors="mmgen", line_buffering=True)
        self.terminal = buffer.isatty()
        self.failed: OSError | None = None

    # Not in a raw stream below the buffer: a Ctrl-C that came between the system's write and the
    # return from there would have it written again.
    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._fail(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        self.failed = self.failed or OSError(error.errno, error.strerror, "standard output")
        # What waits in the buffer, or comes from elsewhere in this process, leads nowhere from now.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)


def outlast() -> None:
    """Makes the standard streams of this process outlast their readers.

    A stream that was closed at the start leads nowhere: otherwise the next file that is opened
    would get its number, and all that libraries print.
    """
    codecs.register_error("mmgen", _replaced)
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if descriptor == 0 else os.O_WRONLY)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is not getattr(sys, f"__{name}__"):
            continue  # somebody collects what is printed, as tests do
        if stream is None:
            lasting = _Lasting(os.fdopen(descriptor, "wb", closefd=False), "utf-8")
        else:
            lasting = _Lasting(stream.buffer, stream.encoding)
        if hasattr(os, "set_blocking"):  # one that does not wait for its reader loses words
            os.set_blocking(descriptor, True)
        setattr(sys, name, lasting)


def _replaced(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    letter = error.object[error.start]
    if 0x2800 <= ord(letter) <= 0x28FF:  # a spinner
        return "*", error.start + 1
    if letter in REPLACED:
        return REPLACED[letter], error.start + 1
    return letter.encode("ascii", "backslashreplace").decode(), error.start + 1


def failure() -> OSError | None:
    """Returns why results could not be written, if they could not and somebody waits for them."""
    stream = sys.stdout
    if not isinstance(stream, _Lasting):
        return None
    stream.flush()
    if stream.failed is None or stream.terminal or stream.failed.errno == errno.EPIPE:
        return None
    return stream.failed
