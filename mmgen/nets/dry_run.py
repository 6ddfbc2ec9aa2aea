"""What a net puts out, read off a run of it that computes nothing.

Nets on the ``meta`` device have no values, and torch's own kernels of that device import its
compiler and sympy when they are first used, which takes longer than to generate pictures. A batch
of no rows runs on the CPU through the same layers, and takes none of it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

MOST = 2**30
"""The most bytes of a net that is run without rows: some kernels copy weights first."""


def features(net: nn.Module, shape: Sequence[int]) -> int:
    """Returns the number of features of an encoder net, by a dry run."""
    parameter = next(net.parameters(), torch.empty(0))
    out = without_rows(net, shape) if parameter.is_meta else None
    if out is None:
        with torch.no_grad(), _evaluating(net):
            out = net(torch.zeros(1, *shape, device=parameter.device, dtype=parameter.dtype))
    return int(out.shape[-1])


def without_rows(net: nn.Module, shape: Sequence[int]) -> Any:
    """Runs a net of the ``meta`` device on a batch of no rows, on the CPU.

    One zero stands for each of its weights, seen in its shape: no memory is taken.

    Args:
        net: A net; it is as it was afterwards.
        shape: Of a row.

    Returns:
        What it puts out, with every size but the number of rows; ``None`` if it cannot run so, as
        one that guesses a size (``-1``) of an empty tensor.
    """
    weights = {**dict(net.named_parameters()), **dict(net.named_buffers())}
    if sum(t.nbytes for t in weights.values()) > MOST:
        return None
    zeros = {name: _zeros(t) for name, t in weights.items()}
    try:
        with torch.device("cpu"), torch.no_grad(), _evaluating(net):
            return functional_call(net, zeros, torch.zeros(0, *shape))
    except Exception:  # of a plugin's net, whatever it is: the meta device will tell
        return None


def _zeros(like: Tensor) -> Tensor:
    return torch.zeros((), dtype=like.dtype, device="cpu").expand(like.shape)


@contextmanager
def _evaluating(net: nn.Module) -> Iterator[None]:
    """A dry run must not count in running statistics."""
    training = net.training
    net.eval()
    try:
        yield
    finally:
        net.train(training)
