"""How well values that were seen agree with those that are true: accuracy and F1, with errors."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mmgen.brief import OneLine
from mmgen.seeding import generator

Measure = Literal["accuracy", "F1"]

REPLICATES = 200
"""Resamplings of the rows for the standard error of F1."""

BLOCK = 2_000_000
"""Rows times replicates that are drawn at a time."""


@dataclass(frozen=True, repr=False)
class Score(OneLine):
    """One number.

    Attributes:
        measure: ``accuracy`` is the share that is right, over rows, and attributes if there are
            some. ``F1`` is the mean over attributes of 2·TP / (2·TP + FP + FN), those left out
            that are never on.
        value: Between 0 and 1.
        error: Its standard error over rows: of the mean for accuracy, which is the binomial one
            if there is one value a row; of a bootstrap for F1.
        baseline: What the best constant answer scores by this measure: for accuracy the commonest
            value, of each attribute; for F1 that every attribute is on, 2·p / (1 + p).
    """

    measure: Measure
    value: float
    error: float
    baseline: float


def scores(truth: Tensor, seen: Tensor, seed: int = 0, known: Tensor | None = None) -> list[Score]:
    """Compares what was seen with what is true.

    Args:
        truth: Class numbers ``(N,)``, or what is on ``(N, A)``, on the CPU.
        seen: The same S times, ``(S, *truth.shape)``. Errors count rows, not samples, since those
            of a row are not independent.
        seed: Of the bootstrap.
        known: Of attributes, which it is known of whether they are on, ``(N, A)``; the others are
            not compared.

    Returns:
        Accuracy; and F1 if there are attributes of which at least one is on in some row.
    """
    right = (seen == truth).double().mean(0)  # (N,) or (N, A)
    if truth.ndim == 1:
        return [_accuracy(right, truth.bincount().max().item() / len(truth))]
    counted = torch.ones_like(truth) if known is None else known
    rows, asked = counted.any(1), counted.any(0)  # of which anything is known
    truth, seen, counted = truth[rows][:, asked], seen[:, rows][..., asked], counted[rows][:, asked]
    weight = counted.double()
    p = (weight * truth).sum(0) / weight.sum(0)
    each = (weight * right[rows][:, asked]).sum(1) / weight.sum(1)
    accuracy = _accuracy(each, torch.maximum(p, 1 - p).mean().item())
    return [accuracy, *_f1(truth & counted, seen & counted, seed, weight)]


def _accuracy(right: Tensor, baseline: float) -> Score:
    error = right.std(correction=0).item() / math.sqrt(len(right))
    return Score("accuracy", right.mean().item(), error, baseline)


def _f1(truth: Tensor, seen: Tensor, seed: int, counted: Tensor) -> list[Score]:
    occurs = truth.any(0)
    if not occurs.any():
        return []
    truth, seen, counted = truth[:, occurs], seen[..., occurs], counted[:, occurs]
    on = truth.double()
    hits = (seen & truth).double().mean(0)  # (N, A): means over samples, to be summed over rows
    wrong = (seen ^ truth).double().mean(0)
    p = on.sum(0) / counted.sum(0)
    value = _macro(on.sum(0), hits.sum(0), wrong.sum(0)).item()
    stream, count = generator("bootstrap", seed), len(on)
    replicates: list[Tensor] = []
    size = max(1, BLOCK // count)
    for start in range(0, REPLICATES, size):
        block = min(size, REPLICATES - start)
        drawn = torch.randint(count, (block, count), generator=stream, device="cpu")
        weights = on.new_zeros(block, count)
        weights.scatter_add_(1, drawn, torch.ones_like(weights))
        replicates.append(_macro(weights @ on, weights @ hits, weights @ wrong))
    error = torch.cat(replicates).nan_to_num(0.0).std(correction=0).item()
    return [Score("F1", value, error, (2 * p / (1 + p)).mean().item())]


def _macro(on: Tensor, hits: Tensor, wrong: Tensor) -> Tensor:
    """Returns the mean F1 ``(...)`` over attributes ``(..., A)``, those left out that never occur.

    2·TP + FP + FN is twice the hits and all that is wrong.
    """
    each = 2 * hits / (2 * hits + wrong)
    return each.where(on > 0, math.nan).nanmean(-1)
