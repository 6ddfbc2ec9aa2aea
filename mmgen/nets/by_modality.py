"""Nets or parameters by the name of a modality, whatever that name is."""

from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar, cast

from torch import nn

T = TypeVar("T", nn.Module, nn.Parameter)


class ByModality(nn.Module, Generic[T]):
    """A net, or a parameter, for each of some modalities: weights are named ``image.0.weight``.

    torch's own ``ModuleDict`` refuses names of its attributes, such as ``type``; here such a name
    gets a ``_`` in weights.

    Args:
        values: By name, in an order that is kept.
    """

    def __init__(self, values: Mapping[str, T]) -> None:
        super().__init__()
        self._attributes: dict[str, str] = {}
        for name, value in values.items():
            attribute = name
            while hasattr(self, attribute):  # a modality may be called "type", or "items"
                attribute += "_"
            self._attributes[name] = attribute
            setattr(self, attribute, value)

    def __getitem__(self, name: str) -> T:
        return cast("T", getattr(self, self._attributes[name]))

    def __iter__(self) -> Iterator[str]:
        return iter(self._attributes)

    def __len__(self) -> int:
        return len(self._attributes)

    def items(self) -> Iterator[tuple[str, T]]:
        """Yields names and values, in order."""
        return ((name, self[name]) for name in self)

    @property
    def weight_names(self) -> list[str]:
        """The names of the nets or parameters among the weights, in order."""
        return [*self._attributes.values()]

    def modality(self, attribute: str) -> str | None:
        """Returns the modality whose net or parameter has this name among the weights."""
        return next((n for n, own in self._attributes.items() if own == attribute), None)
