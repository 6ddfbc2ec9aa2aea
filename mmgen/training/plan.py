"""A run before it starts: everything checked, nets and memory counted, and none of it taken."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import psutil
import torch
from torch import nn

from mmgen import build
from mmgen.brief import OneLine
from mmgen.checking import check_stored
from mmgen.data.batches import fits_on_device
from mmgen.data.content import fit
from mmgen.data.store import Dataset, Split
from mmgen.errors import ConfigError, DataError, MmgenError, listed
from mmgen.experiment import Experiment
from mmgen.formatting import size
from mmgen.memory import free_memory
from mmgen.modality import Modality
from mmgen.model import Model
from mmgen.registry.loading import Registry
from mmgen.settings import SyntheticConfig
from mmgen.training import memory as counting
from mmgen.training.ranks import ALONE, Ranks


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
        rows: Observations in a step of a process.
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
    nets: list[counting.Net]
    memory: counting.Memory
    free: float

    def sketch(self) -> Model:
        """Returns the model on the ``meta`` device, where it takes no memory."""
        return build.sketch(self.experiment, self.modalities, self.registry)

    def check_fits(self) -> None:
        """Checks that there is memory enough.

        Raises:
            ConfigError: If not; says what takes most and what to try.
        """
        needs = self.memory
        needed, told = needs.total, ""
        if needs.shared:  # what is resident already is not in what is free
            needed = needs.peak - needs.process
            told = f", what is beside the training {size(needed - needs.total)}"
        if needed <= self.free:
            return
        tries = f"train.batch_size below {self.rows:,}, smaller nets"
        if self.experiment.model.settings.get("subsets") == "all":
            tries += ', model.subsets="single", or model.kind=hierarchical'
        raise ConfigError(
            f"training needs {size(needed)} on {self.device}, where {size(self.free)} are "
            f"free: weights {size(needs.weights)}, optimiser {size(needs.optimiser)}, a step of "
            f"{self.rows:,} rows {size(needs.step)}, data {size(needs.data)}{told}."
            f"\n  Try {tries}; --dry-run lists every net"
        )


def quiet(_words: str) -> None:
    """Says nothing: no one waits."""


def plan(
    experiment: Experiment,
    plugin_modules: Sequence[str] = (),
    trained_with: Mapping[str, Any] | None = None,
    say: Callable[[str], object] = quiet,
    *,
    figures: bool = False,
    ranks: Ranks = ALONE,
) -> Plan:
    """Checks everything and counts nets, parameters and memory, without taking any.

    Args:
        experiment: What to train on what.
        plugin_modules: One-file plugins, as ``mmgen -p``.
        trained_with: The environment of the run that is to go on, if one is.
        say: Is told what is being done, in words for people who wait.
        figures: Whether figures and report are made at the end.
        ranks: The processes that train together; memory is that of one of them.

    Raises:
        MmgenError: If the configuration, the data set, a plugin or the device is not what it
            should be.
    """
    say("looking for plugins ...")
    registry = build.registry(plugin_modules)
    say(f"reading {experiment.data} ...")
    with build.note_plugin_changes(registry, trained_with or {}):
        dataset = build.dataset(experiment, registry)
        modalities = build.modalities(experiment, registry, dataset.modalities)
        check_stored(dataset, modalities, registry)
    if "train" not in splits(dataset):
        raise DataError(
            f"{dataset.path}: there is no training split, only {listed(dataset.splits)}"
        )
    if experiment.train.early_stopping and "validation" not in splits(dataset):
        raise ConfigError(
            f"train.early_stopping: {dataset.path} has no split 'validation' to tell which epoch "
            f"is better, only {listed(splits(dataset))}; leave the setting out"
        )
    modalities = {
        n: fit(n, m, dataset.splits["train"], registry) if m.needs_fit else m
        for n, m in modalities.items()
    }
    experiment = build.resolved(experiment, modalities, build.model_settings(experiment, registry))
    device = ranks.device(build.device(experiment.train.device, "train.device"))
    used = [s for n, s in splits(dataset).items() if n in ("train", "validation")]
    part = ranks.part
    data = sum(s.nbytes(modalities) for s in used if fits_on_device(s, modalities, device, part))
    rows = min(experiment.train.batch_size, splits(dataset)["train"].count)
    rows = -(-rows // part.ranks)
    say("measuring the memory that training needs ...")
    sketch = build.sketch(experiment, modalities, registry)
    ranks.check(experiment.train, len(sketch.parameter_groups()))
    _check_patterns(dataset, sketch, registry)
    lacking = [n for n in sketch.names if any(n in split.present for split in used)]
    try:
        memory = counting.training_memory(sketch, modalities, rows, data, lacking)
        if experiment.train.parallel == "fsdp":
            memory = replace(memory, optimiser=memory.optimiser // part.ranks)
        on_disk = not isinstance(experiment.data, SyntheticConfig)
        memory = _in_process(
            memory,
            sketch,
            device,
            made_up=0 if on_disk else sum(s.nbytes() for s in dataset.splits.values()),
            figures=figures,
        )
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
        nets=counting.nets(sketch),
        memory=memory,
        free=free_memory(device) / (part.beside if device.type == "cpu" else 1),
    )


def _check_patterns(dataset: Dataset, sketch: Model, registry: Registry) -> None:
    """Checks that a model can be trained on the rows there are, if some lack modalities.

    Raises:
        ConfigError: If it cannot; says what others can.
        DataError: If no row to train on has any of its modalities.
    """
    for name in ("train", "validation"):
        split = splits(dataset).get(name)
        if split is None:
            continue
        patterns = split.patterns(sketch.names)
        lacking = split.count - patterns[sketch.names]
        if not lacking:
            continue
        told = f"{lacking:,} of {split.count:,} rows of split {name!r} lack modalities"
        if not sketch.incomplete_rows:
            able = [kind for kind, cls in registry.models.items() if cls.incomplete_rows]
            raise ConfigError(
                f"model.kind = {sketch.kind}: {told}, and it has no q(z | x) of what is left of "
                f"them.\n  Models that learn from such rows: {listed(able)}. Or write a data set "
                "without them"
            )
        if split.count == patterns[()]:
            raise DataError(f"{dataset.path}: no row of split {name!r} has {listed(sketch.names)}")
        sketch.check_patterns(S for S in patterns if S)


def splits(dataset: Dataset) -> dict[str, Split]:
    """Returns the splits that hold rows, by name."""
    return {name: split for name, split in dataset.splits.items() if split.count}


MIB = 2**20

# Measured once: they are the libraries' own, and hardly differ between runs.
LIBRARIES = 25 * MIB
"""What of torch is read first when training begins: the code of its kernels."""
HOLES = 1 / 4
"""Of a step's memory on a CPU: what glibc keeps of blocks that are freed in another order than they
are taken, and the layouts in which oneDNN convolves. It grows over steps, and can be trimmed."""
DRAWING = 100 * MIB
"""matplotlib, its fonts and pages while pictures are drawn."""
DRAWN = 45 * MIB
"""What of that stays."""
CLOSING = 120 * MIB
"""What torch takes when the interpreter takes it apart, at the process's end."""


def _in_process(
    memory: counting.Memory,
    sketch: nn.Module,
    device: torch.device,
    *,
    made_up: int = 0,
    figures: bool = False,
) -> counting.Memory:
    """Adds what the process takes beside the training, before, during and after it.

    Args:
        memory: What training takes.
        sketch: The model.
        device: Where it would train.
        made_up: Bytes of a data set that is in memory alone: the report makes it once more.
        figures: Whether figures and report are made at the end.
    """
    shared = device.type == "cpu"
    drawing = (memory.weights if shared else 0) + DRAWING + made_up
    return replace(
        memory,
        process=psutil.Process().memory_info().rss,
        libraries=LIBRARIES,
        copied=0 if shared else max(p.nbytes for p in sketch.parameters()),
        kept=int(HOLES * memory.step) if shared else 0,
        afterwards=max(drawing, DRAWN + CLOSING) if figures else CLOSING,
        shared=shared,
    )
