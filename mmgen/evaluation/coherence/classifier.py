"""Small classifiers that tell what is seen in observations, trained on real ones and kept.

A classifier belongs to a data set, not to a run: it is trained once on the training split and kept
beside the data, so that all runs are judged by the same one. Its name and header hold all that
decides it; a file that differs in any of it is left alone, and one that is damaged is replaced.
"""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from mmgen.brief import OneLine
from mmgen.data.batches import Batches
from mmgen.data.index import read_index
from mmgen.data.store import Dataset
from mmgen.errors import DataError, WriteError
from mmgen.evaluation.coherence.readout import Readout
from mmgen.files.reading import Reader, exists
from mmgen.files.tensors import open_tensors, write_tensors
from mmgen.held_out import held_out
from mmgen.modality import Modality
from mmgen.nets.blocks import convolutional_encoder
from mmgen.nets.dry_run import features
from mmgen.seeding import random_state
from mmgen.training.plan import splits
from mmgen.training.records import Record
from mmgen.training.restoring import check_weights

FORMAT = 1

CHANNELS = (32, 64, 128, 256)
"""Of the convolutions for pictures, as many as leave at least :data:`LEAST` pixels a side."""

LEAST = 4

HIDDEN = 128
"""Units between features and answers; without them, switches of glyphs are seen less well."""

SPECIMENS = 64
"""Observations that tell whether a kept classifier was trained on ones like these."""

WRITTEN = {"multiclass": "one of", "multilabel": "on or off"}
"""How the header of a kept classifier has it."""

_FILES = Reader(DataError)


