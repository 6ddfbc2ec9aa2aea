"""fit(): one loop for every model and device, a generator that yields what happened.

The caller saves, logs and draws between items; between any two items the state is whole, so that
stopping there and resuming later gives the same weights, bit for bit.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_

from mmgen.batch import Batch
from mmgen.brief import OneLine
from mmgen.data.batches import Batches
from mmgen.errors import RunError, listed
from mmgen.model import Model, ParameterGroup
from mmgen.objective import MODEL, Objective
from mmgen.seeding import random_state
from mmgen.settings import TrainConfig
from mmgen.training.halves import Casts, Halves
from mmgen.training.ranks import ALONE, Ranks, Share
from mmgen.training.records import Execution, Precision

CHECK_EVERY = 200
"""Steps between two looks at whether all is finite: each look waits for the device."""


@dataclass(frozen=True)
class Step:
    """One step done: nothing is read off the device.

    Attributes:
        epoch: The current epoch, from 1.
        batch: Batches done in this epoch.
        batches: Batches an epoch.
    """

    epoch: int
    batch: int
    batches: int


@dataclass(frozen=True, repr=False)
class Epoch(OneLine):
    """One epoch done. Terms are means over observations, in nats.

    Attributes:
        epoch: Epochs done.
        beta: The weight of the KL to the prior at its end.
        train: Terms on the training split, while the weights changed.
        validation: Terms on the validation split at the epoch's end, with β = 1; may be empty.
        seconds: What the epoch took, validation included.
        examples_per_second: Training observations a second, validation left out.
        best: Whether the validation loss, that of the bound alone, is the lowest so far; the last
            epoch if there is no validation split, since training losses of the warm-up do not
            compare.
    """

    epoch: int
    beta: float
    train: dict[str, float]
    validation: dict[str, float]
    seconds: float
    examples_per_second: float
    best: bool


class NotFiniteError(RunError):
    """A term of the objective, or a weight, is no longer a finite number.

    Attributes:
        terms: What is not finite: terms, or ``weights``.
        epoch: The epoch in which it was noticed, from 1.
    """

    def __init__(self, terms: list[str], epoch: int) -> None:
        super().__init__(
            f"epoch {epoch}: {listed(terms)} is no longer a finite number. "
            "Try a smaller train.learning_rate, or train.gradient_clip=5"
        )
        self.terms = terms
        self.epoch = epoch


@dataclass(repr=False)
class Training(OneLine):
    """All that a step changes, and therefore all that a checkpoint holds.

    Args:
        model: On its device.
        config: How to train.
        device: Where the model is.
        execution: How its nets run.
        ranks: The processes that train together; ``rows`` and ``batch`` count those of all.

    Attributes:
        stale: Epochs since the one with the best bound in validation.
        shared: :meth:`losses`, wrapped, where several processes share the training.
        halves: What stands in for weights in bfloat16, from the second step on; ``None`` else.
    """

    model: Model
    config: TrainConfig
    device: torch.device
    epoch: int = 0
    batch: int = 0
    rows: int = 0
    best: float = math.inf
    stale: int = 0
    sums: Tensor | None = None
    terms: tuple[str, ...] = ()
    execution: Execution = field(default_factory=Execution)
    ranks: Ranks = ALONE
    groups: dict[str, ParameterGroup] = field(init=False)
    optimisers: dict[str, torch.optim.Optimizer] = field(init=False)
    halves: Halves | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self.group()
        self.shared: nn.Module | None = None
        objective: Callable[[Batch], Objective] = self.model
        self.objective = torch.compile(objective) if self.config.compile else objective

    def group(self) -> None:
        """Makes an optimiser for each group of the model's parameters."""
        self.groups = self.model.parameter_groups()
        self.optimisers = {n: adam(group, self.config) for n, group in self.groups.items()}

    @property
    def stopped_early(self) -> bool:
        """Whether there were as many epochs without a better bound as ``early_stopping`` allows."""
        patience = self.config.early_stopping
        return patience is not None and self.stale >= patience

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train."""
        return self.epoch >= self.config.epochs or self.stopped_early

    def check_finite(self) -> None:
        """Waits for the device, and checks the terms of this epoch so far and all weights.

        Of several processes all find the same.

        Raises:
            NotFiniteError: If one is not finite.
        """
        finite = torch.stack([self.ranks.own(p).isfinite().all() for p in self.weights()]).all()
        flags = ~finite.unsqueeze(0)
        if self.sums is not None:
            flags = torch.cat([flags, ~self.sums.isfinite()])
        weights, *sums = self.ranks.any(flags).tolist()
        broken = [n for n, bad in zip(self.terms, sums, strict=False) if bad]
        broken = [n for n in broken if n != "loss"] or broken  # the loss is their sum
        broken = broken or ["weights"] * weights
        if broken:
            raise NotFiniteError(broken, self.epoch + 1)

    def weights(self) -> list[Tensor]:
        """Lists all that the optimisers change."""
        return [p.detach() for group in self.groups.values() for p in group.parameters]

    def beta(self, progress: float) -> float:
        """Returns the warm-up's weight after ``progress`` epochs: min(1, progress / N_t)."""
        warmup = self.config.warmup
        return min(1.0, progress / warmup) if warmup else 1.0

    def learning_rate(self, progress: float) -> float:
        """Returns Adam's step size after ``progress`` epochs."""
        if self.config.schedule == "constant":
            return self.config.learning_rate
        # Loshchilov and Hutter, "SGDR", ICLR 2017, without restarts.
        share = min(1.0, progress / self.config.epochs)
        return self.config.learning_rate * (1 + math.cos(math.pi * share)) / 2

    def step(self, x: Batch, progress: float, share: Share | None = None) -> dict[str, Tensor]:
        """Lets every parameter group take one step on a batch, and returns the terms and losses.

        Args:
            x: The observations.
            progress: The epochs done with this step, a fraction of one included: 2.5.
            share: Of several processes, how much of the batch this one has in ``x``.
        """
        for optimiser in self.optimisers.values():  # first: not beside the activations
            optimiser.zero_grad(set_to_none=True)
        beta = torch.full((), self.beta(progress), device=self.device)
        noted = self.backward(x, beta, share)
        for name, optimiser in self.optimisers.items():
            clip(self.groups[name].parameters, self.config)
            for group in optimiser.param_groups:
                group["lr"] = group["scale"] * self.learning_rate(progress)
            optimiser.step()
        return noted

    def losses(
        self,
        x: Batch,
        beta: Tensor | float,
        share: Share | None = None,
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Returns the loss of each group on a batch, and what is noted of it.

        Args:
            x: The observations.
            beta: β.
            share: Of several processes, how much of the batch this one has in ``x``: both are then
                its part of a sum. Without it, ``x`` is a batch by itself.
        """
        with self.autocast():
            objective = self.objective(x)
        weight = None if share is None else self.ranks.weight(share)
        parts = parts_of(objective.parts(), weight)
        losses = objective.losses(parts, beta)
        return losses, values(objective, parts, losses, beta, weight)

    def backward(
        self, x: Batch, beta: Tensor | float, share: Share | None = None
    ) -> dict[str, Tensor]:
        """Computes the gradients of a batch; returns the terms and losses."""
        if self.precision == "float32" or self.config.compile or self.shared is not None:
            return self._backward(x, beta, share)
        if self.halves is None:
            with Casts(self.model) as casts:
                noted = self._backward(x, beta, share)
            self.halves = Halves(self.model, casts.found)
            return noted
        with self.halves.standing_in():
            return self._backward(x, beta, share, self.halves.of)

    def _backward(
        self,
        x: Batch,
        beta: Tensor | float,
        share: Share | None,
        inputs_of: Callable[[Iterable[nn.Parameter]], list[Tensor]] = list,
    ) -> dict[str, Tensor]:
        losses, noted = (self.shared or self.losses)(x, beta, share)
        alone = len(self.groups) == 1
        for name, loss in losses.items():
            inputs = None if alone else inputs_of(self.groups[name].parameters)
            loss.backward(retain_graph=not alone, inputs=inputs)
        return noted

    def autocast(self) -> AbstractContextManager[Any]:
        """Returns bfloat16 autocast if nets are to compute in it."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    @property
    def precision(self) -> Precision:
        """What nets compute in: what the experiment says, or what was measured to be faster."""
        if self.config.precision != "auto":
            return self.config.precision
        return self.execution.precision or "float32"


def adam(group: ParameterGroup, config: TrainConfig) -> torch.optim.Optimizer:
    """Returns Adam (Kingma and Ba, 2015) with the experiment's settings, and the group's own."""
    fused = all(p.device.type in ("cpu", "cuda") for p in group.parameters)
    usual = {
        "lr": config.learning_rate,
        "betas": config.betas,
        "eps": config.eps,
        "weight_decay": config.weight_decay,
    }
    settings = {**usual, **group.optimiser}
    # The schedule multiplies the experiment's rate: of a group with its own, that one's.
    scale = settings["lr"] / config.learning_rate
    parameters = [{"params": list(group.parameters), "scale": scale}]
    return torch.optim.Adam(parameters, fused=fused, **settings)


def clip(parameters: Sequence[nn.Parameter], config: TrainConfig) -> None:
    """Clips the gradients of a group: their norm together, then each number of them."""
    if config.gradient_clip is not None:
        clip_grad_norm_(parameters, config.gradient_clip)
    if config.gradient_clip_value is not None:
        clip_grad_value_(parameters, config.gradient_clip_value)


PRESENT = "present/"
"""Before the name of a term that not all rows have: the share of those that do, which is noted."""


def parts_of(means: dict[str, Tensor], weight: float | None) -> dict[str, Tensor]:
    """Returns this process's parts of means over the rows of all, of means over its own.

    Args:
        means: Over its own rows.
        weight: The share of the rows that are its own; ``None`` if all are.
    """
    return means if weight is None else {n: weight * mean for n, mean in means.items()}


def values(
    objective: Objective,
    parts: dict[str, Tensor],
    losses: dict[str, Tensor],
    beta: Tensor | float,
    weight: float | None = None,
) -> dict[str, Tensor]:
    """Returns what is noted of a batch, detached: terms, the losses of groups, the bound's.

    ``loss`` is the negative bound on the evidence, by which the best weights are chosen: for a
    model of one group that is its loss. Of terms that not all rows have, the share of those that do
    is noted too, so that :func:`noted_means` is over those.
    """
    others = {f"loss/{n}": loss for n, loss in losses.items() if n != MODEL}
    shares = {PRESENT + t.name: t.share for t in objective if t.share is not None}
    noted = {
        **parts,
        **parts_of(shares, weight),
        **others,
        "loss": objective.bound(parts, beta),
    }
    return {n: value.detach() for n, value in noted.items()}


def noted_means(names: Iterable[str], sums: Tensor, rows: int) -> dict[str, float]:
    """Returns the means over rows of what was noted, each over those that have it.

    A term that no row has is left out: it has no mean.

    Args:
        names: Of what was noted, see :func:`values`.
        sums: Over all rows.
        rows: How many there are.
    """
    means = dict(zip(names, (sums / rows).tolist(), strict=True))
    shares = {n.removeprefix(PRESENT): v for n, v in means.items() if n.startswith(PRESENT)}
    told = {n: value for n, value in means.items() if not n.startswith(PRESENT)}
    return {n: value / shares.get(n, 1) for n, value in told.items() if shares.get(n, 1)}


def fit(
    training: Training, train: Batches, validation: Batches | None = None
) -> Iterator[Step | Epoch]:
    """Trains until ``train.epochs``, or ``early_stopping`` ends it, from wherever the state is.

    Args:
        training: Model, optimisers and counters; changed in place.
        train: The training split.
        validation: The validation split, if there is one.

    Yields:
        A :class:`Step` after every step, and an :class:`Epoch` after every epoch.

    Raises:
        NotFiniteError: If a term or a weight is not finite, noticed within :data:`CHECK_EVERY`
            steps and before the epoch is yielded; the error names it.
    """
    config, model, ranks = training.config, training.model, training.ranks
    while not training.finished:
        started, first = time.perf_counter(), training.batch
        rows = training.rows
        model.train()
        for x in train.epoch(config.seed, training.epoch, start=first):
            share = ranks.share(train, training.batch, x)
            noted = training.step(x, training.epoch + (training.batch + 1) / len(train), share)
            # Summed on the device: one synchronisation per epoch.
            total = torch.stack(list(noted.values())) * share.whole
            if training.sums is not None and training.sums.shape != total.shape:
                raise RunError(  # of a checkpoint, which cannot say how many terms there are
                    f"the checkpoint sums up {len(training.sums)} terms, but the model has "
                    f"{len(total)}; train the run again"
                )
            training.sums = total if training.sums is None else training.sums + total
            training.terms = tuple(noted)
            training.rows += share.whole
            training.batch += 1
            if training.batch % CHECK_EVERY == 0:
                training.check_finite()
            if training.batch < len(train):
                yield Step(training.epoch + 1, training.batch, len(train))
        yield _finish_epoch(training, validation, started, rows)


def _finish_epoch(
    training: Training, validation: Batches | None, started: float, rows_before: int
) -> Epoch:
    assert training.sums is not None
    training.check_finite()
    sums = training.ranks.total(training.sums)
    means = noted_means(training.terms, sums, training.rows)
    trained = time.perf_counter() - started
    validated = evaluate(training, validation) if validation is not None else {}
    best = not validated or validated["loss"] < training.best
    if validated and best:  # min() would keep a NaN for ever
        training.best = validated["loss"]
    training.stale = 0 if best else training.stale + 1
    training.epoch += 1
    epoch = Epoch(
        epoch=training.epoch,
        beta=training.beta(training.epoch),
        train=means,
        validation=validated,
        seconds=time.perf_counter() - started,
        examples_per_second=(training.rows - rows_before) / trained,
        best=best,
    )
    training.batch, training.rows, training.sums = 0, 0, None
    return epoch


@torch.no_grad()
def evaluate(training: Training, batches: Batches) -> dict[str, float]:
    """Returns the mean terms over a split with β = 1, in nats.

    The noise is the same at every call, and the training's random state is left alone.
    """
    model, ranks, total, rows = training.model, training.ranks, None, 0
    names: list[str] = []
    model.eval()
    with random_state(training.device, training.config.seed), ranks.gathered():
        for number, x in enumerate(batches.epoch(None, 0)):
            share = ranks.share(batches, number, x)
            with training.autocast():
                objective = model(x)
            weight = ranks.weight(share)
            parts = parts_of(objective.parts(), weight)
            noted = values(objective, parts, objective.losses(parts), 1.0, weight)
            scaled = torch.stack(list(noted.values())) * share.whole
            total, rows, names = (
                scaled if total is None else total + scaled,
                rows + share.whole,
                [*noted],
            )
    if total is None:
        return {}
    return noted_means(names, ranks.total(total), rows)
