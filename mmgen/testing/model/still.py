"""Noise that is the same for all rows, to tell how rows depend on each other."""

from typing import Any
from unittest import SkipTest

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

NOISE = (0.62, 0.27, 0.81, 0.44, 0.13, 0.95)
"""What is drawn, along the last dimension, over and over."""


class StillNoise(TorchDispatchMode):
    """Draws the same for every row, and for every batch size."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        if name == "bernoulli" and isinstance(args[0], Tensor):
            return (args[0] > 0.5).to(args[0].dtype)
        if name == "multinomial":
            return args[0].topk(args[1], dim=-1).indices
        out = func(*args, **kwargs)
        if name in ("native_dropout", "dropout", "_fused_dropout") or not isinstance(out, Tensor):
            raise SkipTest(f"it draws by {name}, whose noise cannot be held still")
        if name == "randperm":
            return out.copy_(torch.arange(len(out), device=out.device))
        if name == "normal" and any(isinstance(arg, Tensor) for arg in args):
            mean, deviation = (*args, 1.0)[:2]
            return mean + deviation * _still(out)
        if name in ("poisson", "binomial", "_standard_gamma", "_sample_dirichlet"):
            raise SkipTest(f"it draws by {name}, whose noise cannot be held still")
        return out.copy_(_still(out))


def _still(out: Tensor) -> Tensor:
    """Returns numbers in (0, 1) that are the same wherever all but the last dimension differ."""
    count = out.shape[-1] if out.dim() > 1 else 1
    noise = torch.tensor(NOISE, device=out.device).repeat(1 + count // len(NOISE))[:count]
    return noise.to(out.dtype).expand(out.shape)
