"""Experiment: what is trained on what, read from TOML (or a run's JSON) with overrides.

Nothing here imports torch, so that a misspelt key is reported at once.
"""

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
)

from mmgen.errors import ConfigError, listed, nearest

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
"""Names of modalities: free of the signs that join subsets and values (+ , = . /)."""


class Section(BaseModel):
    """A table of the configuration: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class DataConfig(Section):
    """Where the data set is.

    Attributes:
        path: The data set's folder, relative to the configuration's file.
        source: The arguments of ``mmgen data`` that write it, for the message where it is absent.
    """

    path: Path
    source: str | None = None


class JMVAEConfig(Section):
    """JMVAE (eq. 5): one joint encoder.

    Attributes:
        kind: Names the model.
        latent: Z, the size of z; 64 as in the paper's MNIST section.
        fusion: Widths of the layers after concatenation. Paper: none for MNIST, 1024 for CelebA.
    """

    kind: Literal["jmvae"]
    latent: PositiveInt = 64
    fusion: tuple[PositiveInt, ...] = ()


class JMVAEKLConfig(Section):
    """JMVAE-kl (eq. 10): an encoder for every subset of modalities.

    Attributes:
        kind: Names the model.
        latent: Z, the size of z.
        fusion: Widths of the layers after concatenation.
        subsets: Which get an encoder beside the joint one: none, single, all (2^K − 2), or a list
            such as ["image", "image+label"].
        alpha: α, the weight of each subset's KL; 1 in the paper. It is not warmed up.
    """

    kind: Literal["jmvae-kl"]
    latent: PositiveInt = 64
    fusion: tuple[PositiveInt, ...] = ()
    subsets: Literal["none", "single", "all"] | tuple[str, ...] = "all"
    alpha: NonNegativeFloat = 1.0


class HierarchicalConfig(Section):
    """Hierarchical JMVAE (eq. 7–9).

    Attributes:
        kind: Names the model.
        latent: Z, the size of every z_l.
        layers: L, the stochastic layers; 2 in the paper.
        fusion: Widths of the layers after concatenation.
        widths: Widths of the nets between layers, of the posterior's path and of the prior.
    """

    kind: Literal["hierarchical"]
    latent: PositiveInt = 64
    layers: PositiveInt = 2
    fusion: tuple[PositiveInt, ...] = ()
    widths: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (512, 512)


ModelConfig = Annotated[
    JMVAEConfig | JMVAEKLConfig | HierarchicalConfig, Field(discriminator="kind")
]


class TrainConfig(Section):
    """How to train. Defaults are the paper's where it names one.

    Attributes:
        epochs: Passes over the training split.
        warmup_epochs: N_t, over which β rises linearly from 0 to 1; without it, epochs / 10.
        batch_size: Observations a step.
        learning_rate: Adam's step size.
        schedule: constant, or cosine, which lowers the step size to 0 over all epochs.
        betas: Adam's decay rates of the two moments.
        eps: Adam's denominator constant.
        weight_decay: L2 penalty in Adam.
        gradient_clip: Largest norm of all gradients together; without it, no clipping.
        seed: Fixes weights, order and noise.
        device: auto (CUDA, then MPS, then CPU), or a torch device such as cuda:1.
        precision: bfloat16 runs the nets in it (autocast) and keeps weights in float32.
        compile: Runs the objective through torch.compile.
        tensorboard: Writes the metrics for TensorBoard as well (extra ``tensorboard``).
    """

    epochs: PositiveInt = 100
    warmup_epochs: NonNegativeFloat | None = None
    batch_size: PositiveInt = 100
    learning_rate: PositiveFloat = 1e-3
    schedule: Literal["constant", "cosine"] = "constant"
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (
        0.9,
        0.999,
    )
    eps: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.0
    gradient_clip: PositiveFloat | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    device: str = "auto"
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    tensorboard: bool = False

    @property
    def warmup(self) -> float:
        """N_t in epochs; a tenth of all epochs unless set, as in the paper's experiments."""
        return self.epochs / 10 if self.warmup_epochs is None else self.warmup_epochs


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
    modalities: dict[str, dict[str, Any]] = {}
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
        that only its own kind has, such as ``alpha``.

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
        # Absolute from here on: a run's experiment.json lies in a folder of its own.
        if isinstance(data := table.get("data"), dict) and isinstance(data.get("path"), str):
            data["path"] = str(Path.cwd() / data["path"])
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
        if location[:1] == ["model"] and len(location) > 1:
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
            message = f"{message}, not {item['input']!r}"
        lines.append(f"  {key}: {message}")
    return "\n".join(dict.fromkeys(lines))


KINDS: dict[str, type[Section]] = {
    "jmvae": JMVAEConfig,
    "jmvae-kl": JMVAEKLConfig,
    "hierarchical": HierarchicalConfig,
}
"""The settings of each kind of model."""


def _leave_out_other_kinds(model: dict[str, Any]) -> None:
    others = {field for section in KINDS.values() for field in section.model_fields}
    if chosen := KINDS.get(str(model["kind"])):
        for field in others - chosen.model_fields.keys():
            model.pop(field, None)


def _fields(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    """Lists the fields of the section at a location, for a suggestion."""
    sections: dict[str, type[Section]] = {"data": DataConfig, "train": TrainConfig, **KINDS}
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
