"""Trains from Python: settings and rows in memory, or a data set, become a run."""

import os
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

import torch
from torch import Tensor

from mmgen import build, denormals, toml
from mmgen.brief import cut
from mmgen.data import content
from mmgen.data.split import Split
from mmgen.data.store import write_dataset
from mmgen.errors import ConfigError, DataError, listed
from mmgen.experiment import Experiment
from mmgen.modality import Modality
from mmgen.registry.loading import Registry
from mmgen.run import Run, load
from mmgen.seeding import generator
from mmgen.template import default_experiment
from mmgen.training import run_folder, session
from mmgen.training.loop import Epoch

CHUNK = 1000
"""Rows that are stored at a time."""

Settings = Mapping[str, Any]


def train(
    config: str | Path | Settings | None = None,
    data: Any = None,
    *,
    out: str | Path | None = None,
    validation: float = 0.1,
    each: Callable[[Epoch], object] | None = None,
    force: bool = False,
    device: str = "auto",
    plugin_modules: Sequence[str | Path] = (),
) -> Run:
    """Trains a model, and returns the run with its best weights.

    Args:
        config: A TOML file, or a mapping of the same settings, ``{"train": {"epochs": 30}}``; what
            is left out is as in ``mmgen train DATA``. Rows in memory need the kind of each modality
            here: ``{"modalities": {"label": {"kind": "label", "classes": ["no", "yes"]}}}``.
        data: The folder of a data set; a mapping of stored values ``(rows, ...)`` by modality,
            tensors, arrays or lists of raw cells; a mapping of such mappings by split; or a torch
            ``Dataset`` of such mappings, a row each. ``None``: the one that the configuration
            names.
        out: The run's folder; rows in memory are written beside it, as a data set ``OUT-data``.
            Without it both are in a temporary folder, and gone when the run is no longer used.
        validation: The share of rows in memory that are held out to choose the best weights by, a
            tenth by default.
        each: Is told each epoch.
        force: Whether a run that is there may be replaced.
        device: ``"auto"``, or a torch device.
        plugin_modules: One-file plugins, as ``mmgen -p``.

    Raises:
        MmgenError: If the settings or the data are not what they should be.

    Examples:
        >>> import mmgen
        >>> run = mmgen.train({"train": {"epochs": 5}}, "data/glyphs")  # doctest: +SKIP
    """
    temporary = Path(mkdtemp(prefix="mmgen-"))
    folder = temporary / "run" if out is None else Path(out)
    try:
        modules = [str(each) for each in plugin_modules]
        registry = build.registry(modules)
        where = data
        if not isinstance(data, str | os.PathLike | None):
            run_folder.ensure_absent(folder, force=force)  # before the work
            where = folder.with_name(f"{folder.name}-data")
            _write(where, data, _modalities(config, registry), registry, validation, force)
        experiment = _experiment(config, None if where is None else Path(where), device)
        run_folder.ensure_absent(folder, force=force)
        with denormals.flushed():
            prepared = session.prepare(experiment, modules)
            session.start(prepared, folder, force=force)
            for item in session.train(prepared, folder):
                if each is not None and isinstance(item, Epoch):
                    each(item)
        del prepared
        run = load(folder, device=device, plugin_modules=plugin_modules)
    except BaseException:
        rmtree(temporary, ignore_errors=True)
        raise
    if out is None:
        weakref.finalize(run, rmtree, temporary, ignore_errors=True)
    else:
        rmtree(temporary, ignore_errors=True)
    return run


def _experiment(config: str | Path | Settings | None, data: Path | None, device: str) -> Experiment:
    """Lays what is said over what a data set is trained with if nothing is."""
    here = {} if data is None else {"path": str(data.resolve())}
    if isinstance(config, str | os.PathLike):
        laid = [f"train.device='{device}'", *(f"data.path='{path}'" for path in here.values())]
        return Experiment.read(Path(config), laid)
    table = {k: dict(v) if isinstance(v, Mapping) else v for k, v in (config or {}).items()}
    named = {**here, **{k: v for k, v in table.get("data", {}).items() if k not in here}}
    if not named:
        raise ConfigError("there is no data: name a folder, or hand over rows")
    table["data"] = named
    table["train"] = {"device": device, **table.get("train", {})}
    if "path" not in named:
        return Experiment.laid(table, [], "config")
    if "modalities" in table and named.get("modalities") is None:
        named["modalities"] = [*table["modalities"]]  # exactly those that have settings take part
    return default_experiment(Path(named.pop("path")), [*_overrides(table)])


def _overrides(table: Mapping[str, Any], before: str = "") -> Iterator[str]:
    """Writes settings as overrides: sections are ``model``, ``train``, ``modalities.NAME``."""
    for key, value in table.items():
        section = not before or before == "modalities."
        if section and isinstance(value, Mapping):
            yield from _overrides(value, f"{before}{key}.")
        elif value is not None:
            yield f"{before}{key}={toml.value(value)}"


