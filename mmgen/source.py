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
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict

from mmgen.brief import OneLine

if TYPE_CHECKING:
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
            modality, as the kind's ``parse`` and ``example`` give them. All chunks of a modality
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
    def read(self) -> Content:
        """Returns the data set.

        Whatever can be refused is best refused here, before the first row is asked for: nothing is
        left of a data set that breaks off.

        Raises:
            DataError: If what it is read from is missing or damaged. The message says where, and
                what to do about it.
        """
