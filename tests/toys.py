"""Toy modalities, and the models, data and runs that the core's tests make of them.

This file is a one-file plugin as well: a run that names its kinds is loaded with
``plugin_modules=[toys.PLUGIN]``.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.distributions import Bernoulli, Independent, Normal
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mmgen import build, hookimpl
from mmgen.batch import Batch
from mmgen.data.batches import Batches
from mmgen.data.sources.synthetic import synthetic
from mmgen.data.store import Split
from mmgen.experiment import Experiment
from mmgen.modality import Modality
from mmgen.model import Model
from mmgen.models import mmgen_models
from mmgen.nets.blocks import Likelihood, convolutional_decoder, convolutional_encoder, mlp, one_hot
from mmgen.registry.loading import Registry
from mmgen.training import run_folder
from mmgen.training.loop import Training

PLUGIN = str(Path(__file__).resolve())
CPU = torch.device("cpu")

CUDA = (
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
)


def on_gpu(test):
    """Marks a test that runs where there is a CUDA device, and is skipped where there is none."""
    for mark in CUDA:
        test = mark(test)
    return test


class Numbers(Modality):
    """A vector of numbers with Gaussian noise of a fixed standard deviation.

    Without widths the encoder hands the values on, so that posterior means are linear in them,
    and the decoder is linear: the model that has closed forms.
    """

    kind: ClassVar[str] = "numbers"
    api_version: ClassVar[int] = 1

    size: PositiveInt = 3
    widths: tuple[PositiveInt, ...] = (8,)
    deviation: PositiveFloat = 0.5

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.size,)

    def encoder(self) -> nn.Module:
        return mlp(self.size, self.widths)

    def decoder(self, in_features: int) -> nn.Module:
        def family(mean: Tensor) -> Independent:
            noise = torch.full_like(mean, self.deviation)
            return Independent(Normal(mean, noise, validate_args=False), 1, validate_args=False)

        return Likelihood(mlp(in_features, self.widths, self.size), family)

    def parse(self, cell: str) -> Tensor:
        values = torch.tensor([float(value) for value in cell.split(",")])
        if values.shape != self.shape:
            raise ValueError(f"{cell!r} has {len(values)} numbers, not {self.size}")
        return values


class Word(Modality):
    """One of a few words, stored as its number."""

    kind: ClassVar[str] = "word"
    api_version: ClassVar[int] = 1

    words: tuple[str, ...] = ("red", "green", "blue")

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.words),)

    def encoder(self) -> nn.Module:
        return mlp(len(self.words), [6])

    def decoder(self, in_features: int) -> nn.Module:
        return Likelihood(mlp(in_features, [6], len(self.words)), one_hot)

    def parse(self, cell: str) -> Tensor:
        if cell not in self.words:
            raise ValueError(f"there is no word {cell!r}")
        return torch.tensor(self.words.index(cell), dtype=torch.uint8)

    def observe(self, stored: Tensor, generator: torch.Generator | None = None) -> Tensor:
        return F.one_hot(stored.long(), len(self.words)).to(torch.get_default_dtype())

    def example(self, classes: Tensor, generator: torch.Generator) -> Tensor:
        return (classes % len(self.words)).to(torch.uint8)


class Grid(Modality):
    """A binary picture, drawn anew at each look: its observation reads the random state."""

    kind: ClassVar[str] = "grid"
    api_version: ClassVar[int] = 1

    side: PositiveInt = 6

    @property
    def shape(self) -> tuple[int, ...]:
        return (1, self.side, self.side)

    def encoder(self) -> nn.Module:
        return convolutional_encoder((1, self.side, self.side), [3])

    def decoder(self, in_features: int) -> nn.Module:
        def family(logits: Tensor) -> Independent:
            return Independent(
                Bernoulli(logits=logits, validate_args=False), 3, validate_args=False
            )

        return Likelihood(convolutional_decoder(in_features, self.shape, [3]), family)

    def observe(self, stored: Tensor, generator: torch.Generator | None = None) -> Tensor:
        intensity = stored.to(torch.get_default_dtype()) / 255
        return torch.bernoulli(intensity, generator=generator)

    def example(self, classes: Tensor, generator: torch.Generator) -> Tensor:
        bright = (torch.arange(self.side**2) % 5 == classes.unsqueeze(1) % 5).view(-1, *self.shape)
        return torch.where(bright, 230, 25).to(torch.uint8)


class Opaque(Numbers):
    """Numbers behind an encoder with a layer that replication does not know, so it loops."""

    kind: ClassVar[str] = "opaque"

    def encoder(self) -> nn.Module:
        return nn.Sequential(nn.Linear(self.size, 5), Sine())


class Sine(nn.Module):
    """An activation that nobody knows."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sin()


@hookimpl
def mmgen_modalities() -> list[type[Modality]]:
    return [Numbers, Word, Grid, Opaque]


FIVE: dict[str, Modality] = {
    "colour": Word(),
    "point": Numbers(),
    "picture": Grid(),
    "wave": Opaque(size=2),
    "side": Word(words=("left", "right")),
}

