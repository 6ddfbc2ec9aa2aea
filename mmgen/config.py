"""Experiment: what is trained on what, read from TOML (or a run's JSON) with overrides.

Nothing here imports torch, so that a misspelt key is reported at once.
"""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, Field, ValidationError, field_validator

from mmgen.errors import ConfigError, listed, nearest
from mmgen.settings import (
    KINDS,
    DataConfig,
    FolderConfig,
    ModelConfig,
    Section,
    SyntheticConfig,
    TrainConfig,
)

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
"""Names of modalities: free of the signs that join subsets and values (+ , = . /)."""


class Experiment(Section):
    """All that decides a training run.

    Attributes:
        name: A word for titles.
        data: The data set.
        modalities: Settings by modality name, laid over the data set's own; ``kind`` may be left
            out. Exactly the modalities named here take part; if none is named, all do.
        model: The model.
        train: How to train.
    """

    name: str = "experiment"
    data: DataConfig
    modalities: dict[str, dict[str, Any]] = Field(default_factory=dict)
    model: ModelConfig
    train: TrainConfig = TrainConfig()

    @field_validator("modalities")
    @classmethod
    def _at_least_two(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name in value:
            if not NAME.fullmatch(name):
                raise ValueError(
                    f"{name!r} is no name for a modality: use letters, digits, _ and -"
                )
        if len(value) == 1:
            raise ValueError(
                f"only {listed(value)} takes part, but a joint model needs at least two modalities"
            )
        return value

    @classmethod
    def read(cls, path: Path, overrides: Sequence[str] = ()) -> Self:
        """Reads a TOML file, or a run's JSON, and lays ``key=value`` overrides over it.

        A relative ``data.path`` is taken from the file's folder; one in an override, from the
        current folder. An override of ``model.kind`` leaves out what the file says of the model
        that only its own kind has, such as ``alpha``; one of ``data.path``, a synthetic source.

        Raises:
            ConfigError: If the file cannot be read, or a key or value is wrong.
        """
        table = _table(path)
        if isinstance(data := table.get("data"), dict) and isinstance(data.get("path"), str):
            data["path"] = str(path.parent.resolve() / data["path"])
        # The kind first: it decides which of the file's settings of the model stay.
        for override in sorted(overrides, key=lambda text: not text.startswith("model.kind=")):
            _lay(table, override)
            if override.startswith("model.kind="):
                _leave_out_other_kinds(table["model"])
            if override.startswith("data.path=") and table["data"].get("source") == "synthetic":
                table["data"] = {"path": table["data"]["path"]}
        # Absolute from here on: a run's experiment.json lies in a folder of its own.
        if isinstance(data := table.get("data"), dict) and isinstance(data.get("path"), str):
            data["path"] = str(Path.cwd() / data["path"])
            if not _utf8(data["path"]):
                raise ConfigError(
                    f"data.path: {data['path']}: a run keeps the path in a file, which cannot hold "
                    "a name that is no UTF-8: rename it"
                )
        return cls.checked(table, str(path))

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
    for item in error.errors():
        # A discriminated union puts its tag into the location: model.jmvae-kl.latent.
        location = [str(part) for part in item["loc"]]
        if location[:1] in (["model"], ["data"]) and len(location) > 1:
            del location[1]
        # A union of types puts theirs: subsets.tuple[str, ...]
        ours = len(location) - (item["type"] == "extra_forbidden")  # the rest is the user's word
        location = [part for part in location[:ours] if "[" not in part] + location[ours:]
        key = ".".join([prefix, *location] if prefix else location)
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = f"unknown key{nearest(location[-1], _fields(model, item['loc'][:-1]))}"
        elif item["type"] == "union_tag_invalid":
            known = [t.strip("' ") for t in item["ctx"]["expected_tags"].split(",")]
            tag = item["ctx"]["tag"]
            key = f"{key}.kind"
            message = f"there is no {tag!r}; there are {listed(known)}{nearest(tag, known)}"
        elif item["type"] == "union_tag_not_found":
            key, message = f"{key}.kind", "missing: say which model"
        elif item["type"] == "missing":
            message = "missing"
        elif not isinstance(item["input"], dict):
            message = f"{message}, not {_short(item['input'])}"
        lines.append(f"  {key}: {message}")
    return "\n".join(dict.fromkeys(lines))


def _utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _short(value: object) -> str:
    """Shows a value as it is, or its beginning: it may be a list of a million numbers."""
    try:
        text = repr(value)
    except ValueError:  # a whole number of thousands of digits
        return "so long a number"
    return text if len(text) <= 100 else f"{text[:100]}…"


def _leave_out_other_kinds(model: dict[str, Any]) -> None:
    others = {field for section in KINDS.values() for field in section.model_fields}
    if chosen := KINDS.get(str(model["kind"])):
        for field in others - chosen.model_fields.keys():
            model.pop(field, None)


def _fields(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """Lists the fields of the section at a location, for a suggestion."""
    sections: dict[str, type[Section]] = {"train": TrainConfig, **KINDS}
    sections |= {"folder": FolderConfig, "synthetic": SyntheticConfig}
    section = sections.get(str(location[-1]), model) if location else model
    return list(section.model_fields)


def _table(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        table = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except (ValueError, RecursionError) as error:  # syntax; too long a number; too deep a table
        language = "JSON" if path.suffix == ".json" else "TOML"
        raise ConfigError(f"{path}: not valid {language}: {error}") from None
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: holds no tables such as [model] and [train]")
    return table


def _lay(table: dict[str, Any], override: str) -> None:
    """Sets ``train.epochs=30`` in a nested table; the value is TOML, or else a plain word."""
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
