"""Which columns of a table are whose: by their headings, by what is in them, or as a user says."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmgen.brief import OneLine
from mmgen.data.cells import as_name
from mmgen.errors import ConfigError, listed, nearest
from mmgen.modality import Modality


@dataclass(frozen=True, repr=False)
class Assigned(OneLine):
    """The columns of a table that make a modality.

    Attributes:
        columns: Their positions, in the order in which the modality reads them.
        headings: Their headings.
        own: Which of the modality's own columns each is (``"height"``); ``""`` of one that is
            called otherwise: of a kind of one column, or of a list such as ``bold|italic``.
    """

    columns: tuple[int, ...]
    headings: tuple[str, ...]
    own: tuple[str, ...]


def assign(
    headings: Sequence[str],
    cells: Mapping[str, Sequence[str]],
    modalities: Mapping[str, Modality],
    wanted: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Assigned]:
    """Finds the columns of a run's modalities.

    A column is a modality's if it is called as the modality, or as one of its own columns; if it
    holds names of files, and the modality is the only one that is read from files; or if it lists
    words that are all among the modality's own.

    Args:
        headings: Of the table.
        cells: Some cells that are not empty, by heading.
        modalities: By name.
        wanted: ``columns`` by modality, as ``mmgen data table --config`` takes them.

    Returns:
        By modality; those that the table has no column of are left out.

    Raises:
        ConfigError: If what is wanted is not there, or the table has no modality at all.
    """
    known = [heading for heading in headings if heading]
    found: dict[str, list[str]] = {}
    for name, table in (wanted or {}).items():
        if name not in modalities:
            raise ConfigError(
                f"modalities.{name}: the run has {listed(modalities)}{nearest(name, modalities)}"
            )
        columns = table.get("columns", [name])
        columns = [columns] if isinstance(columns, str) else columns
        for column in columns:
            if column not in known:
                raise ConfigError(
                    f"modalities.{name}.columns: the table has no column {column!r}"
                    f"{nearest(str(column), known)}; there are {listed(known)}"
                )
        found[name] = list(columns)
    taken = {column for columns in found.values() for column in columns}
    for name, modality in modalities.items():
        if name not in found:
            free = [heading for heading in known if heading not in taken]
            if columns := _columns(name, modality, free, cells, modalities):
                found[name] = columns
                taken |= {*columns}
    if not found:
        raise ConfigError(
            f"the table has the columns {listed(known)}, and the run the modalities "
            f"{listed(modalities)}; say which is whose: --config FILE.toml, with "
            "[modalities.NAME] and columns = [...]"
        )
    return {n: _assigned(modalities[n], headings, found[n]) for n in modalities if n in found}


def _columns(
    name: str,
    modality: Modality,
    free: Sequence[str],
    cells: Mapping[str, Sequence[str]],
    modalities: Mapping[str, Modality],
) -> list[str]:
    own = modality.column_names()
    called = [h for h in free if as_name(h) in own]
    if called:
        lists = [h for h in free if h not in called and _lists(modality, h, cells.get(h, ()))]
        return sorted(called, key=lambda h: own.index(as_name(h))) + lists
    if same := [h for h in free if h == name or _plain(h) == name]:
        return same[:1]
    if own and (lists := [h for h in free if _lists(modality, h, cells.get(h, ()))]):
        return lists
    files = [n for n, m in modalities.items() if m.cells_are_paths]
    if files == [name]:
        named = [h for h in free if h in cells and _score(modality, cells[h]) > 0.5]
        return named if len(named) == 1 else []
    return []


def _plain(heading: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", heading).strip("_")


def _score(modality: Modality, cells: Sequence[str]) -> float:
    return modality.match_score(cells) if cells else 0.0


def _lists(modality: Modality, heading: str, cells: Sequence[str]) -> bool:
    """Tells whether a column holds words that are all among those of a kind of many columns."""
    if not modality.multi_column or not cells:
        return False
    inferred = type(modality).infer_settings({heading: cells})
    words = [inferred.get(field) for field in modality.stored_with]
    known = [getattr(modality, field, ()) for field in modality.stored_with]
    return all(
        isinstance(some, list | tuple) and {*some} <= {*every}
        for some, every in zip(words, known, strict=True)
    ) and any(words)


def _assigned(modality: Modality, headings: Sequence[str], columns: Sequence[str]) -> Assigned:
    own = modality.column_names()
    names = tuple(as_name(c) if as_name(c) in own else "" for c in columns)
    if not any(names) and len(columns) == len(own) > 1:  # called otherwise, in the same order
        names = own
    return Assigned(tuple(headings.index(c) for c in columns), tuple(columns), names)
