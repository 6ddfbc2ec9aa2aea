"""Batch normalisation over the rows of all processes that train together.

Each computes a part of a batch; normalised by the statistics of its own rows, a run would be
another with another number of processes. torch's ``SyncBatchNorm`` knows neither the CPU nor copies
of a net side by side (:mod:`mmgen.nets.wide`).
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, distributed, nn


class Counting:
    """Whether the rows that this process computes count in the statistics of a batch.

    Attributes:
        counts: They do not where it computes a row that is another's, to take part with something.
    """

    counts = True


class _Sum(torch.autograd.Function):
    """The sum over all processes, and of its gradients: the loss of each reads the rows of all."""

    @staticmethod
    def forward(_ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total


def normalised(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    momentum: float,
    eps: float,
    counting: Counting,
) -> Tensor:
    """Normalises ``(B, C, *event)`` by mean and variance of each channel over the rows of all.

    As ``torch.nn.functional.batch_norm`` in training does, whose arguments these are; running
    statistics move in place, and are the same in all processes.
    """
    dims = [0, *range(2, x.dim())]
    shape = (1, -1, *[1] * (x.dim() - 2))
    values = x if x.dtype == torch.float64 else x.float()
    share = float(counting.counts)
    own = values.new_full((1,), x.numel() // x.shape[1])
    sums = _Sum.apply(share * torch.cat([values.sum(dims), own]))
    count = sums[-1]
    mean = sums[:-1] / count
    centred = values - mean.view(shape)  # first: a difference of squares would lose digits
    variance = _Sum.apply(share * centred.square().sum(dims)) / count
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            unbiased = variance * (count / (count - 1).clamp_min(1))
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    scale = (variance + eps).rsqrt()
    if weight is not None:
        scale = scale * weight
    out = centred * scale.view(shape)
    if bias is not None:
        out = out + bias.view(shape)
    normed: Tensor = out.to(x.dtype)
    return normed


def share(norm: nn.Module, counting: Counting) -> None:
    """Has one of torch's batch normalisations share its statistics from now on.

    Args:
        norm: A ``BatchNorm1d``, ``BatchNorm2d`` or ``BatchNorm3d``.
        counting: Whether this process's rows count.
    """
    norm.forward = partial(_forward, norm, counting)


def _forward(norm: Any, counting: Counting, x: Tensor) -> Tensor:
    if not norm.training:
        evaluated: Tensor = type(norm).forward(norm, x)
        return evaluated
    momentum = norm.momentum
    if norm.track_running_stats:
        norm.num_batches_tracked.add_(1)
        if momentum is None:  # an average of all batches
            momentum = 1 / float(norm.num_batches_tracked)
    return normalised(
        x,
        norm.running_mean,
        norm.running_var,
        norm.weight,
        norm.bias,
        momentum or 0.0,
        norm.eps,
        counting,
    )
