"""Tools of the checks: values to check with, and messages."""

import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Protocol

import torch
from torch import Tensor

from mmgen.modality import Modality
from mmgen.registry.discovery import shortened

LATENT = 5
"""The size of z that decoders are built for."""

LIMIT = 60.0
"""The most seconds that a check may take on the command line."""

MOST_WORDS = 400
"""The most characters of a message that are shown."""


class Check(Protocol):
    """A plain function of a modality that raises ``AssertionError``."""

    __name__: str

    def __call__(self, modality: Modality, /) -> None:
        """Raises ``AssertionError`` if the modality breaks the contract."""


def seeded(check: Callable[[Modality], None]) -> Check:
    """Runs a check on random numbers of its own: the same each time, and none of the caller's."""

    @wraps(check)
    def run(modality: Modality, /) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            check(modality)

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


def generator() -> torch.Generator:
    """Makes a generator, the same each time."""
    return torch.Generator().manual_seed(0)


def stored(modality: Modality, rows: int) -> Tensor:
    """Makes stored values ``(rows, ...)``, each of another class."""
    return modality.example(torch.arange(rows), generator())


def observed(modality: Modality, rows: int) -> Tensor:
    """Makes observations ``(rows, *shape)``."""
    return modality.observe(stored(modality, rows), generator())


def latent(rows: int) -> Tensor:
    """Makes z ``(rows, LATENT)``, wide of the prior so that nets leave their middle."""
    return 5 * torch.randn(rows, LATENT, generator=generator())
