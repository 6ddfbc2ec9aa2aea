"""Where numbers stopped being finite: the steps since the last checkpoint, done again and watched.

Training itself looks at sums only, now and then, so that no step waits for the device. Because it
is exactly repeatable, the culprit can be looked for afterwards, and only when there is one.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from mmgen.batch import Batch
from mmgen.brief import OneLine
from mmgen.data.batches import Batches
from mmgen.modality import Modality
from mmgen.model import Model
from mmgen.nets.by_modality import ByModality
from mmgen.objective import Objective
from mmgen.seeding import random_state
from mmgen.training.loop import Training

MOST_ROWS = 8
"""More rows than this are counted, not listed."""


@dataclass(frozen=True, repr=False)
class Finding(OneLine):
    """The first number that was not finite.

    Attributes:
        what: In words: ``"the term kl/prior"``, ``"the gradient of decoders.image.net.0.weight"``.
        modality: The modality whose data, net or term it is, if it is one's.
        epoch: From 1.
        batch: From 1.
        rows: The rows of the training split from which it came; empty if it came from all alike.
        size: Rows in the batch.
        source: ``data``, ``net``, ``term``, ``gradient`` or ``weight``.
    """

    what: str
    modality: str | None
    epoch: int
    batch: int
    rows: tuple[int, ...]
    size: int
    source: str

    def __str__(self) -> str:
        rows = ", ".join(map(str, self.rows[:MOST_ROWS]))
        more = f" and {len(self.rows) - MOST_ROWS} more" if len(self.rows) > MOST_ROWS else ""
        whence = (
            f"from rows {rows}{more} of the training split ({len(self.rows)} of the batch's "
            f"{self.size})"
            if self.rows
            else f"from all {self.size} rows of the batch alike"
        )
        return f"epoch {self.epoch}, batch {self.batch}: {self.what} is not finite, {whence}"


class _BrokenError(Exception):
    """Raised where the first number that is not finite appears."""

    def __init__(self, what: str, part: str, source: str, rows: Tensor | None = None) -> None:
        super().__init__(what)
        self.what, self.part, self.source, self.rows = what, part, source, rows


def locate(training: Training, batches: Batches) -> Finding | None:
    """Trains on from where the state is, one watched step after the other, until one breaks.

    Args:
        training: As it was at the last checkpoint; it is used up.
        batches: The training split.

    Returns:
        What broke first, or ``None`` if nothing does, up to the end of the next epoch.
    """
    seed, size = training.config.seed, batches.batch_size
    plain = training.objective = training.model  # not the compiled one
    training.model.train()
    for _ in range(2):  # the epoch under way, and one more
        order = batches.order(seed, training.epoch)
        for number, x in enumerate(batches.epoch(seed, training.epoch, training.batch)):
            batch = training.batch + number
            rows = order[batch * size : (batch + 1) * size]
            try:
                _check_data(x.select(training.model.names))
                with _watched(training, plain):
                    training.step(x, training.epoch + (batch + 1) / len(batches))
            except _BrokenError as broken:
                training.objective = plain
                at = (training.epoch + 1, batch + 1)
                return _finding(broken, training, x, rows, at)
        training.epoch, training.batch = training.epoch + 1, 0
    return None


def _check_data(x: Batch) -> None:
    for name, value in x.items():
        if (bad := _rows_not_finite(value)).any():
            raise _BrokenError(f"the data of {name!r}", name, "data", bad)


@contextmanager
def _watched(training: Training, objective: Callable[..., Objective]) -> Iterator[None]:
    """Makes everything that a step computes raise ``_BrokenError`` as soon as it is not finite."""
    model = training.model
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    hooks = [net.register_forward_hook(_watch_net(model, n)) for n, net in model.named_modules()]
    # Autograd goes from the losses down: the first gradient to break is nearest to the cause.
    hooks += [p.register_hook(_watch_gradient(model, n)) for n, p in parameters.items()]

    def after(*_: Any) -> None:
        for name, parameter in parameters.items():
            _check(parameter, model, f"the weight {name}", name, "weight")

    hooks += [o.register_step_post_hook(after) for o in training.optimisers.values()]

    def watched(x: Batch) -> Objective:
        result = objective(x)
        for term in result:
            broken = ~term.value.isfinite()
            if term.present is not None:
                broken &= term.present
            if broken.any():
                part = term.about[0] if len(term.about) == 1 else ""
                raise _BrokenError(f"the term {term.name}", part, "term")
        return result

    training.objective = watched
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _watch_net(model: Model, name: str) -> Callable[..., None]:
    def hook(_net: nn.Module, _inputs: Any, output: Any) -> None:
        for value in tree_leaves(output):
            if isinstance(value, Tensor):
                _check(value, model, f"the output of the net {name}", name, "net")

    return hook


def _watch_gradient(model: Model, name: str) -> Callable[[Tensor], None]:
    def hook(gradient: Tensor) -> None:
        what = f"the gradient of {name}"
        _check(gradient, model, what, name, "gradient")

    return hook


def _check(value: Tensor, model: Model, what: str, name: str, source: str) -> None:
    if value.is_floating_point() and not value.isfinite().all():
        raise _BrokenError(what, _modality_of(model, name) or "", source)


def _modality_of(model: Model, name: str) -> str | None:
    """Returns the modality to whose nets ``decoders.image.net.2.weight`` belongs."""
    part: nn.Module = model
    for word in name.split("."):
        if isinstance(part, ByModality):
            return part.modality(word)
        part = getattr(part, word, part)
    return None


def _rows_not_finite(value: Tensor) -> Tensor:
    return ~value.isfinite().reshape(len(value), -1).all(1)


def _finding(
    broken: _BrokenError, training: Training, x: Batch, rows: Tensor, at: tuple[int, int]
) -> Finding:
    size = len(rows)
    bad = broken.rows
    if bad is None and broken.source != "weight":
        bad = _rows_that_break(training.model, x)
    if bad is None or bad.all():
        bad = torch.zeros(size, dtype=torch.bool)
    return Finding(
        what=broken.what,
        modality=broken.part if broken.part in training.model.names else None,
        epoch=at[0],
        batch=at[1],
        rows=tuple(rows[bad.cpu()].sort().values.tolist()),
        size=size,
        source=broken.source,
    )


def _rows_that_break(model: Model, x: Batch) -> Tensor:
    """Returns which rows alone give a loss or a gradient that is not finite, ``(B,)``."""
    model.eval()  # one row has no batch statistics
    bad = torch.zeros(x.rows, dtype=torch.bool)
    for row in range(x.rows):
        model.zero_grad(set_to_none=True)
        with random_state(model.like.device, row):
            objective = model.objective(x.slice(row, row + 1))
        loss = torch.stack([*objective.losses().values()]).sum()
        loss.backward()
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        finite = [loss.isfinite(), *(g.isfinite().all() for g in gradients)]
        bad[row] = not torch.stack(finite).all()
    return bad


def advice(finding: Finding, modality: Modality | None, plugin: str) -> str:
    """Says what to try, by what broke.

    Args:
        finding: What broke.
        modality: The modality that it belongs to, if any.
        plugin: The plugin that provides that modality's kind.
    """
    slower = "a smaller train.learning_rate, or train.gradient_clip=5"
    if finding.source == "data":
        return "Mend or leave out these rows: `mmgen data` refuses them if parse() does"
    if modality is not None and finding.rows and finding.source != "weight":
        return (
            f"Look at these rows; the nets and the likelihood are those of kind {modality.kind!r} "
            f"of plugin {plugin}. Else try {slower}"
        )
    return f"Try {slower}"