class _Kept(Record):
    accuracy: Annotated[float, Field(ge=0, le=1)] | None


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained: Adam with a step size that ends at zero.

    Attributes:
        steps: The most steps.
        epochs: The most epochs, which end training earlier on small data.
        batch_size: Rows a step.
        learning_rate: The first step size.
        seed: Of the first weights, the order of rows, and what stochastic observations show.
    """

    steps: int = 1000
    epochs: int = 60
    batch_size: int = 128
    learning_rate: float = 3e-3
    seed: int = 0


@dataclass(frozen=True, eq=False, repr=False)
class Classifier(OneLine):
    """Tells what a modality's readout is from observations of another modality.

    Attributes:
        net: ``(B, *shape) -> (B, n)`` logits, in eval mode.
        readout: What its answers mean.
        accuracy: The share of right answers on the data set's held-out split; ``None`` if it has
            none.
        notes: What the user should know: that it could not be kept, for example.
    """

    net: nn.Sequential
    readout: Readout
    accuracy: float | None
    notes: list[str] = field(default_factory=list)

    def predict(self, x: Tensor) -> Tensor:
        """Reads ``(B, *shape)``: class numbers ``(B,)``, or what is on ``(B, n)``."""
        return self.decide(self.features(x))

    def features(self, x: Tensor) -> Tensor:
        """Returns what the last layer reads of ``(B, *shape)``: ``(B, HIDDEN)``, if not linear."""
        features: Tensor = self.net[:-1](x)
        return features

    def decide(self, features: Tensor) -> Tensor:
        """Reads features ``(..., HIDDEN)``: class numbers ``(...)``, or what is on ``(..., n)``."""
        logits: Tensor = self.net[-1](features)
        return logits.argmax(-1) if self.readout.sort == "multiclass" else logits > 0


def classifier(
    dataset: Dataset,
    modalities: dict[str, Modality],
    seen: str,
    about: str,
    readout: Readout,
    device: torch.device,
    *,
    linear: bool = False,
    recipe: Recipe | None = None,
    say: Callable[[str], object] = lambda _: None,
) -> Classifier:
    """Returns the classifier kept beside the data set, or trains it and keeps it there.

    Random state and grad mode of the caller are left as they are.

    Args:
        dataset: Has a split ``train``.
        modalities: At least the two, by name.
        seen: What it looks at.
        about: What it tells.
        readout: How ``about`` is read.
        device: Where it is to run.
        linear: Whether it is logistic regression, on the observation as it is.
        recipe: How it is trained.
        say: Called with a few words before it is trained.
    """
    recipe = recipe or Recipe()
    modality = modalities[seen]
    with random_state(device, recipe.seed), device:
        net = network(modality, len(readout.choices), linear=linear)
    identity = {
        "format": FORMAT,
        "data": dataset.hash,
        "seen": seen,
        "about": about,
        "sort": WRITTEN[readout.sort],
        "choices": list(readout.choices),
        "net": str(net),
        "observations": _digest(dataset, modality, seen, recipe.seed),
        "recipe": asdict(recipe),
    }
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    folder = _folder(dataset)
    file = None if folder is None else folder / f"classifier-{seen}-{about}-{key}.safetensors"
    notes = []
    if file is not None and exists(file):
        try:
            return Classifier(net.eval(), readout, _restore(file, net, identity))
        except (DataError, ValueError) as error:
            cause = str(error).removeprefix(f"{file}: ")
            notes.append(f"{file} was damaged ({cause}) and is trained anew")
    say(f"training a {'linear ' if linear else ''}classifier of {about} in {seen}")
    with random_state(device, recipe.seed), device:
        # Anew: a damaged file may have left its traces.
        net = network(modality, len(readout.choices), linear=linear)
    chosen = {n: modalities[n] for n in (seen, about)}
    trained = Classifier(net, readout, None)
    with random_state(device, recipe.seed):
        _train(trained, dataset, chosen, device, recipe)
        accuracy = _accuracy(trained, dataset, chosen, device)
    if file is not None:
        try:
            _keep(file, net, {**identity, "accuracy": accuracy})
        except WriteError as error:
            notes.append(f"the classifier of {about} in {seen} is not kept: {error}")
    return Classifier(net, readout, accuracy, notes)


def network(modality: Modality, choices: int, *, linear: bool = False) -> nn.Sequential:
    """Builds a net ``(B, *shape) -> (B, choices)``: features, and two linear layers.

    Of logistic regression, features are the numbers of the observation, and one layer reads them.

    Observations ``(C, H, W)`` get convolutions whatever the modality's own encoder is: the
    classifier's accuracy on real data is the ceiling of what it can find in generated data, and
    an MLP's is lower. They are batch-normalised: without that, few photographs left all units
    dead. All others get the modality's own encoder.
    """
    if linear:
        return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(modality.shape), choices))
    encoder = modality.encoder()
    if len(modality.shape) == 3:
        channels, height, width = modality.shape
        side = min(height, width)
        layers = sum(side >> n >= LEAST for n in range(1, len(CHANNELS) + 1))
        if layers:
            shape = (channels, height, width)
            encoder = convolutional_encoder(shape, CHANNELS[:layers], batch_norm=True)
    width = features(encoder, modality.shape)
    return nn.Sequential(encoder, nn.Linear(width, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, choices))


@torch.enable_grad()  # type: ignore[untyped-decorator, unused-ignore]
def _train(
    classifier: Classifier,
    dataset: Dataset,
    modalities: dict[str, Modality],
    device: torch.device,
    recipe: Recipe,
) -> None:
    seen, about = modalities
    net, readout = classifier.net.train(), classifier.readout
    split = dataset.splits["train"].having(modalities)
    batches = Batches(split, modalities, device=device, batch_size=recipe.batch_size)
    steps = min(recipe.steps, recipe.epochs * len(batches))
    optimiser = torch.optim.Adam(net.parameters(), lr=recipe.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    done, epoch = 0, 0
    while done < steps:
        for x in batches.epoch(recipe.seed, epoch):
            if done == steps or (len(batches) > 1 and len(x[seen]) == 1):
                break  # one row left over has no batch statistics
            truth, logits = readout.read(x[about]), net(x[seen])
            if readout.sort == "multiclass":
                loss = F.cross_entropy(logits, truth)
            else:
                known = modalities[about].known(x[about])
                weight = None if known is None else known.flatten(1).to(logits)
                loss = F.binary_cross_entropy_with_logits(logits, truth.to(logits), weight)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            done += 1
        epoch += 1
    net.eval()


@torch.no_grad()
def _accuracy(
    classifier: Classifier,
    dataset: Dataset,
    modalities: dict[str, Modality],
    device: torch.device,
) -> float | None:
    seen, about = modalities
    filled = splits(dataset)
    split = held_out(filled)
    if split is None:
        return None
    rows = filled[split].having(modalities)
    if not rows.count:
        return None
    batches = Batches(rows, modalities, device=device, batch_size=500)
    right = []
    for x in batches.epoch(None, 0):
        same = classifier.predict(x[seen]) == classifier.readout.read(x[about])
        known = modalities[about].known(x[about]) if same.dim() > 1 else None
        right.append(same.flatten() if known is None else same[known.flatten(1)])
    return torch.cat(right).cpu().double().mean().item()


def _digest(dataset: Dataset, modality: Modality, name: str, seed: int) -> str:
    """Hashes what the first rows are observed as: it is this that settings must not change."""
    split = dataset.splits["train"].having([name])
    rows = torch.arange(min(SPECIMENS, split.count), device="cpu")
    with random_state(torch.device("cpu"), seed):
        x = modality.observe(split.take(rows, [name])[name])
    content = x.float().contiguous().numpy().tobytes()
    return hashlib.sha256(content).hexdigest()


def _folder(dataset: Dataset) -> Path | None:
    """Returns the folder that the data set was read from, if it is not in memory alone."""
    try:
        return dataset.path if read_index(dataset.path).hash == dataset.hash else None
    except (DataError, OSError):
        return None


def _keep(file: Path, net: nn.Module, header: dict[str, Any]) -> None:
    write_tensors(file, net.state_dict(), {"mmgen": json.dumps(header)})


def _restore(file: Path, net: nn.Module, identity: dict[str, Any]) -> float | None:
    with open_tensors(file, _FILES) as tensors:
        if {n: tensors.header.get(n) for n in identity} != identity:
            raise ValueError("its header is of another classifier")
        accuracy = _FILES.check(_Kept, tensors.header, file).accuracy
        check_weights(net, tensors, "")
        tensors.read_module(net, "")
    return accuracy
