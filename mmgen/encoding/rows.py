"""Where the rows come from that are encoded: a data set, or a table."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from mmgen import build
from mmgen.batch import Batch
from mmgen.brief import OneLine
from mmgen.checking import check_stored
from mmgen.data.index import INDEX
from mmgen.data.store import read_dataset
from mmgen.data.tables.importing import first_of
from mmgen.data.tables.table import BadRow
from mmgen.encoding.codes import CHUNK, encoded
from mmgen.encoding.outliers import Likelihoods, held_out_rows
from mmgen.encoding.writing import write_codes
from mmgen.errors import ConfigError, DataError, GenerationError, listed, nearest
from mmgen.filling.tables import SAMPLE, readers_of
from mmgen.held_out import held_out, rows_of
from mmgen.registry.loading import Registry
from mmgen.rows.reading import read
from mmgen.run import Run
from mmgen.tabular import parquet
from mmgen.tabular.cells import read_cells, told
from mmgen.tabular.raw import CsvFile, opened
from mmgen.training import run_folder
from mmgen.training.plan import splits

Done = Callable[[int, int], object]


@dataclass(frozen=True, repr=False)
class Request(OneLine):
    """What is to be encoded, and what is asked of it; see ``mmgen encode --help``."""

    data: Path
    out: Path
    given: Sequence[str] | None = None
    split: str | None = None
    likelihood: bool = False
    outliers: bool = False
    reference: Path | None = None
    samples: int = 50
    columns: dict[str, dict[str, Any]] = field(default_factory=dict)
    missing: Sequence[str] = ()
    delimiter: str | None = None
    encoding: str = "utf-8"
    iterations: int | None = None
    seed: int = 0
    say: Callable[[str], object] = field(default=lambda _: None)


def encode_to(
    run: Run,
    registry: Registry,
    request: Request,
    done: Done = lambda _done, _all: None,
) -> int:
    """Encodes rows into a file, and returns how many they were.

    Args:
        run: The trained run.
        registry: The plugins.
        request: What is asked for.
        done: Is told how far it is, and of how much.

    Raises:
        MmgenError: If something is asked for that the run or the data do not have, if rows of a
            table cannot be used, or the file cannot be written.
    """
    model = run.model
    _check(run, request)
    likelihoods = None
    if request.likelihood or request.outliers:
        reference = None
        if request.outliers:
            environment = run_folder.environment(run.path)
            rows = rows_of(
                run,
                registry,
                environment,
                data=request.reference,
                split=_usual(run, registry, request),
                other=request.reference is not None,
            )
            reference = held_out_rows(rows.split, model, request.seed)
        likelihoods = Likelihoods(model, request.samples, request.seed, reference)
    event = model.prior(model.blank(model.directions.given if model.directions else ())).event_shape
    with ExitStack() as held:
        codes = encoded(
            model,
            _chunks(run, registry, request, done, held),
            given=request.given,
            likelihoods=likelihoods,
            iterations=request.iterations,
            seed=request.seed,
        )
        return write_codes(request.out, codes, event)


def _check(run: Run, request: Request) -> None:
    for name in request.given or ():
        if name not in run.modalities:
            raise GenerationError(
                f"--given {name}: {run.path} has {listed(run.modalities)}"
                f"{nearest(name, run.modalities)}"
            )
    if request.reference is not None and not request.outliers:
        raise ConfigError("--reference is for --outliers")
    if request.iterations is not None and run.model.directions is not None:
        raise GenerationError(f"{run.path}: a model of one direction takes no --iterations")


def _usual(run: Run, registry: Registry, request: Request) -> str | None:
    """Returns the split that others are held against: for validation, else held out."""
    experiment = run.experiment
    if request.reference is not None:
        known = splits(read_dataset(request.reference))
    else:
        known = splits(build.dataset(experiment, registry))
    return "validation" if "validation" in known else held_out(known)


def _chunks(
    run: Run, registry: Registry, request: Request, done: Done, held: ExitStack
) -> Iterator[tuple[Batch, int]]:
    """Yields observations of rows, chunk by chunk."""
    if (request.data / INDEX).is_file():
        return _of_dataset(run, registry, request, done)
    if request.data.is_dir():
        raise DataError(f"{request.data}: is no data set (there is no {INDEX}), and no table")
    if request.split is not None:
        raise ConfigError(
            f"--split {request.split}: {request.data} is a table, which has no splits"
        )
    if parquet.is_parquet(request.data):
        parquet.check_installed(request.data)
        from mmgen.tabular.arrow import opened as arrow

        table = held.enter_context(arrow(request.data))
        return _of_table(run, registry, request, done, table.headings, table.rows(), table)
    csv = held.enter_context(opened(request.data, request.delimiter, request.encoding))
    return _of_table(run, registry, request, done, csv.headings, _csv_rows(csv), csv)


def _of_dataset(
    run: Run, registry: Registry, request: Request, done: Done
) -> Iterator[tuple[Batch, int]]:
    dataset = read_dataset(request.data)
    known = splits(dataset)
    if request.split is not None and request.split not in known:
        raise DataError(
            f"--split {request.split}: {request.data} has {listed(known)}"
            f"{nearest(request.split, known)}"
        )
    wanted = [n for n in (request.given or run.modalities) if n in dataset.modalities]
    if absent := [n for n in request.given or () if n not in wanted]:
        raise DataError(f"{request.data} has no modality {listed(absent)}")
    if not wanted:
        raise DataError(
            f"{request.data} has {listed(dataset.modalities)}, and the run {listed(run.modalities)}"
        )
    modalities = {n: run.modalities[n] for n in wanted}
    check_stored(dataset, modalities, registry)
    chosen = [known[request.split]] if request.split is not None else [*known.values()]
    total, before = sum(split.count for split in chosen), 0
    for split in chosen:
        rows = read(modalities, split, run.model.like, request.seed)
        for start, x in rows.chunks(CHUNK):
            yield x, min(CHUNK, rows.count - start)
            done(before + min(start + CHUNK, rows.count), total)
        before += rows.count


def _csv_rows(csv: CsvFile) -> Iterator[tuple[str, list[str]] | BadRow]:
    for record in csv.records():
        if record.problem:
            yield BadRow(record.place, "", record.problem, "too few or too many cells")
        elif record.fields:
            yield record.place, [csv.text(field) for field in record.fields]


def _of_table(
    run: Run,
    registry: Registry,
    request: Request,
    done: Done,
    headings: Sequence[str],
    rows: Iterator[tuple[str, list[str]] | BadRow],
    file: Any,
) -> Iterator[tuple[Batch, int]]:
    head = [*islice(rows, SAMPLE)]
    sample = [row[1] for row in head if not isinstance(row, BadRow)]
    readers, _ = readers_of(
        run, registry, request.data, headings, sample, request.columns, request.missing
    )
    assigned = {reader.name: reader.assigned for reader in readers}
    if absent := [n for n in request.given or () if n not in assigned]:
        raise DataError(f"{request.data} has no column of {listed(absent)}")
    request.say(told(assigned, run.modalities))
    every, bad, count = chain(head, rows), [], 0
    while chunk := [*islice(every, CHUNK)]:
        count += len(chunk)
        bad += [row for row in chunk if isinstance(row, BadRow)]
        used = [row for row in chunk if not isinstance(row, BadRow)]
        found = read_cells(readers, used, run.model.like, request.seed)
        bad += found.bad.values()
        if not bad and used:
            yield found.x, found.rows
        done(file.read, file.size)
    if bad:
        raise DataError(
            f"{request.data}: {len(bad):,} of {count:,} rows cannot be used:\n{first_of(bad)}"
        )
