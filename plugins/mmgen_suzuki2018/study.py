"""An experiment of the paper as data: which runs, which table, which numbers to hold it against."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmgen import toml
from mmgen.brief import OneLine

if TYPE_CHECKING:
    from mmgen_suzuki2018.folder import Reproduction
    from mmgen_suzuki2018.table import Cell

SAMPLES = 10
"""N of equation 11."""


@dataclass(frozen=True, repr=False)
class Profile(OneLine):
    """How much is trained and measured.

    Attributes:
        epochs: Of every model of the table.
        iterations: T of iterative sampling.
        rows: The most test rows that likelihoods are measured on.
        looked_at: The most test rows for the figures, and for what is generated and recognised.
        train: What ``[train]`` of all runs has beside the epochs.
    """

    epochs: int
    iterations: int
    rows: int
    looked_at: int
    train: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Planned(OneLine):
    """A run of an experiment, or a run measured otherwise.

    Attributes:
        name: Of its folder, or of its measurement.
        row: The row of the table that it belongs to; empty if it is drawn only.
        model: The configuration's table ``[model]``.
        train: What ``[train]`` has beside the epochs.
        share: Of the epochs.
        temperature: At which z is drawn from what is given.
        about: Of a row that the paper does not have: what it is, for the page.
        weights: The run whose weights it is measured of, if it is none of its own.
    """

    name: str
    row: str
    model: Mapping[str, Any]
    train: Mapping[str, Any] = field(default_factory=dict)
    share: float = 1.0
    temperature: float = 1.0
    about: str = ""
    weights: str = ""

    @property
    def iterative(self) -> bool:
        """Whether a missing modality takes iterative sampling."""
        return self.model["kind"] in ("jmvae", "hierarchical")

    def generates(self, targets: Sequence[str]) -> bool:
        """Returns whether it generates these: what a model of one direction says it does."""
        return [*self.model.get("targets", targets)] == [*targets]

    def epochs(self, all_epochs: int) -> int:
        """Returns how many epochs it trains."""
        return max(1, round(all_epochs * self.share))


@dataclass(frozen=True, repr=False)
class Source(OneLine):
    """Where the data of an experiment come from.

    Attributes:
        words: Those after ``mmgen data`` that write the data set, but for its folders.
        holds: A file or folder that the data have as they are handed out.
        hint: How one gets them.
    """

    words: tuple[str, ...]
    holds: str
    hint: str


Column = tuple[str, tuple[str, ...], tuple[str, ...], str]
"""Of a table: heading, targets, given, estimator."""


@dataclass(frozen=True, repr=False)
class Study(OneLine):
    """An experiment of the paper.

    Attributes:
        name: The word after ``mmgen reproduce``; also what the data set is called.
        source: Where the data come from.
        modalities: The configuration's tables ``[modalities.NAME]``.
        model: What ``[model]`` of all runs has, where they have such a setting.
        train: What ``[train]`` of all runs has.
        warmup: The share of the epochs over which β rises; ``None``: a tenth, as by default.
        profiles: By what ``--profile`` calls them.
        runs: Those of the table and the figures, those that take longest first.
        extras: More runs, by the option that adds them.
        coherence: Whether ``mmgen coherence`` measures what the first column generates.
        table: The number of the paper's table.
        columns: The table's.
        paper: The table's rows in the paper, in nats.
        check: Looks, before anything is trained, whether the data are those of the experiment.
        write: Draws table, figures and page into the folder of a reproduction, says what it is
            doing, and returns the table.
    """

    name: str
    source: Source
    modalities: Mapping[str, Mapping[str, Any]]
    model: Mapping[str, Any]
    train: Mapping[str, Any]
    warmup: float | None
    profiles: Mapping[str, Profile]
    runs: tuple[Planned, ...]
    extras: Mapping[str, tuple[Planned, ...]]
    coherence: bool
    table: int
    columns: tuple[Column, ...]
    paper: Mapping[str, tuple[float, ...]]
    check: Callable[["Reproduction"], None]
    write: Callable[["Reproduction", Callable[[str], object]], "list[Cell]"]

    def configuration(
        self, planned: Planned, data: Path, all_epochs: int, train: Mapping[str, Any]
    ) -> str:
        """Returns a run as TOML.

        Args:
            planned: The run.
            data: The data set's folder.
            all_epochs: Of a run that trains all of them.
            train: What ``[train]`` has beside, of a profile.
        """
        epochs = planned.epochs(all_epochs)
        training = {"epochs": epochs, **self.train, **train, **planned.train}
        if self.warmup is not None:
            training["warmup_epochs"] = self.warmup * epochs
        tables = [
            f"[data]\npath = {toml.value(str(data))}",
            *(f"[modalities.{name}]\n{_lines(m)}" for name, m in self.modalities.items()),
            f"[model]\n{_lines({**self.model, **planned.model})}",
            f"[train]\n{_lines(training)}",
        ]
        return "\n\n".join([f"name = {toml.value(self.name)}", *map(str.rstrip, tables)]) + "\n"


def _lines(values: Mapping[str, Any]) -> str:
    return "\n".join(f"{key} = {toml.value(value)}" for key, value in values.items())
