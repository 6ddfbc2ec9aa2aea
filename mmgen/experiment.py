"""Experiment: what is trained on what, read from TOML (or a run's JSON) with overrides.

Nothing here imports torch, so that a misspelt key is reported at once.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import (
    BaseModel,
    Field,
    PrivateAttr,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from mmgen.errors import ConfigError, listed, nearest
from mmgen.files.documents import short
from mmgen.files.reading import Reader
from mmgen.settings import (
    DataConfig,
    FolderConfig,
    ModelConfig,
    Section,
    SyntheticConfig,
    TrainConfig,
)

EXPERIMENT = "experiment.json"
"""The file of a run with its configuration; it makes a folder a run."""

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}")
"""Names of modalities: free of the signs that join subsets and values (+ , = . /), and not long."""

MOST = 20
"""More wrong keys than this are counted, not listed."""

_FILES = Reader(ConfigError)


class Experiment(Section):
    """All that decides a training run.

    Attributes:
        name: A word for titles.
        data: The data set.
        modalities: Settings by modality name, laid over the data set's own; ``kind`` may be left
            out. Who takes part is said by :attr:`participants`.
        model: The model.
        train: How to train.
        recommended: Whether modalities have what :meth:`mmgen.modality.Modality.recommended` says
            where nobody says anything. No setting: a configuration that is written out says all.
    """

    name: str = "experiment"
    data: DataConfig
    modalities: dict[str, dict[str, Any]] = Field(default_factory=dict)
    model: ModelConfig
    train: TrainConfig = TrainConfig()
    _recommended: bool = PrivateAttr(default=False)

    @property
    def recommended(self) -> bool:  # noqa: D102 - see the class
        return self._recommended

    def with_recommended(self, recommended: bool = True) -> Self:
        """Returns the same, with or without what is recommended of modalities: see the class."""
        same = self.model_copy()
        same._recommended = recommended  # noqa: SLF001 - of its own class
        return same

    @field_validator("modalities")
    @classmethod
    def _names(
        cls, value: dict[str, dict[str, Any]], info: ValidationInfo
    ) -> dict[str, dict[str, Any]]:
        for name in value:
            if not NAME.fullmatch(name):
                raise ValueError(
                    f"{name!r} is no name for a modality: use letters, digits, _ and -"
                )
        data = info.data.get("data")
        if len(value) == 1 and data is not None and data.modalities is None:
            raise ValueError(
                f"only {listed(value)} takes part, but a joint model needs at least two modalities"
            )
        return value

    @property
    def participants(self) -> tuple[str, ...] | None:
        """The modalities that take part; ``None``: all of the data set.

        Those that ``data.modalities`` names, or else those that have settings.
        """
        if self.data.modalities == "all":
            return None
        return self.data.modalities or tuple(self.modalities) or None

    @classmethod
    def read(cls, path: Path, overrides: Sequence[str] = ()) -> Self:
        """Reads a TOML file, or a run's JSON, and lays ``key=value`` overrides over it.

        A relative ``data.path`` is taken from the file's folder.

        Raises:
            ConfigError: If the file cannot be read, or a key or value is wrong.
        """
        table = _table(path)
        if isinstance(data := table.get("data"), dict) and isinstance(data.get("path"), str):
            data["path"] = str(path.parent.resolve() / data["path"])
        return cls.laid(table, overrides, str(path))

    @classmethod
    def laid(cls, table: dict[str, Any], overrides: Sequence[str], where: str) -> Self:
        """Lays ``key=value`` overrides over a table, and validates it; ``where`` names the table.

        A relative ``data.path`` is taken from the current folder. An override of ``model.kind``
        leaves out what the table says of the model that only its own kind has, such as ``alpha``;
        one of ``data.path``, a synthetic source. One of a modality's settings does not decide who
        takes part: that is for the table, or ``data.modalities``.

        Raises:
            ConfigError: If a key or value is wrong.
        """
        named, touched = list(_section(table, "modalities")), set[str]()
        replaced: dict[str, Any] = {}
        # The kind first: it decides which of the file's settings of the model stay.
        for override in sorted(overrides, key=lambda text: not text.startswith("model.kind=")):
            former = _section(table, "model").get("kind")
            path = _lay(table, override)
            if path[0] == "modalities":
                touched |= {*path[1:2]} or {*_section(table, "modalities")}
            if override.startswith("model.kind="):
                replaced = {"kind": former, **_set_aside(table["model"]), **replaced}
            if override.startswith("data.path=") and table["data"].get("source") == "synthetic":
                kept = ("path", "modalities")
                table["data"] = {k: v for k, v in table["data"].items() if k in kept}
        data = _section(table, "data")
        synthetic = data.get("source") == "synthetic"
        if touched and not synthetic and data.get("modalities") is None:
            data["modalities"] = named or "all"
        # Absolute from here on: a run's experiment.json lies in a folder of its own.
        if isinstance(data.get("path"), str):
            data["path"] = str(Path.cwd() / data["path"])
        experiment = cls.checked(table, where)
        if replaced:
            model = experiment.model.replacing(replaced)
            experiment = experiment.model_copy(update={"model": model})
        for name in sorted(touched):
            _check_takes_part(name, experiment, named, where)
        return experiment

    @classmethod
    def checked(cls, table: Mapping[str, Any], where: str) -> Self:
        """Validates a table; ``where`` names it in messages.

        Raises:
            ConfigError: Naming every wrong key.
        """
        try:
            return cls.model_validate(table)
        except ValidationError as error:
            raise ConfigError(f"{where}:\n{explain(error, cls)}") from None


def explain(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    """Returns pydantic's errors as lines ``key: what is wrong (what was given)``."""
    lines = []
    for item in error.errors(include_url=False)[:MOST]:
        # A discriminated union puts its tag into the location: model.jmvae-kl.latent.
        location = [str(part) for part in item["loc"]]
        if location[:1] == ["data"] and len(location) > 1:
            del location[1]
        # A union of types puts theirs: subsets.tuple[str, ...]
        ours = len(location) - (item["type"] == "extra_forbidden")  # the rest is the user's word
        location = [part for part in location[:ours] if "[" not in part] + location[ours:]
        key = ".".join([prefix, *location] if prefix else location)
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = f"unknown key{nearest(location[-1], _fields(model, item['loc'][:-1]))}"
        elif item["type"] == "missing":
            message = "missing"
        elif not isinstance(item["input"], dict):
            message = f"{message}, not {short(item['input'])}"
        lines.append(f"  {short(key, str)}: {message}" if key else f"  {message}")
    if (more := error.error_count() - MOST) > 0:
        lines.append(f"  and {more:,} more")
    return "\n".join(dict.fromkeys(lines))


