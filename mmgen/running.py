"""A run from start to end: prepare it, train it, save after every epoch, go on where it stopped."""

import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from mmgen import build, checkpoint
from mmgen.config import Experiment
from mmgen.data.batches import Batches
from mmgen.data.store import Dataset
from mmgen.errors import DataError, MmgenError, RunError, listed
from mmgen.modality import Modality
from mmgen.plugins import Registry
from mmgen.training import Epoch, Step, Training, fit


@dataclass(frozen=True)
class Prepared:
    """All that a run needs, checked and built, with nothing written yet.

    Attributes:
        experiment: The resolved configuration.
        dataset: The data set.
        modalities: The modalities by name.
        training: Model, optimisers and counters.
        train: The training split's batches.
        validation: The validation split's batches, if there is such a split.
        registry: The plugins found.
    """

    experiment: Experiment
    dataset: Dataset
    modalities: dict[str, Modality]
    training: Training
    train: Batches
    validation: Batches | None
    registry: Registry

    def environment(self) -> dict[str, Any]:
        """Returns what else decides a run: versions, plugins, data set, device, command."""
        providers = {m.kind: str(self.registry.provider(m.kind)) for m in self.modalities.values()}
        packages = ("mmgen", "torch", "torchvision", "safetensors", "numpy")
        return {
            "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
            "plugins": providers,
            "dataset": {"name": self.dataset.name, "hash": self.dataset.hash},
            "device": str(self.training.device),
            "threads": torch.get_num_threads(),
            "machine": f"{platform.system()} {platform.machine()}",
            "command": " ".join(["mmgen", *sys.argv[1:]]),
        }


def prepare(experiment: Experiment, plugin_modules: Sequence[str] = ()) -> Prepared:
    """Checks and builds everything before anything is written.

    Raises:
        MmgenError: If the configuration, the data set, a plugin or the device is not what it
            should be.
    """
    registry = build.registry(plugin_modules)
    dataset = build.dataset(experiment, registry)
    modalities = build.modalities(experiment, registry, dataset.modalities)
    experiment = build.resolved(experiment, modalities)
    device = build.device(experiment.train.device)
    splits = {n: s for n, s in dataset.splits.items() if s.count}
    if "train" not in splits:
        raise DataError(
            f"{dataset.path}: there is no training split, only {listed(dataset.splits)}"
        )

    def batches(split: str) -> Batches:
        size = experiment.train.batch_size
        return Batches(splits[split], modalities, device=device, batch_size=size)

    model = build.model(experiment, modalities, device)
    return Prepared(
        experiment=experiment,
        dataset=dataset,
        modalities=modalities,
        training=Training(model, experiment.train, device),
        train=batches("train"),
        validation=batches("validation") if "validation" in splits else None,
        registry=registry,
    )


def start(prepared: Prepared, out: Path, *, force: bool = False) -> None:
    """Makes the run folder, with the resolved experiment in it.

    Raises:
        RunError: If the folder is taken.
    """
    checkpoint.create(out, prepared.experiment, prepared.environment(), force=force)


def go_on(prepared: Prepared, out: Path) -> None:
    """Puts the training back to the run's last checkpoint; before the first one, to the start.

    Raises:
        RunError: If the run is another experiment's, or on other data.
    """
    trained = checkpoint.experiment(out)
    different = _differences(trained.model_dump(), prepared.experiment.model_dump())
    # More epochs, another device or another place of the same data are the same experiment.
    free = {"train.epochs", "train.device", "train.tensorboard", "data.path", "data.source", "name"}
    if keys := [key for key in different if key not in free]:
        raise RunError(
            f"{out}: was trained with other settings of {listed(keys)}; "
            "drop them, or choose another --out"
        )
    if checkpoint.environment(out)["dataset"]["hash"] != prepared.dataset.hash:
        raise RunError(f"{out}: was trained on another data set than {prepared.dataset.path}")
    if (out / "last.safetensors").exists():
        checkpoint.resume(out, prepared.training)
    checkpoint.write(out / "experiment.json", prepared.experiment.model_dump_json(indent=2) + "\n")


def _differences(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for key in {**a, **b}:
        left, right = a.get(key), b.get(key)
        if isinstance(left, Mapping) and isinstance(right, Mapping):
            keys += _differences(left, right, f"{prefix}{key}.")
        elif left != right:
            keys.append(f"{prefix}{key}")
    return keys


def train(prepared: Prepared, out: Path) -> Iterator[Step | Epoch]:
    """Trains and saves: metrics, best weights and checkpoint after every epoch.

    Yields:
        The items of :func:`mmgen.training.fit`, each after it was saved. A caller that stops
        between two items calls :func:`mmgen.checkpoint.save_checkpoint` to keep the steps since.
    """
    training = prepared.training
    board = _tensorboard(out) if prepared.experiment.train.tensorboard else None
    for item in fit(training, prepared.train, prepared.validation):
        if isinstance(item, Epoch):
            checkpoint.append_metrics(out, item)
            if item.best:
                checkpoint.save_weights(out, training, item.epoch)
            checkpoint.save_checkpoint(out, training)
            if board is not None:
                for split in ("train", "validation"):
                    for term, value in getattr(item, split).items():
                        board.add_scalar(f"{term}/{split}", value, item.epoch)
                board.flush()
        yield item


def _tensorboard(out: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise MmgenError(
            "train.tensorboard: TensorBoard is not installed: pip install 'mmgen[tensorboard]'"
        ) from None
    return SummaryWriter(out / "tensorboard")
