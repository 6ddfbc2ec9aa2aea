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
from torch.utils._python_dispatch import TorchDispatchMode

from mmgen.seeding import random_state

_ATEN = torch.ops.aten

IN_PLACE = {_ATEN.normal_.default, _ATEN.uniform_.default, _ATEN.exponential_.default}
LIKE = {_ATEN.randn_like.default, _ATEN.rand_like.default}
OF_SIZE = {
    *(_ATEN.rand.default, _ATEN.rand.generator, _ATEN.randn.default, _ATEN.randn.generator),
    *(_ATEN.randint.default, _ATEN.randint.low),
}
NORMAL = {
    *(_ATEN.normal_.default, _ATEN.randn_like.default),
    *(_ATEN.randn.default, _ATEN.randn.generator, _ATEN.normal.Tensor_Tensor),
}
UNIFORM = {
    *(_ATEN.uniform_.default, _ATEN.rand_like.default, _ATEN.bernoulli.default),
    *(_ATEN.rand.default, _ATEN.rand.generator),
}
"""Of the operations that draw, those whose noise u has a mirror image: −u, or 1 − u."""

OPERATIONS = IN_PLACE | LIKE | OF_SIZE | NORMAL | UNIFORM


class _Shared(TorchDispatchMode):
    """Draws for one row what is drawn for several, and repeats it.

    Noise ``(samples, rows, ...)``, ``(samples · rows, ...)`` or ``(rows, ...)`` is shared; all else
    is drawn as ever.
    """

    def __init__(self, rows: int, samples: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rows, self.samples = rows, samples

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in OPERATIONS:
            return func(*args, **kwargs)
        sizes = [at for at, each in enumerate(args) if func in OF_SIZE and isinstance(each, list)]
        shape = tuple(args[sizes[0]] if sizes else args[0].shape)
        one = self._of_one_row(shape)
        if one is None:
            return func(*args, **kwargs)
        if sizes:
            u = func(
                *(list(one) if at in sizes else each for at, each in enumerate(args)), **kwargs
            )
        elif func in IN_PLACE:
            u = func(args[0].new_empty(one), *args[1:], **kwargs)
        elif func in LIKE:
            u = func(args[0].new_empty(one), **kwargs)
        else:
            like = args[0].new_empty(one)
            u = torch.randn_like(like) if func in NORMAL else torch.rand_like(like)
        u = self._for_all_rows(_mirrored(u, func), shape)
        if func in IN_PLACE:
            return args[0].copy_(u)
        if func is _ATEN.bernoulli.default:
            return (u < args[0]).to(args[0].dtype)
        return args[0] + args[1] * u if func is _ATEN.normal.Tensor_Tensor else u

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
