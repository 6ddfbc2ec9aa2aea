"""Assigns the columns of a table to modalities: guessed, or as the user sets; written as TOML."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmgen import toml
from mmgen.brief import OneLine
from mmgen.data.tables.table import Table
from mmgen.data.tables.votes import NoVoteError, Voters
from mmgen.errors import ConfigError, DataError, listed, nearest
from mmgen.experiment import NAME
from mmgen.files.reading import Reader
from mmgen.modality import Modality
from mmgen.registry.loading import Registry


@dataclass(frozen=True, repr=False)
class Source(OneLine):
    """The columns of a table that a modality is made of.

    Attributes:
        cls: The class of its kind.
        columns: The headings, in order.
        settings: Fields of the kind: inferred from the columns, overridden by what the user sets.
    """

    cls: type[Modality]
    columns: tuple[str, ...]
    settings: Mapping[str, Any]


def read_wanted(path: Path) -> dict[str, dict[str, Any]]:
    """Reads ``[modalities.NAME]`` tables from a TOML file: ``kind``, ``columns`` and settings.

    Raises:
        ConfigError: If it is no such file.
    """
    content = Reader(ConfigError).toml(path)
    tables = content.get("modalities")
    if not isinstance(tables, dict) or not tables or content.keys() - {"modalities"}:
        raise ConfigError(
            f"{path} must hold [modalities.NAME] tables and nothing else, as `mmgen data table "
            f"--show` prints them; it holds {listed(content)}"
        )
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: modalities.{name} must be a table: [modalities.{name}]")
        if not NAME.fullmatch(name):
            raise ConfigError(f"{path}: {name!r} is no name for a modality: letters, digits, _, -")
    return tables


def sources(
    table: Table,
    registry: Registry,
    wanted: Mapping[str, Mapping[str, Any]],
    reserved: Sequence[str] = (),
) -> dict[str, Source]:
    """Assigns columns to modalities.

    Args:
        table: The table.
        registry: The kinds, each of which takes part in the guess.
        wanted: The modalities that take part, as :func:`read_wanted` reads them; what is left out
            is guessed. If empty, every column goes to the kind with the highest score.
        reserved: Headings that are no data, such as the splits'.

    A kind whose plugin fails has no vote, and a note on standard error: the columns go to the
    others.

    Raises:
        ConfigError: If what is wanted cannot be: no such column, no kind that suits.
        DataError: If the headings are missing.
        PluginError: If a kind is unknown, or the plugin of one that is wanted fails.
    """
    voters = Voters(registry, dict(registry.kinds))
    while True:
        try:
            return _sources(table, voters, wanted, reserved)
        except NoVoteError as fault:
            voters.leave_out(fault)


def _sources(
    table: Table,
    voters: Voters,
    wanted: Mapping[str, Mapping[str, Any]],
    reserved: Sequence[str],
) -> dict[str, Source]:
    known = [heading for heading in table.named if heading not in reserved]
    if not wanted:
        return _guessed(table, voters, known)
    found = {}
    for name, given in wanted.items():
        settings = {key: value for key, value in given.items() if key not in {"kind", "columns"}}
        columns = _columns(name, given.get("columns"), table, voters, known)
        kind = given.get("kind")
        cls = voters.registry.get(str(kind)) if kind else _surest(table, voters, columns)
        if cls is None:
            raise ConfigError(
                f"modalities.{name}: no kind suits {listed(columns)}; "
                f"name one: kind = one of {listed(voters.registry.kinds)}"
            )
        found[name] = _source(table, voters, cls, columns, settings, guessed=not kind)
    return found


def build(found: Mapping[str, Source], registry: Registry) -> dict[str, Modality]:
    """Builds the modalities.

    Raises:
        ConfigError: If a setting is wrong.
        DataError: If there are fewer than two: a joint model relates several.
        PluginError: If a plugin fails.
    """
    if len(found) < 2:
        raise DataError(
            f"the table has {'only ' if found else ''}{listed(found)} to learn from, but a joint "
            "model needs at least two modalities; name columns for more with --config FILE.toml"
        )
    return {
        name: registry.create(name, {"kind": source.cls.kind, **source.settings})
        for name, source in found.items()
    }


def unused(table: Table, found: Mapping[str, Source], reserved: Sequence[str] = ()) -> list[str]:
    """Returns the headings that belong to no modality."""
    used = {column for source in found.values() for column in source.columns} | {*reserved}
    return [heading for heading in table.named if heading not in used]


def as_toml(found: Mapping[str, Source], left: Sequence[str] = ()) -> str:
    """Writes each modality's columns as TOML that :func:`read_wanted` reads; notes ``left``."""
    blocks = []
    for name, source in found.items():
        values = {"kind": source.cls.kind, "columns": source.columns, **source.settings}
        given = {key: value for key, value in values.items() if value is not None}
        lines = [f"{toml.key(key)} = {toml.value(value)}" for key, value in given.items()]
        blocks.append("\n".join([f"[modalities.{name}]", *lines]))
    if left:
        blocks.append(f"# not used: {toml.value(left)}")
    return "\n\n".join(blocks)


