"""Restores signal handlers and standard streams after code of others has run."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from mmgen.brief import OneLine
from mmgen.errors import listed


@dataclass(frozen=True, repr=False)
class Change(OneLine):
    """A setting of the process that a plugin's code has changed.

    Attributes:
        what: The setting.
        put_back: Whether the former value was restored.
    """

    what: str
    put_back: bool

    def note(self, when: str) -> str:
        """Returns a sentence for the user: ``"changes the umask at import; put back"``."""
        end = "put back" if self.put_back else "this cannot be put back"
        return f"changes {self.what} {when}; {end}"


@contextmanager
def signals_kept(changes: list[Change], stopped: list[BaseException]) -> Iterator[None]:
    """Puts the handlers of signals back; what one of them raises is added to ``stopped``."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can change handlers, and runs them
        return
    before = {number: signal.getsignal(number) for number in signal.valid_signals()}
    noting = {n: _noting(handler, stopped) for n, handler in before.items() if callable(handler)}
    for number, handler in noting.items():
        signal.signal(number, handler)
    try:
        yield
    finally:
        during = {**before, **noting}
        changed = [n for n, handler in during.items() if signal.getsignal(n) is not handler]
        for number in {*changed, *noting}:
            if before[number] is not None:  # machine code's own, which cannot be set from here
                signal.signal(number, before[number])
        if changed:
            names = listed(signal.Signals(number).name for number in changed)
            back = all(before[number] is not None for number in changed)
            changes.append(Change(f"the handler of {names}", put_back=back))


def _noting(
    handler: Callable[[int, Any], object], stopped: list[BaseException]
) -> Callable[[int, Any], None]:
    def run(number: int, frame: Any) -> None:
        try:
            handler(number, frame)
        except BaseException as error:
            stopped.append(error)
            raise

    return run


STREAMS = ("stdin", "stdout", "stderr", "__stdout__", "__stderr__")
NUMBERS = {1: "stdout", 2: "stderr"}


@contextmanager
def streams_kept(changes: list[Change]) -> Iterator[None]:
    """Keeps standard output and error open, and sends what is printed to standard error."""
    with ExitStack() as files:
        copies = {}
        for number in NUMBERS:
            with suppress(OSError):  # a process may have been started without
                copies[number] = os.dup(number)
                files.callback(os.close, copies[number])
        streams = {name: getattr(sys, name) for name in STREAMS}
        forms = {name: _form(stream) for name, stream in streams.items()}
        during = {**streams, "stdout": streams["stderr"] or streams["stdout"]}
        sys.stdout = during["stdout"]
        try:
            yield
        finally:
            changed = {name for name in STREAMS if getattr(sys, name, None) is not during[name]}
            moved = {n: copy for n, copy in copies.items() if not _same_file(n, copy)}
            for number, copy in moved.items():
                os.dup2(copy, number)
            closed = {name for name, stream in streams.items() if stream and _closed(stream)}
            for name, stream in streams.items():
                form = forms[name] if name in closed else None
                setattr(sys, name, open(**form) if form else stream)  # noqa: PTH123, SIM115
            if names := changed | closed | {NUMBERS[number] for number in moved}:
                back = all(forms[name] for name in closed)
                changes.append(Change(listed(f"sys.{n}" for n in sorted(names)), put_back=back))


def _form(stream: Any) -> dict[str, Any] | None:
    """Returns how to open a stream once more; ``None`` for one that is no file."""
    try:
        number, form = stream.fileno(), {"encoding": stream.encoding, "errors": stream.errors}
        mode = "w" if stream.writable() else "r"
    except Exception:
        return None
    return {"file": number, "mode": mode, "buffering": 1, "closefd": False, **form}


def _closed(stream: Any) -> bool:
    try:
        return bool(stream.closed)
    except Exception:  # its buffer was taken away
        return True


def _same_file(one: int, other: int) -> bool:
    try:
        return os.path.sameopenfile(one, other)
    except OSError:
        return False
