"""The rows that a run is shown and measured on: held out, of its own data set or of another.

A run remembers the hash of the data set that it was trained on. Another one is read only where it
is asked for by its folder.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmgen import build
from mmgen.brief import OneLine
from mmgen.checking import check_stored
from mmgen.data.store import Dataset, Split
from mmgen.errors import DataError, listed, nearest
from mmgen.modality import Modality
from mmgen.registry.loading import Registry
from mmgen.run import Run
from mmgen.settings import FolderConfig
from mmgen.training.plan import splits


@dataclass(frozen=True, repr=False)
class Rows(OneLine):
    """Rows of a data set that a run can read.

    Attributes:
        dataset: Where they are from.
        name: Their split's name.
        split: The rows.
        notes: That it is not the data set that the run was trained on, if so.
        beside: Modalities that the rows have, and the run has not.
    """

    dataset: Dataset
    name: str
    split: Split
    notes: tuple[str, ...] = ()
    beside: Mapping[str, Modality] = field(default_factory=dict)


def held_out(names: Container[str]) -> str | None:
    """Returns which of these splits is held out: ``test``, or else ``validation``, or ``None``."""
    return next((name for name in ("test", "validation") if name in names), None)


def rows_of(
    run: Run,
    registry: Registry,
    environment: Mapping[str, Any],
    *,
    names: Iterable[str] | None = None,
    beside: Iterable[str] = (),
    data: Path | None = None,
    split: str | None = None,
    count: int | None = None,
    other: bool = False,
    complete: bool = False,
) -> Rows:
    """Opens rows of a run's data set, and checks that the run can read them.

    Args:
        run: The trained run.
        registry: The plugins there are.
        environment: What the run was trained with, see :mod:`mmgen.training.run_folder`.
        names: The modalities that are needed; all of the run by default.
        beside: Modalities of the data set that are needed too, and that the run does not know.
        data: A data set's folder, instead of the one that the run names.
        split: Which split; by default the one held out, or else whichever has rows.
        count: So many rows, evenly spread; all by default.
        other: Whether ``data`` may be another data set than the run was trained on.
        complete: Only rows that have all that are needed.

    Raises:
        DataError: If the data set is absent, damaged or another one, or has no such rows.
        ConfigError: If the run's settings give its stored values another meaning.
    """
    experiment = run.experiment
    if data is not None:
        experiment = experiment.model_copy(update={"data": FolderConfig(path=data)})
    dataset = build.dataset(experiment, registry)
    trained_on = environment.get("dataset", {}).get("hash")
    notes = []
    if trained_on not in (None, dataset.hash):
        notes.append(f"{experiment.data} is not the data set that this run was trained on")
        if data is None or not other:
            advice = f". To evaluate on it: --data {dataset.path}" if other else ""
            raise DataError(f"{notes[0]} (hashes differ){advice}")
    filled = splits(dataset)
    if not filled:
        raise DataError(f"{experiment.data} has no rows")
    name = split or held_out(filled) or ("train" if "train" in filled else next(iter(filled)))
    if name not in filled:
        raise DataError(
            f"--split {name}: {experiment.data} has {listed(filled)}{nearest(name, filled)}"
        )
    needed = {n: run.modalities[n] for n in (run.modalities if names is None else names)}
    known = filled[name].names
    if absent := [n for n in (*needed, *beside) if n not in known]:
        hint = nearest(absent[0], known)
        raise DataError(f"{experiment.data} has no modality {listed(absent)}{hint}")
    others = {n: registry.create(n, dataset.modalities[n]) for n in beside}
    every = {**needed, **others}
    check_stored(dataset, every, registry)
    chosen = filled[name].having(every) if complete else filled[name]
    if not chosen.count:
        raise DataError(f"{experiment.data}: no row of split {name!r} has all of {listed(every)}")
    chosen = chosen if count is None else chosen.spread(count, every)
    return Rows(dataset, name, chosen, tuple(notes), others)