REGISTRY = Registry((), models={cls.kind: cls for cls in mmgen_models()})
"""The models that come with mmgen, without a search for plugins."""

KINDS = tuple(REGISTRY.models)

ONE_WAY = tuple(k for k, cls in REGISTRY.models.items() if "targets" in cls.Settings.model_fields)
"""Models of one direction, which need ``targets``."""

JOINT = tuple(k for k in KINDS if k not in ONE_WAY)
"""Models that generate anything from anything."""

SMALL: dict[str, Any] = {"latent": 3, "fusion": (7,), "widths": (9,)}
"""Settings of a small model, as far as its kind has them."""


def small_settings(kind: str, names: Iterable[str]) -> dict[str, Any]:
    """Returns the settings of a small model of some modalities."""
    cls = REGISTRY.model(kind)
    own = {key: value for key, value in SMALL.items() if key in cls.Settings.model_fields}
    return own | cls.example_settings(tuple(names))


def toy_modalities(count: int) -> dict[str, Modality]:
    """Returns the first ``count`` of five modalities."""
    return dict(list(FIVE.items())[:count])


def experiment(
    kind: str,
    modalities: Mapping[str, Modality],
    model: Mapping[str, Any] | None = None,
    **train: Any,
) -> Experiment:
    """Returns the resolved experiment of a small model."""
    table = {
        "data": {"path": "/nowhere"},
        "modalities": {name: m.to_config() for name, m in modalities.items()},
        "model": {"kind": kind, **small_settings(kind, modalities), **(model or {})},
        "train": {"epochs": 2, "batch_size": 8, "device": "cpu", **train},
    }
    return Experiment.checked(json.loads(json.dumps(table)), "toys")  # lists, as a file has them


def made(kind: str, modalities: Mapping[str, Modality], **settings: Any) -> Model:
    """Builds a model of exactly these settings; all others are its own defaults."""
    cls = REGISTRY.model(kind)
    return cls(modalities, cls.Settings(**settings))


def toy_model(kind: str, modalities: Mapping[str, Modality], **model: Any) -> Model:
    """Builds a small model on the CPU, always with the same first weights."""
    return build.model(experiment(kind, modalities, model), modalities, CPU, REGISTRY)


def stored(modalities: Mapping[str, Modality], rows: int, seed: int = 0) -> dict[str, Tensor]:
    """Makes paired stored values."""
    return synthetic(modalities, {"train": rows}, classes=5, seed=seed)["train"]


def batches(
    modalities: Mapping[str, Modality],
    rows: int,
    batch_size: int = 8,
    seed: int = 0,
    device: torch.device = CPU,
) -> Batches:
    """Makes a split in memory and its batches."""
    split = Split((stored(modalities, rows, seed),))
    return Batches(split, modalities, device=device, batch_size=batch_size)


def observations(modalities: Mapping[str, Modality], rows: int, seed: int = 0) -> Batch:
    """Makes one batch of paired observations; the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        values = stored(modalities, rows, seed)
        return Batch({n: modalities[n].observe(x) for n, x in values.items()})


def training(
    kind: str,
    modalities: Mapping[str, Modality],
    model: Mapping[str, Any] | None = None,
    device: torch.device = CPU,
    **train: Any,
) -> Training:
    """Builds a model and its training."""
    resolved = experiment(kind, modalities, model, **train)
    built = build.model(resolved, modalities, device, REGISTRY)
    return Training(built, resolved.train, device)


def write_run(
    path: Path, kind: str, modalities: Mapping[str, Modality], model: Mapping[str, Any]
) -> Training:
    """Writes a run of an untrained model, as ``mmgen train`` would."""
    resolved = experiment(kind, modalities, model)
    state = training(kind, modalities, model)
    run_folder.create(path, resolved, {"command": "toys"})
    run_folder.save_weights(path, state, 0)
    run_folder.save_checkpoint(path, state)
    return state


class OneDevice(TorchDispatchMode):
    """Refuses tensors of any other device than this one; numbers (no dimensions) may be anywhere.

    The meta device alone does not: ``x @ w`` with w on the CPU is a meta tensor without a word.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves((args, kwargs, out)):
            if isinstance(tensor, Tensor) and self.refuses(tensor):
                raise RuntimeError(f"{func} reads or makes a tensor on {tensor.device}")
        return out

    def refuses(self, tensor):
        return tensor.dim() > 0 and tensor.device != self.device


def gradients(module: nn.Module) -> dict[str, Tensor | None]:
    """Returns a copy of the gradient of every parameter."""
    return {
        name: None if p.grad is None else p.grad.clone() for name, p in module.named_parameters()
    }


def differing(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> list[str]:
    """Returns the names of tensors that are not equal bit for bit, or in one mapping alone."""
    names: Sequence[str] = [*first, *(n for n in second if n not in first)]
    return [
        n
        for n in names
        if n not in first or n not in second or not torch.equal(first[n], second[n])
    ]
