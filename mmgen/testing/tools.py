"""Tools of all checks: how they run, and what they say."""

import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmgen.registry.discovery import shortened

LIMIT = 60.0
"""The most seconds that a check may take on the command line."""

MOST_WORDS = 400
"""The most characters of a message that are shown."""


class Check(Protocol):
    """A plain function of a modality, or of a model's :class:`Setup`."""

    __name__: str

    def __call__(self, subject: Any, /) -> None:
        """Raises ``AssertionError`` if the subject breaks its contract."""


def seeded(check: Callable[[Any], None]) -> Check:
    """Runs a check on random numbers of its own: the same each time, and none of the caller's."""

    @wraps(check)
    def run(subject: Any, /) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            check(subject)

    return run


def require(condition: bool | Tensor, message: str) -> None:
    """Raises ``AssertionError`` with a message: what is wrong, and how to fix it."""
    if not condition:
        raise AssertionError(plain(message))


def plain(words: str) -> str:
    r"""Returns a message as one short line, without the numbers of tensors.

    Examples:
        >>> plain("invalid values:\ntensor([[0.1, 0.2],\n        [0.3, 0.4]], device='cuda:0')")
        'invalid values: tensor(...)'
    """
    words = re.sub(r"tensor\([^()]*\)", "tensor(...)", " ".join(words.split()))
    return shortened(words, MOST_WORDS)


class TooLongError(BaseException):
    """Raised in a check that does not end; no ``except Exception`` of a plugin catches it."""

    def __str__(self) -> str:
        return f"no end after {LIMIT:g} s"


@contextmanager
def limited() -> Iterator[None]:
    """Stops Python code after :data:`LIMIT` seconds, where there are alarm clocks."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "SIGALRM"):
        yield
        return

    def stop(_number: int, _frame: Any) -> None:
        raise TooLongError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, LIMIT, 1)  # again each second, in case it is swallowed
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def explaining(what: str, fix: str) -> Iterator[None]:
    """Turns what torch raises inside into an ``AssertionError`` with what to do about it."""
    try:
        yield
    except (RuntimeError, NotImplementedError, TypeError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise AssertionError(f"{plain(f'{what}: {first}')}; {fix}") from error


class OneDevice(TorchDispatchMode):
    """Refuses to mix devices. Not every operation on the meta device does so itself: x @ w."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        leaves = tree_leaves((args, kwargs))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.dim()]
        if len({tensor.device for tensor in tensors}) > 1:
            raise RuntimeError(f"{func} got tensors of two devices")
        return func(*args, **(kwargs or {}))
