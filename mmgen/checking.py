"""Stored values against the modalities that are to read them, before anything is written.

Settings laid over a data set, a data set with other content than it says, a plugin that reads it
otherwise than the one that wrote it: each ends in wrong numbers without a word. Nothing here knows
a kind. What a modality says of itself is held against the data: the fields that values were stored
with, the shape of an observation, and the support of its likelihood.
"""

import json
from collections.abc import Iterator, Mapping
from functools import partial
from math import prod

import torch
from torch import Tensor
from torch.distributions.constraints import Constraint

from mmgen import build, shell
from mmgen.data.split import Split
from mmgen.data.store import Dataset
from mmgen.errors import ConfigError, DataError, PluginError
from mmgen.files.documents import short
from mmgen.modality import Modality
from mmgen.registry.loading import Registry
from mmgen.seeding import generator

WHOLE = 1 << 22
"""So many numbers may all observations of a split have, for all to be looked at."""

SPREAD = 64
"""Rows that are looked at where all are too many, beside those with the extreme values."""

SCANNED = 1 << 28
"""Bytes of a split that are searched for extreme values: of more, blocks spread over it."""

BLOCK = 1 << 20
"""Numbers that are observed at a time."""

ORDERED = frozenset(
    {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
    | {torch.float16, torch.bfloat16, torch.float32, torch.float64}
)
"""The types whose extremes torch finds."""


def check_stored(dataset: Dataset, modalities: Mapping[str, Modality], registry: Registry) -> None:
    """Checks that every split holds what the modalities expect, whatever their kinds.

    All rows are observed if they have few numbers, as classes and measurements do; else the first,
    the last, some in between, and those that hold the smallest and the largest number.

    Args:
        dataset: The data set, which has all of these modalities.
        modalities: By name, as they are to read it.
        registry: Tells which plugin a kind is from.

    Raises:
        ConfigError: If a setting gives stored values another meaning than they were written with.
        DataError: If stored values cannot be observed, or are none that the likelihood can have.
        PluginError: If ``stored_with`` names what is no field.
    """
    for name, modality in modalities.items():
        provider = registry.provider(modality.kind)
        _check_settings(dataset, name, modality, f"kind {modality.kind!r} of plugin {provider}")
        support = _support(modality)
        for split, values in dataset.splits.items():
            if fault := _fault(values, name, modality, support):
                raise DataError(
                    f"{dataset.path}: split {split!r} does not hold what modalities.{name} "
                    f"expects, of kind {modality.kind!r} of plugin {provider}:\n  {fault}\n  "
                    f"{_advice(dataset, name, modality, registry)}"
                )


def _check_settings(dataset: Dataset, name: str, modality: Modality, kind: str) -> None:
    written, now = dataset.modalities[name], modality.to_config()
    if written["kind"] != modality.kind:
        return  # its fields have other meanings; the values tell whether it can read them
    for field in modality.stored_with:
        info = type(modality).model_fields.get(field)
        if info is None:
            raise PluginError(f"{kind}: stored_with names {field!r}, which is none of its fields")
        then = written.get(field, info.get_default(call_default_factory=True))
        # As JSON has it if it is written down, as the class has it if it is a default.
        if then not in (now[field], getattr(modality, field)):
            raise ConfigError(
                f"modalities.{name}.{field} is {_short(now[field])}, but {dataset.path} was "
                f"written with {_short(then)}, which decides what its stored values mean.\n"
                f"  Leave the setting as the data set has it, or write a data set with yours"
            )


def _advice(dataset: Dataset, name: str, modality: Modality, registry: Registry) -> str:
    written, now = dataset.modalities[name], modality.to_config()
    changed = {key: value for key, value in now.items() if written.get(key, value) != value}
    if not changed:
        check = shell.command("plugins", "check", modality.kind, plugins=registry.modules)
        return (
            "That is by the data set's own settings: write it again, or see whether the plugin is "
            f"in order: {check}"
        )
    told = (
        f"{key} = {_short(value)}, not {_short(written[key])}" for key, value in changed.items()
    )
    return f"These settings are not those of the data set: {', '.join(told)}"


def _support(modality: Modality) -> Constraint | None:
    """Returns what values have a likelihood above 0; ``None`` if that cannot be told."""
    try:
        support = build.sketch_likelihood(modality).support
    except Exception:  # of a plugin: whoever builds its nets says what is wrong with them
        return None
    return support if isinstance(support, Constraint) else None


def _fault(split: Split, name: str, modality: Modality, support: Constraint | None) -> str | None:
    """Tells what is wrong with a split's values; ``None`` if nothing is."""
    count = sum(len(shard[name]) for shard in split.shards)
    if count != split.count:  # made up by a plugin: the store counts what is in files
        return f"there are {count} rows, but {split.count} of {split.names[0]!r}"
    has = split.present.get(name)
    number = None if has is None else has.nonzero().squeeze(1)
    for rows, stored in _seen(split.having([name]), name, modality):
        counted = rows if number is None else number[rows]
        if fault := _fault_of(counted, stored, modality, support):
            return fault
    return None


def _seen(split: Split, name: str, modality: Modality) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields numbers of rows ``(n,)`` and what they store ``(n, ...)``."""
    numbers = max(1, prod(modality.shape))
    if split.count * numbers <= WHOLE:
        for start, block in split.blocks(name, max(1, BLOCK // numbers)):
            # A copy: observe() of a plugin might write into what it is given.
            yield torch.arange(start, start + len(block), device="cpu"), block.clone()
    else:
        spread = torch.arange(SPREAD, device="cpu") * (split.count - 1) // (SPREAD - 1)
        rows = torch.tensor(sorted({*spread.tolist(), *_extremes(split, name)}), device="cpu")
        yield rows, split.take(rows, [name])[name]


def _extremes(split: Split, name: str) -> set[int]:
    """Returns rows that hold the smallest and the largest number, or one that holds no number."""
    found: dict[str, tuple[float, int]] = {}
    for start, block in split.blocks(name, every=1 + split.nbytes([name]) // SCANNED):
        numbers = block if block.dtype in ORDERED else block.to(torch.float64)
        numbers = numbers.reshape(len(block), -1)
        for which, value in zip(("least", "most"), torch.aminmax(numbers), strict=True):
            if value.isnan():
                return {start + int(numbers.isnan().any(1).int().argmax())}
            size = float(value) if which == "most" else -float(value)
            if which not in found or size > found[which][0]:
                found[which] = size, start + int((numbers == value).any(1).int().argmax())
    return {row for _, row in found.values()}


def _fault_of(
    rows: Tensor, stored: Tensor, modality: Modality, support: Constraint | None
) -> str | None:
    expected = _form(torch.empty(0, *modality.shape, device="meta"))
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            x = modality.observe(stored, generator("stored values"))
        found = _form(x)
        inside = x.isfinite().reshape(len(x), -1).all(1)
    except Exception as error:  # whatever a plugin raises, or returns in place of a tensor
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return f"rows stored as {_form(stored)} cannot be observed as {expected}: {cause}"
    if (len(x), found) != (len(rows), expected):
        return (
            f"{len(rows)} rows stored as {_form(stored)} are observed as {len(x)} of {found}, "
            f"not {expected}"
        )
    inside &= _supported(x, support)
    if inside.all():
        return None
    first = int(inside.int().argmin())
    where = f"the likelihood's support {support}" if x[first].isfinite().all() else "finite numbers"
    return (
        f"row {int(rows[first])} stores {_shown(stored[first])}, which is observed as "
        f"{_shown(x[first])}, outside {where}"
    )


def _supported(x: Tensor, support: Constraint | None) -> Tensor:
    """Tells of each row whether it is in the support, or all are if that cannot be told."""
    if support is not None:
        try:
            inside: Tensor = support.check(x)
            return inside.reshape(len(x), -1).all(1)
        except Exception:  # bounds that a net puts out, which the meta device does not have
            pass
    return torch.ones(len(x), dtype=torch.bool, device=x.device)


def _form(values: Tensor) -> str:
    return f"{str(values.dtype).removeprefix('torch.')} {tuple(values.shape[1:])}"


def _shown(value: Tensor) -> str:
    if value.numel() <= 8:
        return str(value.tolist())
    return f"{value.numel()} numbers from {value.min().item():g} to {value.max().item():g}"


def _short(value: object) -> str:
    return short(value, partial(json.dumps, ensure_ascii=False))
