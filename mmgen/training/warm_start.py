"""Weights of another run, where names and shapes match: a training need not begin at random."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from mmgen.brief import OneLine
from mmgen.errors import RunError
from mmgen.files.reading import exists
from mmgen.files.tensors import TensorFile
from mmgen.formatting import counted
from mmgen.model import Model
from mmgen.training import records, restoring, run_folder

PREFIX = "model/"

SHOWN = 2
"""So many names of what did not match are told; the rest is counted."""


@dataclass(frozen=True, repr=False)
class WarmStart(OneLine):
    """What a model takes of another run, by the names of its weights and buffers.

    Attributes:
        run: The other run's folder.
        weights: ``best`` or ``last``.
        epoch: Of which epoch they are.
        taken: Those that are there in the same shape.
        reshaped: Those that are there in another one.
        new: Those that are not there.
        unused: Those of the other run that this model has not.
    """

    run: Path
    weights: str
    epoch: int
    taken: tuple[str, ...]
    reshaped: tuple[str, ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        """Says in a line what is taken, and what did not match."""
        parts = {
            "of another shape": self.reshaped,
            "new here": self.new,
            "not in this model": self.unused,
        }
        told = [f"{len(names)} {what} ({_few(names)})" for what, names in parts.items() if names]
        all_here = len(self.taken) + len(self.reshaped) + len(self.new)
        what = f"{len(self.taken)} of {counted(all_here, 'tensor')} of the model"
        head = f"begins with the {self.weights} weights of {self.run}, epoch {self.epoch}: {what}"
        return "; ".join([head, *told])

    def noted(self) -> dict[str, Any]:
        """Returns what is kept of it with the new run, as JSON values."""
        return {"run": str(self.run.absolute()), "weights": self.weights, "epoch": self.epoch}


def compared(path: Path, model: Model) -> WarmStart:
    """Compares a run's weights with a model's by name and shape; none of them is read.

    Args:
        path: The run folder.
        model: The model; it may be on the ``meta`` device.

    Raises:
        RunError: If there is no run, it is damaged or of a newer version, or nothing matches.
    """
    return _matched(path, model, read=False)


def take(path: Path, model: Model) -> WarmStart:
    """Reads a run's weights into a model where names and shapes match.

    Nothing is read unless all that matches is whole; the run's folder is left as it is.

    Args:
        path: The run folder.
        model: The model.

    Raises:
        RunError: As :func:`compared`, or if a weight is no finite number.
    """
    return _matched(path, model, read=True)


def _matched(path: Path, model: Model, *, read: bool) -> WarmStart:
    trained = run_folder.experiment(path)
    run_folder.environment(path)  # refuses a run of a newer version
    weights = "best" if exists(path / "best.safetensors") else "last"
    file = path / f"{weights}.safetensors"
    # Weights of format 1 have the number of their modality for its name.
    alike = (*trained.modalities,) == model.names
    with run_folder.opened(file, records.WeightsHeader, model if alike else None) as opened:
        tensors, header = opened
        if header.format == 1 and not alike:
            raise RunError(
                f"{file}: of format 1, whose weights have numbers for the names of modalities, and "
                "its modalities are not those of this experiment in their order"
            )
        found = _compared(path, weights, header.epoch, model, tensors)
        if read:
            _check_finite(file, model, tensors, found.taken)
            tensors.read_module(model, PREFIX, found.taken)
    return found


def _compared(
    path: Path, weights: str, epoch: int, model: nn.Module, tensors: TensorFile
) -> WarmStart:
    own = model.state_dict()
    stored = {
        name.removeprefix(PREFIX): each
        for name, each in tensors.stored.items()
        if name.startswith(PREFIX)
    }
    taken = [n for n, tensor in own.items() if n in stored and restoring.fits(stored[n], tensor)]
    if not taken:
        raise RunError(
            f"{path}: none of its weights has a name and a shape of this model "
            f"(there: {_few([*stored])}; here: {_few([*own])})"
        )
    return WarmStart(
        run=path,
        weights=weights,
        epoch=epoch,
        taken=tuple(taken),
        reshaped=tuple(n for n in own if n in stored and n not in taken),
        new=tuple(n for n in own if n not in stored),
        unused=tuple(n for n in stored if n not in own),
    )


def _check_finite(file: Path, model: nn.Module, tensors: TensorFile, names: Sequence[str]) -> None:
    trained = {n for n, parameter in model.named_parameters() if parameter.requires_grad}
    for name in names:
        if name in trained and not restoring.finite(tensors, PREFIX + name):
            raise RunError(f"{file}: {name!r} is not finite; take the weights of another run")


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(name[:80] for name in names[:SHOWN])
    return f"{shown}, ..." if len(names) > SHOWN else shown or "none"
