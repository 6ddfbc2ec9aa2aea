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
import select
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from typing_extensions import Buffer

REPLACED = {
    "…": "...", "–": "-", "—": "-", "−": "-", "×": "x", "·": "*", "±": "+-", "≈": "~", "≤": "<=",
    "≥": ">=", "→": "->", "∅": "{}", "∞": "inf", "²": "^2", "α": "alpha", "β": "beta", "σ": "sigma",
    "τ": "tau", "‖": "||", "∣": "|", "━": "-", "╸": "-", "╺": "-", "•": "*", "’": "'", "“": '"',
    "”": '"', "�": "?", "✓": "ok", "✗": "x",
}  # fmt: skip
"""What stands for the letters of messages and tables where a stream lacks them."""


class _Lasting(io.FileIO):
    """A descriptor to write to; whatever happens there, writing goes on.

    Attributes:
        terminal: Whether it is, or was, a terminal.
        failed: The first error.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.terminal = os.isatty(descriptor)
        self.failed: OSError | None = None

    def write(self, content: "Buffer", /) -> int:
        """Writes some of the content, and says how much; what cannot be written counts as well."""
        while self.failed is None:
            try:
                return os.write(self.fileno(), content)
            except BlockingIOError:  # a terminal or a pipe that does not wait: slower than we are
                select.select([], [self.fileno()], [])
            except OSError as error:
                self.failed = OSError(error.errno, error.strerror, "standard output")
        return memoryview(content).nbytes


def outlast() -> None:
    """Makes the standard streams of this process outlast their readers.

    A stream that was closed at the start leads nowhere: otherwise the next file that is opened
    would get its number, and all that libraries print.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDONLY if descriptor == 0 else os.O_WRONLY)
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    for name in ("stdout", "stderr") if os.name != "nt" else ():  # whose terminal takes no bytes
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__"):  # nobody collects what is printed, as tests do
            setattr(sys, name, _lasting(stream, 1 if name == "stdout" else 2))


def _lasting(stream: TextIO | None, descriptor: int) -> TextIO:
    raw = _Lasting(descriptor)
    if stream is not None:
        with suppress(OSError):
            stream.flush()
    codecs.register_error("mmgen", _replaced)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding="utf-8" if stream is None else stream.encoding,
        errors="mmgen",
        line_buffering=True,
    )


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
    with suppress(OSError, ValueError):
        sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if not isinstance(raw, _Lasting) or raw.failed is None:
        return None
    unread = raw.terminal or raw.failed.errno == errno.EPIPE
    return None if unread else raw.failed
