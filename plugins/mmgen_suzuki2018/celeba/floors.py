"""What Table 2's numbers lie between: the best constant answer, and no error at all."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from mmgen.data.batches import Batches
from mmgen.data.store import Dataset, Split
from mmgen.run import Run
from mmgen_suzuki2018.celeba import COLUMNS, IMAGE
from mmgen_suzuki2018.table import Floor


def floors(run: Run, dataset: Dataset, rows: Split) -> list[Floor]:
    """Returns, by column, what the mean of the training split scores, and the target itself.

    The likelihood is the study's: Gaussian of variance 1, averaged over the colours of pictures.

    Args:
        run: Whose modalities say what the nets see.
        dataset: Its split ``train`` has the mean.
        rows: The test rows.
    """
    constant, exact = {}, {}
    for name in {target for _, (target,), _, _ in COLUMNS}:
        modality = run.modalities[name]
        mean = _sum(run, dataset.splits["train"], name) / dataset.splits["train"].count
        missed = sum(((x - mean) ** 2).sum() for x in _blocks(run, rows, name))
        colours = modality.shape[0] if name == IMAGE else 1
        numbers = math.prod(modality.shape) / colours
        exact[name] = -numbers * math.log(2 * math.pi) / 2
        constant[name] = exact[name] - float(missed) / rows.count / colours / 2
    return [
        ("best constant", [constant[target] for _, (target,), _, _ in COLUMNS]),
        ("no error at all", [exact[target] for _, (target,), _, _ in COLUMNS]),
    ]


def _sum(run: Run, rows: Split, name: str) -> Tensor:
    return torch.stack([x.sum(0) for x in _blocks(run, rows, name)]).sum(0)


def _blocks(run: Run, rows: Split, name: str) -> Iterator[Tensor]:
    batches = Batches(rows, {name: run.modalities[name]}, device=run.device, batch_size=500)
    for x in batches.epoch(None, 0):
        yield x[name].double()
