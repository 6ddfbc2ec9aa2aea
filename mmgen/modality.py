"""The contract of a modality: the base class of which a plugin provides subclasses."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from numbers import Real
from os import PathLike, fspath
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from torch import Tensor, nn

from mmgen import settings
from mmgen.brief import OneLine
from mmgen.errors import listed
from mmgen.prediction import Told


def _different(words: tuple[str, ...]) -> tuple[str, ...]:
    plain = {word for word in words if word and word == word.strip() and "," not in word}
    if len(plain) < len(words):
        raise ValueError("must be different words, without commas or blanks around them")
    return words


Words = Annotated[tuple[str, ...], AfterValidator(_different)]
"""A field of names for classes, attributes, columns: different, and without commas."""


Box = tuple[int, int, int, int]
"""A part of a picture: left, top, right and bottom in pixels, the last two not included."""


Widths = settings.Widths
"""A field of the widths of a net's layers, or of the channels of its convolutions."""


class Modality(OneLine, BaseModel, ABC):
    """One kind of observation: its shape, its likelihood, its encoder and decoder nets.

    A modality *is* its configuration: a frozen pydantic model whose fields a user sets in
    ``[modalities.NAME]`` and whose methods build the nets. To write one:

    1. Subclass, set ``kind`` and ``api_version``, declare the configuration as fields. Give those
       without a default ``Field(examples=[...])``, from which the checks build one.
    2. Write ``shape``, ``encoder`` and ``decoder``: enough to train on tensors.
    3. Write ``parse`` and ``observe`` if raw values need reading and scaling, ``accept`` if
       programs have them in other forms than text, ``render`` and ``describe`` to show values as
       pictures and words, ``choices`` and ``example`` for the values in figures and synthetic
       data. Name in ``stored_with`` the fields that stored values depend on.
       ``switches`` lets ``mmgen edit`` change what is said of a photograph, ``locate`` the
       photograph. ``tell`` says in words what a value most probably is, and how sure that is;
       ``column_names`` names the columns of a table that it says it in.
    4. Write ``match_score``, ``infer_settings`` and ``join_cells`` for ``mmgen data table`` to find
       the columns of this kind, ``fit`` if something is measured on the training data.
    5. Return the class from the hook ``mmgen_modalities`` and name the module in the entry-point
       group ``mmgen``. ``mmgen plugins check KIND`` then tests the whole contract.

    Shapes: ``B`` observations in a batch, ``*shape`` the shape of one as the nets see it.
    Likelihoods are in nats.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    kind: ClassVar[str]
    """The name of this kind in configurations: ``"image"``."""

    api_version: ClassVar[int]
    """The version of this contract that the class was written for, as a literal integer: ``1``."""

    multi_column: ClassVar[bool] = False
    """Whether all matching columns of a table make one modality, instead of one per column."""

    cells_are_paths: ClassVar[bool] = False
    """Whether ``parse`` reads file names. Those in a table are relative to the table's folder."""

    stored_with: ClassVar[tuple[str, ...]] = ()
    """The fields that define what stored values mean: ``("classes",)``. An experiment cannot change
    them for data that was written with other values of them."""

    likelihood_weight: float = Field(
        1.0,
        ge=0,
        le=settings.MOST,
        description="of log p(x | z) in training; all that is reported has weight 1",
    )
    """Every kind has it: the models heed it, see :meth:`mmgen.model.Model.forward`."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The shape of one observation, as the nets see it."""

    @abstractmethod
    def encoder(self) -> nn.Module:
        """Builds a net ``(B, *shape) -> (B, features)``.

        Plain features, not a posterior: models build joint, subset and hierarchical posteriors
        on top. A net made of ``nn.Sequential`` and common layers is replicated as one wide
        operation; any other net works too, as a loop.
        """

    @abstractmethod
    def decoder(self, in_features: int) -> nn.Module:
        """Builds a net ``(B, in_features) -> Distribution``, batch shape ``(B,)``.

        The distribution's event shape is :attr:`shape`; it is the likelihood p(x | z), and needs
        ``log_prob``, ``sample``, ``mean`` and ``support``. :mod:`mmgen.nets.blocks` has the usual
        families. Build with ``validate_args=False``: validation waits for the device every step.
        """

    def parse(self, cell: str) -> Tensor:
        """Turns one raw value into the compact tensor that is stored.

        Args:
            cell: A file name, a word, or columns joined by commas.

        Returns:
            One stored value ``(...)``, of the same shape and dtype as a row of :meth:`example`.

        Raises:
            ValueError: If the value cannot be read. The message lists what is allowed.
        """
        raise ValueError(f"modality kind {self.kind!r} cannot read {cell!r}: it has no parse()")

    def accept(self, value: Any) -> Tensor:
        """Turns one value of a program into the compact tensor that is stored.

        ``run.generate`` calls it, as the command line and tables call :meth:`parse`. The default
        hands text, paths, numbers, and numbers of a list or array, joined by commas, to
        :meth:`parse`; a tensor is a stored value already. A kind that takes more (a picture in
        memory, a dictionary of attributes) handles it here, and calls ``super().accept(value)``
        for the rest.

        Args:
            value: Text, a path, a number, a list, a dictionary, an array, a tensor of integers.

        Returns:
            One stored value ``(...)``, as :meth:`parse` does.

        Raises:
            ValueError: If it is not a single value of this kind. The message lists what is
                allowed; a list or array that is refused as a whole is taken for several rows.
        """
        if isinstance(value, Tensor):
            return _stored(value, self.example(torch.zeros(1, dtype=torch.int64), _seeded(0))[0])
        return self.parse(_cell(value, self.kind))

    def observe(
        self,
        stored: Tensor,
        generator: torch.Generator | None = None,  # noqa: ARG002
    ) -> Tensor:
        """Turns stored values ``(B, ...)`` into observations ``(B, *shape)``, on their device.

        Scaling, one-hot coding and stochastic binarisation belong here.
        """
        return stored.to(torch.get_default_dtype())

    def render(self, x: Tensor) -> Tensor | None:  # noqa: ARG002
        """Draws observations or means ``(n, *shape)`` as ``(n, 3, H, W)`` in [0, 1], to look at.

        ``None`` if this kind is shown in words only.
        """
        return None

    def describe(self, x: Tensor) -> list[str]:
        """Describes each of n observations or means ``(n, *shape)``: ``["7", "smiling, bald"]``."""
        return [f"{row.numel()} values, mean {row.mean():.3g}" for row in x.flatten(1).cpu()]

    def choices(self) -> list[str]:
        """Returns the raw values to try one by one in a figure; empty if there are none."""
        return []

    def switches(self) -> dict[str, tuple[float, float]]:
        """Names the numbers of an observation, in order, each with what off and what on is.

        Empty if an observation is no such list. ``mmgen edit`` changes them one by one.
        """
        return {}

    def column_names(self) -> tuple[str, ...]:
        """Names the columns of a table that a value stands in: ``("height", "weight")``.

        Empty if it is one column, which is called as the modality is.
        """
        return ()

    def tell(self, mean: Tensor, deviation: Tensor) -> dict[str, Told]:  # noqa: ARG002
        """Says what values most probably are, and how sure that is, in this kind's own words.

        Args:
            mean: E[x] of each of n values ``(n, *shape)``, as the nets see them: of one-hot classes
                and of switches, their probabilities.
            deviation: The standard deviation of each number, ``(n, *shape)``.

        Returns:
            By each of :meth:`column_names`; by ``""`` if there are none. The default describes the
            means, and does not say how sure that is.
        """
        return {"": Told(self.describe(mean))}

    def locate(
        self,
        photograph: NDArray[np.uint8],  # noqa: ARG002
        crop: str | None = None,  # noqa: ARG002
    ) -> tuple[Tensor, Box]:
        """Returns what is stored of a photograph, and which part of it that shows.

        For kinds of pictures: ``mmgen edit`` changes that part of the photograph.

        Args:
            photograph: Upright, ``(H, W, 3)``.
            crop: Another part than the kind's settings say, in the kind's words.

        Returns:
            A stored value ``(...)``, as :meth:`parse` gives it, and the part.

        Raises:
            ValueError: If there is no such part, or the kind has no pictures.
        """
        raise ValueError(f"modality kind {self.kind!r} is no picture of a photograph")

    def example(self, classes: Tensor, generator: torch.Generator) -> Tensor:
        """Makes synthetic stored values ``(B, ...)`` for class numbers ``(B,)``.

        Modalities whose examples have the same classes become a paired data set. The default draws
        from a Gaussian around a point that depends on the class alone.
        """
        different, rows = classes.unique(return_inverse=True)
        centres = torch.stack([_centre(int(c), self.shape) for c in different])[rows]
        return centres + 0.3 * torch.randn(centres.shape, generator=generator)

    @classmethod
    def match_score(cls, cells: Sequence[str]) -> float:  # noqa: ARG003
        """Scores how likely a table's column holds values of this kind.

        Args:
            cells: The column's cells that are not empty; a few may be wrong.

        Returns:
            A number from 0, not at all, to 1. The kind with the highest score gets the column.
        """
        return 0.0

    @classmethod
    def infer_settings(cls, columns: Mapping[str, Sequence[str]]) -> dict[str, Any]:  # noqa: ARG003
        """Infers settings from the columns of a modality: classes, names, sizes.

        Args:
            columns: The cells that are not empty, by heading. File names have their folder.

        Returns:
            Fields of this kind, which the user's settings override.
        """
        return {}

    def join_cells(self, row: Mapping[str, str]) -> str:
        """Joins the cells of a row, by heading, into the one that ``parse`` reads: by commas.

        Raises:
            ValueError: If a cell cannot be used. The message lists what is allowed.
        """
        return ",".join(row.values())

    def join_known(self, row: Mapping[str, str | None]) -> str | None:
        """Joins the cells of a row as :meth:`join_cells` does, where some may be missing.

        The default takes a row whose cells are all there, or all missing. A kind overrides it if
        its values may be partly unknown, or if an empty cell is a value.

        Args:
            row: By heading; a cell that is empty is ``""``, and ``None`` stands for a word that the
                user says means missing.

        Returns:
            What ``parse`` reads; ``None`` if the row has no value of this modality.

        Raises:
            ValueError: If cells cannot be used. The message says what is allowed.
        """
        known = {heading: cell for heading, cell in row.items() if cell}
        if not known:
            return None
        if len(known) < len(row):
            empty = [heading for heading in row if heading not in known]
            raise ValueError(
                f"the cell is empty, but that of {listed(known)} is not: a {self.kind} is there as "
                f"a whole or not at all. Make {listed(empty)} a modality of its own with --config"
            )
        return self.join_cells(known)

    def known(self, x: Tensor) -> Tensor | None:  # noqa: ARG002
        """Tells which numbers of observations ``(n, *shape)`` are known, a mask of their shape.

        ``None``, the default, if all are, as where a value is there as a whole or not at all. A
        kind whose values may be partly unknown overrides it; what is unknown is no part of its
        likelihood, and is never compared with anything.
        """
        return None

    def fit(self, stored: Tensor) -> Self:  # noqa: ARG002
        """Returns a copy with settings measured on the training split's values ``(N, ...)``.

        For example, means and scales to standardise by. They are kept with the data set. The
        default measures nothing, and returns the modality itself.
        """
        return self

    @property
    def needs_fit(self) -> bool:
        """Whether something is still to be measured before a training, by :meth:`fit`.

        An experiment may have settings that the data set was not written with.
        """
        return False

    def recommended(self) -> dict[str, Any]:
        """Returns settings that were found to serve better than the kind's own defaults.

        A data set that is trained on without a configuration has them, where its settings are the
        kind's defaults and nobody says what they should be. None, unless a kind has some.
        """
        return {}

    @classmethod
    def example_settings(cls) -> dict[str, Any]:
        """Returns the first of ``Field(examples=[...])`` for every field without a default."""
        fields = cls.model_fields.items()
        return {n: f.examples[0] for n, f in fields if f.is_required() and f.examples}

    @classmethod
    def from_examples(cls) -> Self:
        """Builds a modality from the defaults, and :meth:`example_settings` for the other fields.

        Raises:
            pydantic.ValidationError: If a field has neither.
        """
        return cls(**cls.example_settings())

    def to_config(self) -> dict[str, Any]:
        """Returns kind and fields as JSON values; ``Class(**fields)`` equals self."""
        fields = self.model_dump(mode="json")
        weight = fields.pop("likelihood_weight")  # after what the kind itself is set to
        return {"kind": self.kind, **fields, "likelihood_weight": weight}


