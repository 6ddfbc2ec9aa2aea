"""The rows that a report looks at: held out, spread over their split, or a word on why not."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmgen.batch import Batch
from mmgen.brief import OneLine
from mmgen.data.store import Dataset
from mmgen.errors import ConfigError, DataError
from mmgen.gallery.groups import spread
from mmgen.held_out import rows_of
from mmgen.registry.loading import Registry
from mmgen.run import Run

ROWS = 600
"""How many rows the latent space is looked at with."""


@dataclass(frozen=True, repr=False)
class HeldOut(OneLine):
    """Observations that the run was not trained on, if there are any; their rows lack nothing.

    Attributes:
        dataset: Where they are from.
        split: ``test``, ``validation``, or ``train`` if there is no other.
        x: ``(N, *shape)`` of each modality, on the run's device.
    """

    dataset: Dataset
    split: str
    x: Batch

    def spread(self, count: int) -> Batch:
        """Returns up to ``count`` of the rows, evenly spread over all of them."""
        rows = spread(self.x.rows, count)
        return Batch({n: values[rows.to(values.device)] for n, values in self.x.items()})


def held_out(
    run: Run, registry: Registry, data: Path | None, environment: Mapping[str, Any]
) -> HeldOut | str:
    """Reads rows of the test split, or of the next best one.

    Args:
        run: The trained run.
        registry: The plugins there are.
        data: The data set's folder; without it, the one that the run names.
        environment: What the run was trained with; its data set's hash is compared.

    Returns:
        The rows, or in words why there are none.
    """
    try:
        rows = rows_of(run, registry, environment, data=data, count=ROWS, complete=True)
    except (ConfigError, DataError) as error:
        return str(error)
    stored = rows.split.load(run.modalities, run.device)
    x = Batch({n: modality.observe(stored[n]) for n, modality in run.modalities.items()})
    return HeldOut(rows.dataset, rows.name, x)