def _guessed(table: Table, voters: Voters, known: Sequence[str]) -> dict[str, Source]:
    chosen: dict[str, list[str]] = {}
    for heading in known:
        if _counts(table.column(heading)):
            continue
        if cls := _surest(table, voters, [heading]):
            if cls.cells_are_paths and voters.match_score(cls, [heading]) > 0.5:
                raise DataError(
                    f"{table.path}: {heading!r} is the name of a file, not a heading; "
                    "the first line must name the columns"
                )
            chosen.setdefault(cls.kind, []).append(heading)
    groups: list[tuple[str, str, list[str]]] = []
    for kind, columns in chosen.items():
        if voters.kinds[kind].multi_column:
            groups.append((kind, kind, columns))
        else:
            # A heading over file names names the folder; one over words, the variable.
            called = len(columns) == 1 and voters.kinds[kind].cells_are_paths
            groups += [(kind if called else _name(each, kind), kind, [each]) for each in columns]
    groups.sort(key=lambda group: known.index(group[2][0]))
    found: dict[str, Source] = {}
    for name, kind, columns in groups:
        free = name
        for number in range(2, len(groups) + 2):
            if free in found:
                free = f"{name}-{number}"
        found[free] = _source(table, voters, voters.kinds[kind], columns, {}, guessed=True)
    return found


def _counts(cells: Sequence[str]) -> bool:
    """Returns whether cells are running numbers of the rows, which carry no data."""
    first = next(iter(cells), "")
    return (
        len(cells) >= 10
        and first.isdecimal()
        and all(cell == str(number) for number, cell in enumerate(cells, int(first)))
    )


def _columns(
    name: str,
    given: Any,
    table: Table,
    voters: Voters,
    known: Sequence[str],
) -> list[str]:
    """Returns a modality's columns: those given, the one of its name, or those of the guess."""
    if given is None:
        if name in known:
            return [name]
        if (guess := _guessed(table, voters, known).get(name)) is not None:
            return list(guess.columns)
        raise ConfigError(
            f"modalities.{name}: the table has no column {name!r}{nearest(name, known)}; name "
            f"some: columns = [...] of {listed(known)}"
        )
    columns = [given] if isinstance(given, str) else given
    if not isinstance(columns, list) or not columns or not all(isinstance(c, str) for c in columns):
        raise ConfigError(f"modalities.{name}.columns must be a list of headings, not {given!r}")
    for column in columns:
        if column not in known:
            raise ConfigError(
                f"modalities.{name}.columns: the table has no column {column!r}"
                f"{nearest(column, known)}; there are {listed(known)}"
            )
    return list(dict.fromkeys(columns))


def _surest(table: Table, voters: Voters, columns: Sequence[str]) -> type[Modality] | None:
    best, highest = None, 0.0
    for cls in voters.kinds.values():
        if len(columns) > 1 and not cls.multi_column:
            continue
        score = min(voters.match_score(cls, table.column(column)) for column in columns)
        if score > highest:
            best, highest = cls, score
    return best


def _source(
    table: Table,
    voters: Voters,
    cls: type[Modality],
    columns: Sequence[str],
    settings: Mapping[str, Any],
    *,
    guessed: bool,
) -> Source:
    cells = {column: table.column(column) for column in columns}
    if cls.cells_are_paths:
        cells = {c: [str(table.folder / cell) for cell in each] for c, each in cells.items()}
    read = voters.infer_settings(cls, cells, guessed=guessed)
    return Source(cls, tuple(columns), {**read, **settings})


def _name(heading: str, kind: str) -> str:
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", heading).strip("_")
    return name if NAME.fullmatch(name) else kind