def _modalities(config: str | Path | Settings | None, registry: Registry) -> dict[str, Modality]:
    """Builds what rows in memory are, as the configuration says."""
    if isinstance(config, str | os.PathLike):
        tables: Any = Experiment.read(Path(config), ["data.path='memory'"]).modalities
    else:
        tables = (config or {}).get("modalities", {})
    for name, table in tables.items():
        if "kind" not in table:
            raise ConfigError(
                f"modalities.{name}: rows in memory need its kind, one of {listed(registry.kinds)}"
            )
    if not tables:
        raise ConfigError(
            "rows in memory need to know what they are: "
            'config = {"modalities": {"NAME": {"kind": ...}, ...}}, with a kind of '
            f"{listed(registry.kinds)}"
        )
    return {name: registry.create(name, dict(table)) for name, table in tables.items()}


def _write(
    folder: Path,
    data: Any,
    modalities: dict[str, Modality],
    registry: Registry,
    share: float,
    force: bool,
) -> None:
    """Writes rows in memory as a data set, chunk by chunk."""
    if not 0 <= share < 1:
        raise ConfigError(f"validation = {share}: a share of the rows, from 0 to less than 1")
    if isinstance(data, Mapping) and all(isinstance(part, Mapping) for part in data.values()):
        splits = {str(name): _chunks(_rows(part), modalities, set()) for name, part in data.items()}
    else:
        count = len(next(iter(data.values()), ())) if isinstance(data, Mapping) else len(data)
        order = torch.randperm(count, generator=generator("validation"), device="cpu")
        held_out = {*order[: int(share * count)].tolist()}
        splits = {"train": _chunks(_rows(data), modalities, held_out)}
        if held_out:
            kept = {*range(count)} - held_out
            splits["validation"] = _chunks(_rows(data), modalities, kept)
    configurations = {name: modality.to_config() for name, modality in modalities.items()}

    def fitted(rows: Mapping[str, Split]) -> Mapping[str, Mapping[str, Any]]:
        return content.fitted(configurations, rows, registry)

    write_dataset(
        folder,
        name="data",
        about="Rows that were in memory.",
        modalities=configurations,
        splits=splits,
        force=force,
        fit=fitted,
    )


def _rows(data: Any) -> Iterator[Mapping[str, Any]]:
    """Yields rows of a mapping of columns, or of a torch ``Dataset``."""
    if isinstance(data, Mapping):
        counts = {name: len(values) for name, values in data.items()}
        if len({*counts.values()}) > 1:
            told = listed(f"{name} has {count:,}" for name, count in counts.items())
            raise DataError(f"rows: {told}; give as many of each")
        for row in range(next(iter(counts.values()), 0)):
            yield {name: values[row] for name, values in data.items()}
        return
    for row in range(len(data)):
        item = data[row]
        if not isinstance(item, Mapping):
            raise DataError(f"row {row:,}: a mapping by modality, not {type(item).__name__}")
        yield item


def _chunks(
    rows: Iterable[Mapping[str, Any]], modalities: Mapping[str, Modality], left_out: set[int]
) -> Iterator[dict[str, Tensor]]:
    forms = {
        n: m.example(torch.zeros(1, dtype=torch.int64), generator()) for n, m in modalities.items()
    }
    chunk: dict[str, list[Tensor]] = {name: [] for name in modalities}
    for number, row in enumerate(rows):
        if number in left_out:
            continue
        for name, modality in modalities.items():
            chunk[name].append(_stored(row, number, name, modality, forms[name][0]))
        if len(chunk[name]) == CHUNK:
            yield {n: torch.stack(values) for n, values in chunk.items()}
            chunk = {n: [] for n in modalities}
    if any(chunk.values()):
        yield {n: torch.stack(values) for n, values in chunk.items()}


def _stored(
    row: Mapping[str, Any], number: int, name: str, modality: Modality, like: Tensor
) -> Tensor:
    """Returns what is stored of a value: a tensor of its numbers, in the kind's own dtype."""
    if name not in row:
        raise DataError(f"row {number:,}: there is no {name!r}, only {listed(map(str, row))}")
    value = row[name]
    try:
        if isinstance(value, Tensor) and value.is_floating_point() and like.is_floating_point():
            kept = value.detach().to("cpu", like.dtype)
            if kept.shape != like.shape or not kept.isfinite().all():
                raise ValueError(
                    f"finite numbers {tuple(like.shape)} are stored, not {tuple(kept.shape)}"
                )
            return kept
        return modality.accept(value)
    except Exception as error:  # whatever a value or a plugin raises, this value was wrong
        said = cut(" ".join(str(error).split())) or type(error).__name__
        raise DataError(f"row {number:,}: {name}: {said}") from None
