"""One net of a modality that all subsets read, in the place of a copy for each."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Trunk(nn.Module):
    """A net run once, for all that read it: ``(B, *shape) -> (readers, B, features)``, all alike.

    It stands where copies of the net would (:func:`mmgen.nets.replicate.replicate`).

    Args:
        net: ``(B, *shape) -> (B, features)``.
        readers: How many read it.
        last_teaches: Whether it learns from the last reader alone; the others read it as it is.

    Examples:
        >>> trunk = Trunk(nn.Linear(4, 3), readers=5)
        >>> trunk(torch.zeros(2, 4)).shape, trunk(torch.zeros(2, 4), only=[0, 4]).shape
        (torch.Size([5, 2, 3]), torch.Size([2, 2, 3]))
    """

    def __init__(self, net: nn.Module, readers: int, *, last_teaches: bool = False) -> None:
        super().__init__()
        self.net, self.readers, self.last_teaches = net, readers, last_teaches

    def forward(self, x: Tensor, only: Sequence[int] | None = None) -> Tensor:
        """Maps ``(B, *shape)`` to ``(readers, B, features)``, of those numbered in ``only``."""
        readers = range(self.readers) if only is None else only
        h: Tensor = self.net(x)
        if self.last_teaches:
            fixed, last = h.detach(), self.readers - 1
            return torch.stack([h if reader == last else fixed for reader in readers])
        return h.expand(len(readers), *h.shape)