def _check_takes_part(name: str, experiment: Experiment, named: Sequence[str], where: str) -> None:
    """Checks that a modality of which an override tells is one that takes part.

    Synthetic data is made of what the settings say, so there a kind makes a new one.
    """
    taking: Sequence[str] | None = experiment.participants
    synthetic = isinstance(experiment.data, SyntheticConfig)
    if synthetic and experiment.data.modalities is None:
        taking = [*named, *(n for n, table in experiment.modalities.items() if "kind" in table)]
    if taking is None or name in taking:
        return
    hint = nearest(name, taking)
    if not hint and synthetic:
        hint = f"; to add one, give its kind: modalities.{name}.kind=..."
    elif not hint:
        hint = f"; to choose who does: data.modalities={','.join([*taking, name])}"
    raise ConfigError(
        f"{where}:\n  modalities.{name}: no modality {name!r} takes part, only "
        f"{listed(taking)}{hint}"
    )


def _set_aside(model: dict[str, Any]) -> dict[str, Any]:
    """Takes out of a table what it says of the model that an override of its kind replaces.

    Which of these settings the new kind has too is known when plugins are loaded.
    """
    return {key: model.pop(key) for key in [*model] if key != "kind"}


def _fields(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """Lists the fields of the section at a location, for a suggestion."""
    sections: dict[str, type[Section]] = {"train": TrainConfig}
    sections |= {"folder": FolderConfig, "synthetic": SyntheticConfig}
    section = sections.get(str(location[-1]), model) if location else model
    return list(section.model_fields)


def _table(path: Path) -> dict[str, Any]:
    return _FILES.json(path) if path.suffix == ".json" else _FILES.toml(path)


def _section(table: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Returns a section, or an empty one if it is missing or no table, which validation tells."""
    section = table.get(name)
    return section if isinstance(section, dict) else {}


def _lay(table: dict[str, Any], override: str) -> list[str]:
    """Sets ``train.epochs=30`` in a nested table; the value is TOML, or else a plain word.

    Returns:
        The parts of the key.
    """
    key, sign, text = override.partition("=")
    path = key.strip().split(".")
    if not sign or not all(path):
        raise ConfigError(f"{override!r}: write overrides as key=value, such as train.epochs=30")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = text
    for part in path[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{override!r}: {part} is a value, not a table")
    table[path[-1]] = value
    return path
