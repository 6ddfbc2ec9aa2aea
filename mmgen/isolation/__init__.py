"""Runs a plugin's code, and restores the state of the process that it changed.

A plugin is code of others in the same process: it may set torch's default dtype, close standard
output, take over Ctrl-C or raise what no ``except Exception`` catches. :func:`attempt` calls it,
restores every one of :data:`SETTINGS`, and returns the outcome.

What cannot be undone: ``os._exit``, a crash in machine code, threads, ``atexit`` functions, and
what is patched inside other modules.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mmgen.brief import OneLine
from mmgen.errors import listed
from mmgen.isolation.process import Change, signals_kept, streams_kept
from mmgen.isolation.settings import SETTINGS, Setting, loaded

__all__ = ["SETTINGS", "Change", "Outcome", "Setting", "attempt", "kept"]

T = TypeVar("T")


@dataclass(frozen=True, repr=False)
class Outcome(OneLine, Generic[T]):
    """The outcome of a call: a value, or else an error; and what it changed.

    Attributes:
        value: What it returned; ``None`` if it raised.
        error: What it raised, if it did.
        changes: The settings that it changed.
    """

    value: T | None
    error: BaseException | None
    changes: tuple[Change, ...]


def attempt(call: Callable[[], T]) -> Outcome[T]:
    """Calls a function that may raise anything and change anything.

    What it prints goes to standard error, where it is no part of a result.

    Raises:
        BaseException: Only what a signal's handler raises: Ctrl-C stops mmgen whatever the code
            does, but a ``KeyboardInterrupt`` of its own is an error like any other.
    """
    changes: list[Change] = []
    stopped: list[BaseException] = []
    value, error = None, None
    with kept(changes), streams_kept(changes), signals_kept(changes, stopped):
        try:
            value = call()
        except BaseException as raised:
            error = raised
    if stopped:
        raise stopped[0]
    return Outcome(value, error, tuple(changes))


@contextmanager
def kept(changes: list[Change], *, numbers: bool = True) -> Iterator[None]:
    """Puts every one of :data:`SETTINGS` back, and adds what was changed to ``changes``.

    Args:
        changes: The list to add to.
        numbers: Whether the state of random numbers is put back, too.
    """
    before = [
        (setting, value)
        for setting in SETTINGS
        if loaded(setting.library)
        and (numbers or not setting.numbers)
        and (value := _value(setting)) is not _UNREADABLE
    ]
    try:
        yield
    finally:
        changes += [change for each in before if (change := _put_back(*each))]


_UNREADABLE = object()


def _put_back(setting: Setting, before: Any) -> Change | None:
    now = _value(setting)
    if now == before:
        return None
    with suppress(Exception):
        setting.put(before)
    if setting.matters(now, before):
        back = _value(setting)
        same = back is not _UNREADABLE and not setting.matters(back, before)
        return Change(f"{setting.name}{_differences(now, before)}", put_back=same)
    return None


def _value(setting: Setting) -> Any:
    try:
        return setting.get()
    except Exception:  # not on this system, or unreadable since it was changed
        return _UNREADABLE


def _differences(now: Any, before: Any) -> str:
    if not (isinstance(now, dict) and isinstance(before, dict)):
        return ""
    names = (key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    return f" {listed(sorted(names))}"
