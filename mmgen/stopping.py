r"""Signals that stop a command: Ctrl-C, termination, a terminal that was closed.

Ctrl-\ ends at once, and Ctrl-Z halts until ``fg``; the system does both, and neither leaves half
a file.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

CODE = 130
"""The exit code of a command that was stopped."""

_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]

Handler = Callable[[int, FrameType | None], object]


def handle(handler: Handler) -> Mapping[int, Any]:
    """Has every signal that stops call a handler, and returns the handlers before.

    A signal that was ignored when the process started stays ignored: nohup ignores the terminal's
    end, and a shell's script ignores Ctrl-C for what it runs in the background. A termination is
    meant for this process, always.
    """
    if threading.current_thread() is not threading.main_thread():  # where no handler can be set
        return {}
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    ignored = [n for n, h in before.items() if h in (signal.SIG_IGN, None) and n != signal.SIGTERM]
    for number in ignored:
        del before[number]
    for number in before:
        signal.signal(number, handler)
    return before


@contextmanager
def handled(handler: Handler) -> Iterator[None]:
    """Has every signal that stops call a handler for a while, see :func:`handle`."""
    before = handle(handler)
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def leave(_number: int, _frame: FrameType | None) -> None:
    """Ends the process at once and without a word: nothing was begun that could be left half."""
    os._exit(CODE)


def heedless(_number: int, _frame: FrameType | None) -> None:
    """Does nothing: the process is about to end, and says how it ends."""


@contextmanager
def shielded() -> Iterator[None]:
    """Has processes that are started meanwhile never see Ctrl-C and the terminal's end.

    These reach all processes of a terminal; the first one decides, and terminates the others.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    barred = set(_SIGNALS) - {signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, barred)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
