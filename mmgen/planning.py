"""A run before it starts: everything checked, nets and memory counted, and none of it taken."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from mmgen import build, inventory
from mmgen.brief import OneLine
from mmgen.checking import check_stored
from mmgen.config import Experiment
from mmgen.data.batches import stays
from mmgen.data.store import Dataset, Split
from mmgen.errors import ConfigError, DataError, MmgenError, listed
from mmgen.memory import free_memory, size
from mmgen.modality import Modality
from mmgen.plugins import Registry


@dataclass(frozen=True, repr=False)
class Plan(OneLine):
    """What a run would be made of and need, with nothing built yet.

    Attributes:
        experiment: The resolved configuration.
        dataset: The data set.
        modalities: The modalities by name.
        registry: The plugins found.
        device: Where it would train.
        direction: What it would generate from what.
        rows: Observations in a step.
        nets: Every net of the model.
        memory: What training needs there, in bytes.
        free: The bytes that are free there.
    """

    experiment: Experiment
    dataset: Dataset
    modalities: dict[str, Modality]
    registry: Registry
    device: torch.device
    direction: str
    rows: int
    nets: list[inventory.Net]
    memory: inventory.Memory
    free: float

    def check_fits(self) -> None:
        """Checks that there is memory enough.

        Raises:
            ConfigError: If not; says what takes most and what to try.
        """
        if self.memory.total <= self.free:
            return
        needs = self.memory
        tries = f"train.batch_size below {self.rows:,}, smaller nets"
        if self.experiment.model.kind == "jmvae-kl":
            tries += ', model.subsets="single", or model.kind=hierarchical'
        raise ConfigError(
            f"training needs {size(needs.total)} on {self.device}, where {size(self.free)} are "
            f"free: weights {size(needs.weights)}, optimiser {size(needs.optimiser)}, a step of "
            f"{self.rows:,} rows {size(needs.step)}, data {size(needs.data)}."
            f"\n  Try {tries}; --dry-run lists every net"
        )


def quiet(_words: str) -> None:
    """Says nothing: no one waits."""


def plan(
    experiment: Experiment,
    plugin_modules: Sequence[str] = (),
    trained_with: Mapping[str, str] | None = None,
    say: Callable[[str], object] = quiet,
) -> Plan:
    """Checks everything and counts nets, parameters and memory, without taking any.

    Args:
        experiment: What to train on what.
        plugin_modules: One-file plugins, as ``mmgen -p``.
        trained_with: The provider of each kind, if a run is to go on.
        say: Is told what is being done, in words for people who wait.

    Raises:
        MmgenError: If the configuration, the data set, a plugin or the device is not what it
            should be.
    """
    say("looking for plugins ...")
    registry = build.registry(plugin_modules)
    say(f"reading {experiment.data} ...")
    with build.since_training(registry, trained_with or {}):
        dataset = build.dataset(experiment, registry)
        modalities = build.modalities(experiment, registry, dataset.modalities)
        check_stored(dataset, modalities, registry)
    experiment = build.resolved(experiment, modalities)
    device = build.device(experiment.train.device, "train.device")
    if "train" not in splits(dataset):
        raise DataError(
            f"{dataset.path}: there is no training split, only {listed(dataset.splits)}"
        )
    used = [s for n, s in splits(dataset).items() if n in ("train", "validation")]
    data = sum(s.nbytes(modalities) for s in used if stays(s, modalities, device))
    rows = min(experiment.train.batch_size, splits(dataset)["train"].count)
    say("measuring the memory that training needs ...")
    sketch = build.sketch(experiment, modalities)
    try:
        memory = inventory.training_memory(sketch, modalities, rows, data)
    except MmgenError:
        raise
    except Exception as error:  # sizes beyond what a tensor can have, for one
        cause = str(error).partition("\n")[0]
        raise ConfigError(f"no model can be built with these settings: {cause}") from error
    return Plan(
        experiment=experiment,
        dataset=dataset,
        modalities=modalities,
        registry=registry,
        device=device,
        direction=sketch.direction(),
        rows=rows,
        nets=inventory.nets(sketch),
        memory=memory,
        free=free_memory(device),
    )


def splits(dataset: Dataset) -> dict[str, Split]:
    """Returns the splits that hold rows, by name."""
    return {name: split for name, split in dataset.splits.items() if split.count}
