"""The options of a source on the command line, read off the fields of its class."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

from mmgen.brief import OneLine
from mmgen.errors import PluginError, listed
from mmgen.source import RESERVED, Source

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

PLAIN = (bool, int, float, str, Path)
"""What an option's value may be, beside words of a ``Literal``."""


@dataclass(frozen=True, repr=False)
class Option(OneLine):
    """An option, or an argument, of ``mmgen data KIND``.

    Attributes:
        name: The field's name.
        type: One of :data:`PLAIN`; ``str`` for the words of a ``Literal``.
        help: What it is.
        required: Whether it must be given: it is an argument then.
        default: What it is if it is not given; ``None``: nothing is said of it.
        several: Whether it may be given several times.
        words: The words that it may be; any if empty.
        least: The smallest number that it may be, if there is one.
        most: The largest.
    """

    name: str
    type: type
    help: str
    required: bool
    default: Any
    several: bool
    words: tuple[str, ...]
    least: float | None
    most: float | None


def options(cls: type[Source]) -> list[Option]:
    """Returns the options of a source, in the order of its fields.

    Raises:
        PluginError: If a field cannot be one.
    """
    return [_option(cls, name, field) for name, field in cls.model_fields.items()]


def _option(cls: type[Source], name: str, field: "FieldInfo") -> Option:
    who = f"class {cls.__name__}: field {name}"
    if name in RESERVED:
        raise PluginError(f"{who} cannot be called so: --{name} is an option of mmgen data itself")
    if not (field.description or "").strip():
        raise PluginError(f"{who} has no description, which is the help of the option")
    metadata = list(field.metadata)
    kind, several = _plain(field.annotation, metadata), False
    if get_origin(kind) is tuple and get_args(kind)[1:] == (Ellipsis,):
        kind, several = _plain(get_args(kind)[0], metadata), True
    words: tuple[str, ...] = ()
    if get_origin(kind) is Literal and all(isinstance(word, str) for word in get_args(kind)):
        kind, words = str, get_args(kind)
    if kind not in PLAIN or (several and kind is bool):
        known = listed([*(plain.__name__ for plain in PLAIN), "Literal words"])
        raise PluginError(
            f"{who} is a {field.annotation}, which no option can be: there are {known}, each or "
            "None, and tuple[..., ...] of them"
        )
    least, most = _bounds(metadata, whole=kind is int)
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    required = field.is_required()
    told = (field.description or "").strip()
    return Option(name, kind, told, required, default, several, words, least, most)


def _plain(annotation: Any, metadata: list[Any]) -> Any:
    """Returns a type without ``None`` and ``Annotated``, whose words are added to ``metadata``."""
    if get_origin(annotation) in (Union, UnionType):
        others = [each for each in get_args(annotation) if each is not NoneType]
        if len(others) == 1:
            return _plain(others[0], metadata)
    if get_origin(annotation) is Annotated:
        annotation, *words = get_args(annotation)
        for word in words:  # a Field holds those that it was made of
            metadata += getattr(word, "metadata", [word])
        return _plain(annotation, metadata)
    return annotation


def _bounds(metadata: Sequence[Any], *, whole: bool) -> tuple[float | None, float | None]:
    """Returns the least and the largest number; of a float, bounds that it must not reach too."""
    least = most = None
    for each in metadata:
        for key, step in (("ge", 0), ("gt", 1)):
            if (bound := getattr(each, key, None)) is not None:
                least = bound + step * whole
        for key, step in (("le", 0), ("lt", 1)):
            if (bound := getattr(each, key, None)) is not None:
                most = bound - step * whole
    return least, most
