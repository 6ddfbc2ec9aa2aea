"""What the checks have in common: values to check with, and how they complain."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Protocol

import torch
from torch import Tensor

from mmgen.modality import Modality

LATENT = 5
"""The size of z that decoders are built for."""


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
    """Raises ``AssertionError`` with a message that tells what is wrong and how to mend it."""
    if not condition:
        raise AssertionError(message)


@contextmanager
def mending(what: str, mend: str) -> Iterator[None]:
    """Turns what torch raises inside into an ``AssertionError`` that says how to mend it."""
    try:
        yield
    except (RuntimeError, NotImplementedError, TypeError) as error:
        raise AssertionError(f"{what}: {str(error).splitlines()[0]}; {mend}") from error


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
