"""Passes on what a source gives, with every fault of its plugin named; lets kinds measure rows."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor

from mmgen.brief import short
from mmgen.data.records import content_of
from mmgen.data.split import Split
from mmgen.data.tables.votes import blaming
from mmgen.errors import DataError, MmgenError, PluginError
from mmgen.modality import Modality
from mmgen.registry.discovery import one_line
from mmgen.registry.loading import Registry
from mmgen.source import Content, Records, Source

SEEN = 256 << 20
"""The bytes of a modality's rows that it is fitted to: of more, so many evenly spread ones."""


def fitted(
    configurations: Mapping[str, Mapping[str, Any]], rows: Mapping[str, Split], registry: Registry
) -> dict[str, dict[str, Any]]:
    """Returns the configurations of a data set with what their kinds measure on its rows.

    A kind that is not there, or settings that it refuses, are left for the experiment to tell.

    Args:
        configurations: Of each modality, by name.
        rows: The splits; kinds see that to train on.
        registry: Finds the class of each kind.

    Raises:
        PluginError: If a kind fails to measure.
    """
    known = {}
    split = rows.get("train") or next(iter(rows.values()))
    for name, configuration in configurations.items():
        known[name] = dict(configuration)
        try:
            modality = registry.create(name, configuration)
        except MmgenError:
            continue
        cls = type(modality)
        says = cls.needs_fit is not Modality.needs_fit  # rows are read for those that may need it
        if cls.fit is Modality.fit or (says and not modality.needs_fit):
            continue
        known[name] = fit(name, modality, split, registry).to_config()
    return known


def fit(name: str, modality: Modality, split: Split, registry: Registry) -> Modality:
    """Returns a modality fitted to the rows that have it, or to evenly spread ones of many.

    Raises:
        DataError: If no row has it.
        PluginError: If the kind fails to measure.
    """
    rows = split.having([name])
    if not rows.count:
        raise DataError(f"no row to train on has {name!r}, so nothing can be measured of it")
    count = max(1, rows.count * SEEN // max(SEEN, rows.nbytes([name])))
    with blaming(type(modality), registry, "be fitted to the training split"):
        return modality.fit(rows.spread(count, [name]).load([name])[name])


@contextmanager
def _blaming_source(kind: str, registry: Registry) -> Iterator[None]:
    """Turns what a source raises into an error that names it and its plugin."""
    try:
        yield
    except (MmgenError, MemoryError):
        raise
    except OSError as error:
        where = f"{error.filename}: " if error.filename is not None else ""
        raise DataError(f"source {kind!r}: {where}{error.strerror or error}") from error
    except (Exception, SystemExit) as error:
        who = f"source {kind!r} of plugin {registry.source_provider(kind)}"
        raise PluginError(f"{who} failed: {one_line(error)}") from error


def content(
    source: Source, registry: Registry, kinds: Callable[[], Registry] | None = None
) -> Content:
    """Reads a source; its rows are checked and passed on when they are asked for.

    Args:
        source: The source.
        registry: Has the plugin that provides it.
        kinds: Loads all plugins, where the kinds are to make modalities of records; by default,
            those of ``registry`` do.

    Raises:
        MmgenError: What the source raises, now or with a chunk; whatever is none names its plugin.
    """
    kind = source.kind
    with _blaming_source(kind, registry):
        content = source.read()
        if isinstance(content, Records):
            content = content_of(content, kinds() if kinds else registry)
        if not isinstance(content, Content):
            raise TypeError(f"read() gave {type(content).__name__}; give a Content")
        splits = {str(split): iter(chunks) for split, chunks in content.splits.items()}
    passed = {split: _chunks(kind, chunks, registry) for split, chunks in splits.items()}
    about = (
        content.about
        if isinstance(content.about, str)
        else partial(_about, source, content, registry)
    )
    return replace(content, about=about, splits=passed)


def _about(source: Source, content: Content, registry: Registry) -> str:
    with _blaming_source(source.kind, registry):
        about = content.about if isinstance(content.about, str) else content.about()
        if not isinstance(about, str):
            raise TypeError(f"about() gave {type(about).__name__}; give a text")
        return about


def _chunks(kind: str, chunks: Iterator[Any], registry: Registry) -> Iterator[Mapping[str, Tensor]]:
    while True:
        with _blaming_source(kind, registry):
            chunk = next(chunks, None)
            if chunk is None:
                return
            if not isinstance(chunk, Mapping) or not all(
                isinstance(value, Tensor) for value in chunk.values()
            ):
                told = short(chunk)
                raise TypeError(f"a chunk is {told}; give a dictionary of tensors by modality")
        yield chunk
        del chunk  # before the next one is asked for
