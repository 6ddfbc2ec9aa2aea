"""Fills a Parquet file: columns keep their types, and values that were there stay as they are."""

from collections.abc import Iterator
from functools import partial
from itertools import chain, islice
from typing import Any

from mmgen.data.cells import number, switch
from mmgen.errors import WriteError
from mmgen.files.atomic import check_writable
from mmgen.filling.filler import Filled, Filler, sure_headings
from mmgen.filling.tables import (
    IMPUTATION,
    Pictures,
    Report,
    Request,
    fill_to,
    free_heading,
    refuse,
    values_in_words,
)
from mmgen.registry.loading import Registry
from mmgen.run import Run
from mmgen.tabular.arrow import ArrowFile, opened
from mmgen.tabular.parquet import Sink


def fill_parquet(run: Run, registry: Registry, request: Request) -> Report:
    """Fills a Parquet file, whole or not at all, as :func:`mmgen.filling.csv.fill_csv` does.

    Raises:
        DataError: If the file cannot be read, or rows cannot be used.
        WriteError: If the output cannot be written, or a value is none of its column's type.
    """
    check_writable(request.out)
    with opened(request.table) as table:
        batches = table.batches()
        head = [*islice(batches, 1)]
        sample = [cells for batch in head for _, cells in table.words(batch)]
        parts = partial(_parts, table, chain(head, batches), request)
        return fill_to(run, registry, request, table.headings, sample, parts)


def _parts(
    table: ArrowFile,
    batches: Iterator[Any],
    request: Request,
    filler: Filler,
    pictures: Pictures,
    report: Report,
) -> Iterator[bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    times, sure = request.how.imputations, sure_headings(filler, table.headings)
    schema = _schema(table, sure, numbered=times is not None)
    sink = Sink()
    with pq.ParquetWriter(sink, schema) as writer:
        for chunk, batch in enumerate(batches):
            rows = table.words(batch)
            filled, bad = filler.fill(rows, chunk)
            report.rows += len(rows)
            report.bad += bad.values()
            request.done(table.read + len(rows), table.size)
            if report.bad and not request.skip_bad:
                continue  # they are all listed, and nothing is written
            places = [place for place, _ in rows]
            made = [
                _filled(table, batch, filler, pictures, sure, each, places, n if times else None)
                for n, each in enumerate(filled, start=1)
            ]
            whole = pa.concat_tables([pa.Table.from_arrays(each, schema=schema) for each in made])
            if times:  # the imputations of a row one below the other
                order = [i * len(rows) + row for row in range(len(rows)) for i in range(times)]
                whole = whole.take(order)
            writer.write_table(whole)
            yield sink.taken()
        refuse(request, report.bad, report.rows)
    yield sink.taken()


def _schema(table: ArrowFile, sure: dict[int, str], *, numbered: bool) -> Any:
    import pyarrow as pa

    fields = []
    for column, field in enumerate(table.schema):
        kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        fields.append(pa.field(field.name, kind))
        if column in sure:
            fields.append(pa.field(sure[column], pa.float64()))
    if numbered:
        fields.append(pa.field(free_heading(IMPUTATION, table.headings), pa.int64()))
    return pa.schema(fields, table.schema.metadata)


def _filled(
    table: ArrowFile,
    batch: Any,
    filler: Filler,
    pictures: Pictures,
    sure: dict[int, str],
    filled: Filled,
    places: list[str],
    imputation: int | None,
) -> list[Any]:
    """Returns the columns of the output."""
    import pyarrow as pa

    words = values_in_words(filler, filled, pictures, table.headings, places, imputation)
    by_column: dict[int, dict[int, str]] = {}
    for (row, column), word in words.items():
        by_column.setdefault(column, {})[row] = word
    columns = []
    for column, values in enumerate(batch.columns):
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()  # noqa: PLW2901
        if column in by_column:
            new = by_column[column]
            cells = [
                _typed(new[row], values.type, table.headings[column]) if row in new else value
                for row, value in enumerate(values.to_pylist())
            ]
            values = pa.array(cells, values.type)  # noqa: PLW2901
        columns.append(values)
        if column in sure:
            known = [filled.sure.get((row, column)) for row in range(batch.num_rows)]
            columns.append(pa.array(known, pa.float64()))
    if imputation is not None:
        columns.append(pa.array([imputation] * batch.num_rows, pa.int64()))
    return columns


def _typed(word: str, kind: Any, heading: str) -> Any:
    """Returns a value as its column has it."""
    from pyarrow import types

    value = number(word)
    if types.is_string(kind) or types.is_large_string(kind):
        return word
    if types.is_boolean(kind) and switch(word) is not None:
        return switch(word)
    if types.is_floating(kind) and value is not None:
        return value
    if types.is_integer(kind) and value is not None:
        return round(value)
    if types.is_list(kind) and types.is_string(kind.value_type):
        return [] if word == "none" else word.split("|")
    raise WriteError(f"the column {heading!r} is of {kind}, which {word!r} is not")
