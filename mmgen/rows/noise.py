"""The same noise for every row: what comes of a row depends on nothing but the row.

With noise of its own for each, a row would come out otherwise beside other rows, or in another
order. So that expectations over z are functions of the row alone, all rows share their draws
(common random numbers), and half of them are the others mirrored: what is linear in Gaussian noise
is averaged exactly.

References:
    A. B. Owen, "Monte Carlo theory, methods and examples", 2013, sections 8.2 (antithetics) and
    8.6 (common random numbers).
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mmgen.seeding import random_state

IN_PLACE = (torch.Tensor.normal_, torch.Tensor.uniform_, torch.Tensor.exponential_)
LIKE = (torch.randn_like, torch.rand_like)
OF_SIZE = (torch.randn, torch.rand, torch.randint)
NORMAL = (torch.Tensor.normal_, torch.randn_like, torch.randn, torch.normal)
UNIFORM = (torch.Tensor.uniform_, torch.rand_like, torch.rand, torch.bernoulli)
"""Of what draws, that whose noise u has a mirror image: −u, or 1 − u."""


class _Shared(TorchFunctionMode):
    """Draws for one row what is drawn for several, and repeats it.

    Noise ``(samples, rows, ...)``, ``(samples · rows, ...)`` or ``(rows, ...)`` is shared; all else
    is drawn as ever. Of what is called in Python: a mode of torch's dispatcher would see all, but
    imports torch's compiler, which takes longer than thousands of rows.
    """

    def __init__(self, rows: int, samples: int) -> None:
        super().__init__()
        self.rows, self.samples = rows, samples

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        drawn = self._drawn(func, args, kwargs)
        return func(*args, **kwargs) if drawn is None else drawn

    def _drawn(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """Returns what a function draws; ``None`` if it draws nothing that is shared."""
        if func in OF_SIZE:
            before, shape = _size(func, args)
            if one := self._of_one_row(shape):
                u = _mirrored(func(*before, one, **kwargs), func)
                return self._for_all_rows(u, shape)
            return None
        tensors = func in IN_PLACE + LIKE or (
            func in (torch.bernoulli, torch.normal)
            and len(args) == 1 + (func is torch.normal)
            and all(isinstance(each, Tensor) for each in args)
        )
        shape = tuple(args[0].shape) if tensors else ()
        if not (one := self._of_one_row(shape)):
            return None
        like = args[0].new_empty(one)
        if func in IN_PLACE + LIKE:
            u = func(like, *args[1:], **kwargs)
        else:
            u = torch.randn_like(like) if func is torch.normal else torch.rand_like(like)
        u = self._for_all_rows(_mirrored(u, func), shape)
        if func in IN_PLACE:
            return args[0].copy_(u)
        if func is torch.bernoulli:
            return (u < args[0]).to(args[0].dtype)
        return u if func in LIKE else args[0] + args[1] * u

    def _of_one_row(self, shape: tuple[int, ...]) -> tuple[int, ...] | None:
        """Returns the shape of one row's noise, ``(samples or 1, 1, ...)``; ``None`` of others."""
        S, B = self.samples, self.rows
        if shape[:2] == (S, B):
            return (S, 1, *shape[2:])
        if shape[:1] == (S * B,):
            return (S, 1, *shape[1:])
        return (1, 1, *shape[1:]) if shape[:1] == (B,) else None

    def _for_all_rows(self, u: Tensor, shape: tuple[int, ...]) -> Tensor:
        return u.expand(len(u), self.rows, *u.shape[2:]).reshape(shape).contiguous()


def _size(func: Any, args: Sequence[Any]) -> tuple[Sequence[Any], tuple[int, ...]]:
    """Returns the arguments before the size, and the size, of a function that makes a tensor."""
    at = next((at for at, each in enumerate(args) if isinstance(each, list | tuple)), None)
    if at is not None:
        return args[:at], tuple(args[at])
    return ([], tuple(args)) if func is not torch.randint else (args, ())


def _mirrored(u: Tensor, func: Any) -> Tensor:
    """Makes the second half of the draws the mirror image of the first, where there is one."""
    half = len(u) // 2
    if half and func in NORMAL:
        u[-half:] = -u[:half]
    elif half and func in UNIFORM:
        u[-half:] = 1 - u[:half]
    return u


@contextmanager
def shared_noise(device: torch.device, rows: int, samples: int, seed: int) -> Iterator[None]:
    """Seeds torch for a while, and gives every row the same noise.

    Args:
        device: Where it is drawn.
        rows: How many rows there are.
        samples: How many draws there are of each.
        seed: Of the noise: the same seed, the same draws, whatever the number of rows.
    """
    with random_state(device, seed), _Shared(rows, samples):
        yield