def _centre(number: int, shape: tuple[int, ...]) -> Tensor:
    return torch.randn(shape, generator=_seeded(number))


def _seeded(number: int) -> torch.Generator:
    return torch.Generator().manual_seed(number)


def _stored(value: Tensor, like: Tensor) -> Tensor:
    """Returns a tensor in the dtype that is stored, if no number changes by that."""
    kept = value.detach().to(device="cpu", dtype=like.dtype)
    if value.shape != like.shape or not torch.equal(kept.to(value.dtype), value.detach().cpu()):
        raise ValueError(
            f"a stored value is {like.dtype} of shape {tuple(like.shape)}, which "
            f"{value.dtype} of shape {tuple(value.shape)} is not"
        )
    return kept


def _cell(value: Any, kind: str) -> str:
    """Returns a value of a program as it would be typed."""
    if isinstance(value, str | PathLike):
        return str(fspath(value))
    several = value.tolist() if isinstance(value, np.ndarray) else value
    numbers = several if isinstance(several, list | tuple) else [several]
    if not numbers or not all(isinstance(number, Real) for number in numbers):
        what = f"{type(value).__name__}" + " of these values" * (numbers is several)
        raise ValueError(f"a {what} is not what kind {kind!r} takes as one value")
    return ",".join(str(+number) for number in numbers)  # +True is 1
