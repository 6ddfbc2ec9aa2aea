"""The contract of a source of data: the base class of which a plugin provides subclasses.

``mmgen data KIND --out DIR`` writes the data set of a source. A source is one class:

    class Spirals(Source):
        \"\"\"Draw points on spirals: where they are, and on which arm.\"\"\"

        kind: ClassVar[str] = "spirals"
        api_version: ClassVar[int] = 1
        rows: Annotated[int, Field(ge=1, le=10**9)] = Field(1000, description="Rows to draw.")

        def read(self) -> Content: ...      # modalities, and the rows of each split

A plugin hands the class over with the hook ``mmgen_sources``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from mmgen.brief import OneLine

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

OWN = ("table", "folder", "show")
"""The words after ``mmgen data`` that no source can have as its kind: mmgen's own."""

RESERVED = ("out", "force", "help")
"""The options that ``mmgen data KIND`` has for every kind, and that no field can be called."""


@dataclass(frozen=True, eq=False, repr=False)
class Content(OneLine):
    """The content of a data set: what its modalities are, and the rows of each split.

    Attributes:
        about: One or two sentences for the data set's card: where it comes from, how it was made;
            or a function that returns them when all rows are read, to tell what was left out.
        modalities: The configuration of each modality by name: its ``kind``, which any plugin may
            provide, and the kind's settings, in JSON values. What a kind measures on the training
            split (:meth:`mmgen.modality.Modality.fit`) is measured when the rows are written.
        splits: For each split, its rows in chunks: dictionaries of stored values ``(n, ...)`` by
            modality, as the kind's ``parse`` and ``example`` give them; where rows lack some, a
            :class:`mmgen.batch.Batch`, which says so. All chunks of a modality
            have one dtype and one shape but for n, which may differ. A split is iterated once,
            chunk by chunk, in the order of this dictionary; a chunk is written before the next one
            is asked for, so that no more than one of them is in memory. ``train`` is trained on;
            ``validation`` and ``test`` are held out.
        rows: How many rows there will be in all, for the bar that shows progress; 0: not known.
    """

    about: str | Callable[[], str]
    modalities: Mapping[str, Mapping[str, Any]]
    splits: Mapping[str, Iterable[Mapping[str, Tensor]]]
    rows: int = 0


@dataclass(frozen=True, repr=False)
class Held(OneLine):
    """A file that lies in a cell.

    Attributes:
        name: What it is called. Nothing is opened by that name: its suffix tells what it may be.
        content: Its bytes.
    """

    name: str
    content: bytes


@dataclass(frozen=True, repr=False)
class Record(OneLine):
    """One row as it is found.

    Attributes:
        place: Where it is, for messages: ``"row 17"``.
        cells: What is under each heading that was asked for: text as it would stand in a CSV file,
            a file, or ``None`` where nothing is.
    """

    place: str
    cells: Mapping[str, str | Held | None]


@dataclass(frozen=True, eq=False, repr=False)
class Records(OneLine):
    """Rows of cells under headings; the installed kinds make modalities of them.

    As of a CSV file by ``mmgen data table``: every kind scores every column, the user's
    ``[modalities.NAME]`` tables decide before them, and rows that cannot be used are told by
    their place. Nothing but a chunk of them is in memory.

    Attributes:
        name: What messages call the place they come from.
        headings: The columns, in order; of each, the configuration of the modality that it is by
            its type (``{"kind": "label", "classes": [...]}``), or nothing: the kinds are asked.
        files: The headings of columns that hold files.
        count: How many rows there are.
        read: Yields the chosen rows in order, chunk by chunk: a function of some headings and of
            which rows are chosen ``(count,)``. It is called several times.
        different: Returns the different texts under a heading, or ``None`` if there are more than
            so many: a function of a heading and that number. Of numbers that are no classes, none.
        splits: The numbers of each split's rows, where the source itself says; if empty, shares of
            the rows are held out, or ``split_column`` says.
        wanted: The user's modalities by name: ``columns``, ``kind``, settings. Empty: all that the
            columns make.
        validation: The share of the rows to hold out for validation.
        test: The share of the rows to hold out for tests.
        seed: The seed of which rows these are.
        split_column: The heading of a column that holds the name of each row's split.
        skip_bad: Leave out rows that cannot be used, instead of stopping.
    """

    name: str
    headings: Mapping[str, Mapping[str, Any]]
    files: Sequence[str]
    count: int
    read: Callable[[Sequence[str], NDArray[np.bool_]], Iterator[Sequence[Record]]]
    different: Callable[[str, int], Sequence[str] | None]
    splits: Mapping[str, range] = field(default_factory=dict)
    wanted: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    validation: float = 0.1
    test: float = 0.1
    seed: int = 0
    split_column: str | None = None
    skip_bad: bool = False


class Source(OneLine, BaseModel, ABC):
    """One place that data sets come from: its options, and the rows that they lead to.

    A source *is* its options: a frozen pydantic model whose fields a user sets on the command line.
    To write one:

    1. Subclass, set ``kind`` and ``api_version``. The first paragraph of the docstring is the help
       of ``mmgen data KIND``.
    2. Declare the options as fields, each with a ``description``, which is its help. A field with a
       default is an option (``test_rows`` is ``--test-rows``), one without is an argument; a
       ``bool`` is a flag. Others may be ``int``, ``float``, ``str``, :class:`~pathlib.Path`,
       ``Literal`` words, each of them ``| None``, and ``tuple[..., ...]`` of them, which may be
       given several times. Bounds and validators of pydantic hold.
    3. Write :meth:`read`. Import what is heavy, torch for one, inside of it: the help is then there
       at once.
    4. Return the class from the hook ``mmgen_sources``, name the module in the entry-point group
       ``mmgen``, and the kind with that module in the group ``mmgen.sources``, from which
       ``mmgen data --help`` lists it without importing it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    kind: ClassVar[str]
    """The word after ``mmgen data``: ``"spirals"``; none of :data:`OWN`."""

    api_version: ClassVar[int]
    """The version of this contract that the class was written for, as a literal integer: ``1``."""

    @abstractmethod
    def read(self) -> Content | Records:
        """Returns the data set: stored values, or cells for the installed kinds to read.

        Whatever can be refused is best refused here, before the first row is asked for: nothing is
        left of a data set that breaks off.

        Raises:
            DataError: If what it is read from is missing or damaged. The message says where, and
                what to do about it.
        """
