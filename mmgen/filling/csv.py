"""Fills a CSV file: what was there is kept byte for byte."""

from collections.abc import Iterator
from functools import partial
from itertools import chain, islice

from mmgen.data.tables.table import BadRow
from mmgen.files.atomic import check_writable
from mmgen.filling.filler import CHUNK, Filled, Filler, sure_headings
from mmgen.filling.tables import (
    IMPUTATION,
    SAMPLE,
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
from mmgen.tabular.raw import CsvFile, Record, opened


def fill_csv(run: Run, registry: Registry, request: Request) -> Report:
    """Fills a CSV file, whole or not at all.

    Beside each column that can be filled stands one that says how sure its values are, empty where
    nothing was filled. With imputations, each row is there as many times, one below the other, and
    a last column numbers them.

    Raises:
        DataError: If the file cannot be read, or rows cannot be used.
        WriteError: If the output cannot be written, or a value has letters that the file's encoding
            lacks.
    """
    check_writable(request.out)
    with opened(request.table, request.delimiter, request.encoding) as table:
        records = table.records()
        head = [*islice(records, SAMPLE)]
        usable = [r for r in head if r.fields and not r.problem]
        sample = [[table.text(field) for field in record.fields] for record in usable]
        parts = partial(_parts, table, chain(head, records), request)
        return fill_to(run, registry, request, table.headings, sample, parts)


def _parts(
    table: CsvFile,
    records: Iterator[Record],
    request: Request,
    filler: Filler,
    pictures: Pictures,
    report: Report,
) -> Iterator[bytes]:
    """Yields the output's bytes in order.

    Raises:
        DataError: At the end, if rows cannot be used.
    """
    times, sure = request.how.imputations, sure_headings(filler, table.headings)
    fields = []
    for column, field in enumerate(table.first.fields):
        fields += [field, *([table.field(sure[column])] if column in sure else [])]
    if times is not None:
        fields.append(table.field(free_heading(IMPUTATION, table.headings)))
    yield table.mark
    for blank in table.blank_lines:
        yield table.row([], b"") + _kept(table, blank)
    yield table.row(fields, table.first.end)
    number = 0
    while chunk := [*islice(records, CHUNK)]:
        used = [r for r in chunk if r.fields and not r.problem]
        report.rows += sum(bool(record.fields) for record in chunk)
        wrong = [
            BadRow(r.place, "", r.problem, "too few or too many cells") for r in chunk if r.problem
        ]
        report.bad += wrong
        rows = [(record.place, [table.text(field) for field in record.fields]) for record in used]
        filled, bad = filler.fill(rows, number) if rows else ([Filled()] * (times or 1), {})
        report.bad += bad.values()
        number += 1
        request.done(table.read, table.size)
        if report.bad and not request.skip_bad:
            continue  # they are all listed, and nothing is written
        yield from _rows(table, chunk, rows, filler, filled, pictures, sure, times)
    report.bad.sort(key=lambda each: int(each.place.rpartition(" ")[2]))
    refuse(request, report.bad, report.rows)


def _rows(
    table: CsvFile,
    chunk: list[Record],
    rows: list[tuple[str, list[str]]],
    filler: Filler,
    filled: list[Filled],
    pictures: Pictures,
    sure: dict[int, str],
    times: int | None,
) -> Iterator[bytes]:
    places = [place for place, _ in rows]
    words = [
        values_in_words(filler, each, pictures, table.headings, places, n if times else None)
        for n, each in enumerate(filled, start=1)
    ]
    number = -1
    for record in chunk:
        if not record.fields or record.problem:
            yield _kept(table, record)
            continue
        number += 1
        for n, (each, new) in enumerate(zip(filled, words, strict=True), start=1):
            fields = []
            for column, field in enumerate(record.fields):
                word = new.get((number, column))
                fields.append(field if word is None else table.field(word))
                if column in sure:
                    value = each.sure.get((number, column))
                    fields.append(b"" if value is None else f"{value:.4g}".encode())
            if times is not None:
                fields.append(str(n).encode())
            last = n == len(filled)
            yield table.row(fields, record.end if last else record.end or table.newline)


def _kept(table: CsvFile, record: Record) -> bytes:
    """Returns a row as it was; of an empty line, what ends it."""
    return table.row(record.fields, record.end)
