"""Reads values off modalities that have choices: one of n classes, or any of n labels."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mmgen.brief import OneLine
from mmgen.data.store import Split
from mmgen.errors import PluginError
from mmgen.modality import Modality

MOST = 1000
"""More choices than this are not told apart: nobody could look at the result."""

ROWS = 10_000
"""Stored rows that are looked at at a time."""

Sort = Literal["multiclass", "multilabel"]


@dataclass(frozen=True, eq=False, repr=False)
class Readout(OneLine):
    """How a modality's observations, and means of them, are read.

    Attributes:
        sort: ``"multiclass"``: every observation is one of the choices. ``"multilabel"``: entry i
            has one of two values, whether or not choice i applies.
        choices: The n raw values, in words.
        codes: What each choice is observed as, flat, ``(n, D)``.
        threshold: Half-way between off and on; not used for one of n.
    """

    sort: Sort
    choices: tuple[str, ...]
    codes: Tensor
    threshold: float = 0.0

    def read(self, x: Tensor) -> Tensor:
        """Reads observations or means ``(B, *shape)``.

        Returns:
            The number of the nearest choice ``(B,)``, which of probabilities is the likeliest one;
            or what is on, ``(B, n)``.
        """
        flat = x.flatten(1)
        if self.sort == "multilabel":
            return flat > self.threshold
        codes = self.codes.to(flat)
        # |x − c|² less |x|², halved and negated.
        return (flat @ codes.T - codes.square().sum(1) / 2).argmax(1)


def readouts(modalities: Mapping[str, Modality], split: Split) -> dict[str, Readout]:
    """Finds out which modalities can be read, and how, from their choices and what rows show.

    The contract does not tell classes from switches, and need not: classes are observed as one of
    the choices in every row; switches have two values, and each choice is one of them on.

    Args:
        modalities: By name.
        split: Rows of all of them; all rows that have it are looked at.

    Returns:
        By name, those that can be read. Left out are modalities without choices, with more than
        :data:`MOST`, with observations that are neither of the two, or that never vary.

    Raises:
        PluginError: If a modality lists a choice that it cannot read.
    """
    found = {}
    for name, modality in modalities.items():
        readout = _readout(modality, split, name)
        if readout is not None:
            found[name] = readout
    return found


def _readout(modality: Modality, split: Split, name: str) -> Readout | None:
    choices = tuple(modality.choices())
    if not 0 < len(choices) <= MOST:
        return None
    try:
        cells = torch.stack([modality.parse(cell) for cell in choices])
    except (ValueError, OSError, RuntimeError) as error:
        raise PluginError(
            f"{name}: kind {modality.kind!r} lists choices that it cannot read: {error}"
        ) from error
    codes = modality.observe(cells).flatten(1)
    multiclass = Readout("multiclass", choices, codes)
    classes = len(choices) > 1 and all(
        torch.equal(codes[multiclass.read(x)], x.flatten(1))
        for x in _observed(modality, split, name)
    )
    if classes:
        return multiclass
    values = codes.unique()
    for x in _observed(modality, split, name):
        known = modality.known(x)
        values = torch.cat([values, x.flatten() if known is None else x[known]]).unique()
        if len(values) > 2:
            break
    if len(values) != 2 or codes.shape[1] != len(choices):
        return None
    off, on = values.tolist()
    each_alone = torch.full_like(codes, off).fill_diagonal_(on)
    threshold = (off + on) / 2
    return Readout("multilabel", choices, codes, threshold) if codes.equal(each_alone) else None


def wholly_known(modality: Modality, split: Split, name: str) -> Split:
    """Returns the rows that have a modality, and of it all that there is to know."""
    having = split.having([name])
    if type(modality).known is Modality.known:
        return having
    masks = [modality.known(x) for x in _observed(modality, having, name)]
    known = [mask.flatten(1).all(1).cpu() for mask in masks if mask is not None]
    return having.where(torch.cat(known)) if known else having


def _observed(modality: Modality, split: Split, name: str) -> Iterable[Tensor]:
    having = split.having([name])
    for rows in torch.arange(having.count, device="cpu").split(ROWS):
        yield modality.observe(having.take(rows, [name])[name])
