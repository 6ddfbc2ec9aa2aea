"""The sections of a configuration: what can be set, and the defaults.

Nothing here imports torch, so that a misspelt key is reported at once.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PrivateAttr,
    Tag,
    field_validator,
)

from mmgen.brief import OneLine
from mmgen.errors import listed

MOST = 1e30
"""The largest weight of a term: single precision ends at 3.4e38."""


class Section(OneLine, BaseModel):
    """A table of the configuration: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


Size = Annotated[int, Field(gt=0, lt=2**31)]
"""A number of rows, epochs, or of what a net reads and gives."""

Depth = Annotated[int, Field(gt=0, le=32)]
"""A number of layers: each takes time to build, however small it is."""

Widths = Annotated[tuple[Size, ...], Field(max_length=100)]
"""The widths of a net's layers, or the channels of its convolutions."""

Decay = Annotated[float, Field(ge=0, lt=1)]
Betas = tuple[Decay, Decay]
"""Adam's decay rates of the two moments."""

Seed = Annotated[int, Field(ge=0, lt=2**63)]


class _Taking(Section):
    """The part of ``[data]`` that says who takes part.

    Attributes:
        modalities: Names, or "all" of the data set; if left out, those that have settings.
    """

    modalities: Literal["all"] | tuple[str, ...] | None = None

    @field_validator("modalities", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str) and value != "all":
            return tuple(word.strip() for word in value.split(","))
        return value

    @field_validator("modalities")
    @classmethod
    def _at_least_two(cls, value: object) -> object:
        if isinstance(value, tuple):
            if twice := sorted({name for name in value if value.count(name) > 1}):
                raise ValueError(f"{listed(twice)} is named twice")
            if len(value) < 2:
                raise ValueError(
                    f"only {listed(value)} takes part, but a joint model needs at least two "
                    "modalities"
                )
        return value


class FolderConfig(_Taking):
    """A data set that ``mmgen data`` wrote.

    Attributes:
        path: The data set's folder, relative to the configuration's file.
        source: The arguments of ``mmgen data`` that write it, for the message where it is absent.
        modalities: Which take part, such as ["image", "label"], or "all" of the data set; if left
            out, those that have a table [modalities.NAME], or all if none has one.
    """

    path: Path
    source: str | None = None

    @field_validator("path")
    @classmethod
    def _can_be_told(cls, value: Path) -> Path:
        try:
            str(value).encode()
        except UnicodeEncodeError:
            raise ValueError(
                f"the name {str(value)!r} is not UTF-8, so that no run could note it; rename it"
            ) from None
        return value

    def __str__(self) -> str:
        return str(self.path)


class SyntheticConfig(_Taking):
    """A data set made up on the spot: rows of one class show an example of it in each modality.

    Attributes:
        source: synthetic. The modalities are those of ``[modalities.NAME]``, each with its kind.
        rows: Rows to train on; a fifth as many to validate, and to test.
        classes: How many classes there are; all that a modality tells of another is the class.
        seed: Fixes the examples.
        modalities: Which take part, such as ["image", "label"]; if left out, all that have a table
            [modalities.NAME].
    """

    source: Literal["synthetic"]
    rows: Size = 5000
    classes: Size = 10
    seed: Seed = 0

    def __str__(self) -> str:
        return "the synthetic data"


def _sort_of_data(data: object) -> str:
    source = data.get("source") if isinstance(data, dict) else getattr(data, "source", None)
    return "synthetic" if source == "synthetic" else "folder"


DataConfig = Annotated[
    Annotated[FolderConfig, Tag("folder")] | Annotated[SyntheticConfig, Tag("synthetic")],
    Discriminator(_sort_of_data),
]


class ModelConfig(Section):
    """The part of the configuration that names the model; the rest is the model's own settings.

    Which settings there are, the model's class says: they are checked when plugins are loaded.

    Attributes:
        kind: Names the model.
    """

    model_config = ConfigDict(extra="allow")

    kind: str
    _replaced: dict[str, Any] = PrivateAttr(default_factory=dict)  # no key that a file can set

    @property
    def settings(self) -> dict[str, Any]:
        """What the configuration sets of the model."""
        return self.model_extra or {}

    @property
    def replaced(self) -> dict[str, Any]:
        """What a file says of the model, ``kind`` included, that an override of it replaces."""
        return self._replaced

    def replacing(self, section: dict[str, Any]) -> Self:
        """Returns the same as a replacement of another model's section."""
        other = self.model_copy()
        other._replaced = section  # noqa: SLF001 - of its own class
        return other


class TrainConfig(Section):
    """How to train. Defaults are the paper's where it names one.

    Attributes:
        epochs: Passes over the training split.
        warmup_epochs: N_t, over which the KL's weight β rises from 0 to 1; else epochs / 10.
        batch_size: Rows per step.
        learning_rate: Adam's step size.
        schedule: Of the step size: constant, or cosine, which lowers it to 0 over all epochs.
        betas: Adam's decay rates of the two moments.
        eps: Adam's denominator constant.
        weight_decay: Adam's L2 penalty.
        early_stopping: After how many epochs in a row without a better bound in validation training
            ends; if left out, it does all epochs.
        gradient_clip: The largest norm of the gradients of a group of parameters together, of all
            where there is one group; if left out, any.
        gradient_clip_value: The largest size of each number of a gradient, after the norm is
            clipped; if left out, any.
        seed: Fixes the first weights, the order of rows and the noise: same seed, same run.
        device: auto (CUDA, then MPS, then CPU), or a torch device such as cuda:1.
        precision: bfloat16 runs the nets in it (autocast) and keeps weights in float32; auto
            measures before the first step which of the two is faster here.
        benchmark: Whether it is measured before the first step how the nets run fastest here. The
            results are equal but for rounding; without it they are to the last bit, too.
        compile: Whether the objective runs through torch.compile.
        tensorboard: Whether metrics are written for TensorBoard too (extra ``tensorboard``).
        parallel: How several processes (torchrun) share a training: ddp, each holds all weights and
            moments; fsdp, each its part of moments and gradients, and of weights between steps.
    """

    epochs: Size = 100
    warmup_epochs: NonNegativeFloat | None = None
    batch_size: Size = 100
    learning_rate: PositiveFloat = 1e-3
    schedule: Literal["constant", "cosine"] = "constant"
    betas: Betas = (0.9, 0.999)
    eps: PositiveFloat = 1e-8
    weight_decay: NonNegativeFloat = 0.0
    early_stopping: Size | None = None
    gradient_clip: PositiveFloat | None = None
    gradient_clip_value: PositiveFloat | None = None
    seed: Seed = 0
    device: str = "auto"
    precision: Literal["float32", "bfloat16", "auto"] = "float32"
    benchmark: bool = True
    compile: bool = False
    tensorboard: bool = False
    parallel: Literal["ddp", "fsdp"] = "ddp"

    @property
    def warmup(self) -> float:
        """N_t in epochs; a tenth of all epochs unless set, as in the paper's experiments."""
        return self.epochs / 10 if self.warmup_epochs is None else self.warmup_epochs
