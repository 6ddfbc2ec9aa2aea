"""What the files of a run must hold, checked before anything is taken from them.

``environment.json``, the lines of ``metrics.jsonl`` and the headers of checkpoints are models.
Keys that a later version adds are left alone.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, field_validator

from mmgen.distribution import FORMER, NAME
from mmgen.errors import RunError
from mmgen.files.reading import Reader
from mmgen.nets.replicate import Way

FORMAT = 2
"""Of runs and their files. In format 1, nets of modalities had numbers for names among the weights,
and the KL of a subset was called like the prior's."""

Number = Annotated[float, Field(allow_inf_nan=False)]


class Record(BaseModel):
    """Values as they are written: ``"1"`` and ``true`` are no numbers."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


M = TypeVar("M", bound="Header")


class Header(Record):
    """What every file says first; ``format`` tells which version of mmgen can read it."""

    format: PositiveInt


class TrainedOn(Record):
    """The data set of a run."""

    name: str | None = None
    hash: str | None = None


class BeganWith(Record):
    """The run whose weights another began with: :mod:`mmgen.training.warm_start`."""

    run: str
    weights: str
    epoch: NonNegativeInt


class Environment(Header):
    """``environment.json``: what a run was trained with."""

    versions: dict[str, str] = Field(default_factory=dict)
    plugins: dict[str, str] = Field(default_factory=dict)
    model: str = ""
    dataset: TrainedOn = TrainedOn()
    device: str = ""
    threads: int = 1
    processes: int = 1
    machine: str = ""
    command: str = ""
    began_with: BeganWith | None = None
    continued: list[str] = Field(default_factory=list)


def renamed(environment: dict[str, Any]) -> dict[str, Any]:
    """Returns an environment that calls mmgen's distribution by its name, as older runs do not."""
    result = dict(environment)
    if "versions" in environment:
        versions = environment["versions"].items()
        result["versions"] = {NAME if name == FORMER else name: v for name, v in versions}
    if "plugins" in environment:
        plugins = environment["plugins"].items()
        result["plugins"] = {kind: p.replace(f" ({FORMER} ", f" ({NAME} ") for kind, p in plugins}
    return result


class EpochLine(Record):
    """A line of ``metrics.jsonl``; terms of a training that went wrong need not be finite."""

    epoch: PositiveInt
    beta: Annotated[float, Field(ge=0, le=1)]
    train: Annotated[dict[str, float], Field(min_length=1)]
    validation: dict[str, float]
    seconds: Annotated[Number, Field(ge=0)]
    examples_per_second: Annotated[Number, Field(ge=0)]
    best: bool

    @field_validator("train", "validation")
    @classmethod
    def _has_a_loss(cls, value: dict[str, float]) -> dict[str, float]:
        if value and "loss" not in value:
            raise ValueError("there is no loss")
        return value


class WeightsHeader(Header):
    """The header of ``best.safetensors``."""

    epoch: NonNegativeInt


Precision = Literal["float32", "bfloat16"]


class Execution(Record):
    """How the nets of a run run: :mod:`mmgen.training.execution`.

    Attributes:
        ways: Of nets with copies, by name; those that are not named are wide.
        channels_last: Whether the weights of convolutions lie so in memory.
        precision: What nets compute in, where the experiment leaves that open.
    """

    ways: dict[str, Way] = Field(default_factory=dict)
    channels_last: bool = False
    precision: Precision | None = None


class Counters(WeightsHeader):
    """The header of ``last.safetensors``: how far a training is, and how its nets run."""

    batch: NonNegativeInt
    rows: NonNegativeInt
    best: Annotated[float, Field(gt=-math.inf)]  # infinity before the first validation, never NaN
    stale: NonNegativeInt = 0  # of older checkpoints not known: it is counted from there
    execution: Execution = Field(default_factory=Execution)


def check_version(values: Mapping[str, Any], file: Path) -> None:
    """Refuses what a newer version of mmgen wrote, before it is found to be wrong.

    Raises:
        RunError: If it is newer.
    """
    version = values.get("format")
    if isinstance(version, int) and version > FORMAT:
        raise RunError(
            f"{file}: of format {version}; this mmgen reads up to {FORMAT}. Update mmgen"
        )


def lines(file: Path, reader: Reader) -> list[dict[str, Any]]:
    """Reads the lines of ``metrics.jsonl``, whose epochs follow one another.

    Raises:
        RunError: If they cannot be, naming the line.
    """
    found: list[dict[str, Any]] = []
    for where, line in reader.json_lines(file):
        epoch = reader.check(EpochLine, line, where).epoch
        if found and epoch != found[-1]["epoch"] + 1:
            raise reader.wrong(where, f"epoch {epoch:,} after {found[-1]['epoch']:,}")
        for split in ("train", "validation"):
            line[split] = {_term(name): value for name, value in line[split].items()}
        found.append(line)
    return found


def _term(name: str) -> str:
    """Returns what a term is called since format 2: ``subset/label`` for ``kl/label``."""
    kind, _, what = name.partition("/")
    ours = what == "prior" or re.fullmatch(r"z\d+", what)
    return name if kind != "kl" or ours else f"subset/{what}"
