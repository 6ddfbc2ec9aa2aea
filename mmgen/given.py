"""What people have, as observations: words, numbers, lists, arrays, pictures, tensors; one or many.

The rules, for every kind alike:

- A tensor of floating-point numbers is an observation as the nets see it: what ``.mean`` and
  ``.sample()`` of a result are.
- All else is a raw value, which the kind's :meth:`~mmgen.modality.Modality.accept` takes as it
  takes what is typed; a tensor of integers is a stored value.
- A list or array that is no single value of its kind holds several, one for each row; so does a
  tensor with one more dimension.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmgen.brief import cut
from mmgen.errors import GenerationError, listed
from mmgen.modality import Modality


def observations(
    modalities: Mapping[str, Modality],
    given: Mapping[str, Any],
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[dict[str, Tensor], int | None]:
    """Turns given values into observations ``(B, *shape)``, on the device.

    Args:
        modalities: The modalities by name.
        given: One value or several for each name: several for as many rows. One stands for all
            rows beside several.
        device: Where the nets are.
        dtype: Of the nets' numbers.

    Returns:
        The observations, and B; ``None`` if there is one value for each name.

    Raises:
        GenerationError: If a value is not what its kind takes. The message names it.
    """
    read = {}
    for name, value in given.items():
        try:
            read[name] = _read(modalities[name], value, device, dtype)
        except Exception as error:  # whatever a value or a plugin raises, this value was wrong
            shown = f"={cut(value)}" if issubclass(type(value), str) else ""
            raise GenerationError(f"{name}{shown}: {_said(error)}") from None
    counts = {name: len(x) for name, (x, several) in read.items() if several}
    if len({*counts.values()}) > 1:
        told = listed(f"{name} has {count:,}" for name, count in counts.items())
        raise GenerationError(f"rows: {told}; give as many of each, or one for all rows")
    rows = next(iter(counts.values()), None)
    return {n: x.expand(rows or 1, *x.shape[1:]) for n, (x, _) in read.items()}, rows


def _read(
    modality: Modality, value: Any, device: torch.device, dtype: torch.dtype
) -> tuple[Tensor, bool]:
    """Returns observations ``(B, *shape)``, and whether ``value`` held several."""
    if isinstance(value, np.ndarray) and not value.ndim:
        value = value.item()
    if _observed(value):
        return _checked(modality, value.detach().to(device, dtype))
    try:
        stored, several = _accepted(modality, value).unsqueeze(0), False
    except Exception as error:
        several = isinstance(value, Sequence | np.ndarray | Tensor) and not isinstance(
            value, str | bytes | bytearray
        )
        if not several or (isinstance(value, Tensor) and not value.dim()):
            raise
        if not len(value):
            raise ValueError("there are no rows") from None
        rows = [*value]
        if all(map(_observed, rows)):
            return _checked(modality, torch.stack(rows).to(device, dtype))
        stored, several = _rows(modality, rows, error), True
    x, _ = _checked(modality, modality.observe(stored.to(device)).to(dtype), stored)
    return x, several


def _observed(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


def _rows(modality: Modality, values: Sequence[Any], whole: Exception) -> Tensor:
    """Returns stored rows; raises what is wrong with the first bad one, and with all as one."""
    read: list[Tensor] = []
    wrong: tuple[int, Exception] | None = None
    for number, value in enumerate(values):
        try:
            read.append(_accepted(modality, value))
        except Exception as error:
            wrong = wrong or (number, error)
    if wrong is not None:
        told = f"row {wrong[0]}: {_said(wrong[1])}"
        # If no row can be read, it may have been meant as one value.
        raise ValueError(told if read else f"{_said(whole)}; as several rows, {told}")
    return torch.stack(read)


def _accepted(modality: Modality, value: Any) -> Tensor:
    stored = modality.accept(value)
    if not isinstance(stored, Tensor):
        raise TypeError(f"accept() of kind {modality.kind!r} gave {type(stored).__name__}")
    return stored


def _checked(modality: Modality, x: Tensor, stored: Tensor | None = None) -> tuple[Tensor, bool]:
    """Returns observations ``(B, *shape)``, and whether there were several."""
    shape = modality.shape
    one = stored is None and tuple(x.shape) == shape
    if not one and (tuple(x.shape[1:]) != shape or x.dim() != len(shape) + 1):
        raise ValueError(
            f"an observation has the shape {shape}, not {tuple(x.shape)}; B of them, (B, *shape)"
        )
    if not x.numel():
        raise ValueError("there are no rows")
    if not x.isfinite().all():
        raise ValueError("an observation holds numbers that are not finite")
    return (x.unsqueeze(0) if one else x), not one


def _said(error: Exception) -> str:
    try:
        words = cut(" ".join(str(error).split()))
    except Exception:
        words = ""
    if isinstance(error, ValueError | OSError) and words:
        return words
    return f"it cannot be read: {type(error).__name__}{f': {words}' if words else ''}"
