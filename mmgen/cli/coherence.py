"""``mmgen coherence``: how often what was given is recognised in what is generated."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from mmgen.cli import common, measuring
from mmgen.console import stdout
from mmgen.errors import ConfigError


def coherence(
    context: typer.Context,
    run: common.RunFolder,
    targets: measuring.Targets = None,
    given: measuring.Given = None,
    judge: Annotated[
        str | None,
        typer.Option(
            help="Ask another question: is all that is generated of one class? NAME has the "
            "classes: a label, or attributes that are on or off.",
        ),
    ] = None,
    subsets: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=10_000,
            help="With --judge: the most sets of n given modalities, for each n.",
            show_default="20",
        ),
    ] = None,
    split: measuring.SplitName = "test",
    rows: measuring.Rows = None,
    samples: Annotated[
        int,
        typer.Option(
            "-n",
            "--samples",
            min=0,
            max=common.MOST,
            help="Samples of z per row, beside the mean z; 0 leaves them out.",
        ),
    ] = 10,
    iterations: common.Iterations = None,
    temperature: Annotated[
        float, typer.Option(min=0, help="How much sampled z vary: 1 as learned, less below 1.")
    ] = 1.0,
    file: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="A file for the table: .md, .csv or .json.",
            callback=common.reachable,
        ),
    ] = None,
    data: measuring.Data = None,
    weights: common.Weights = "best",
    chunk: measuring.Chunk = None,
    seed: common.Seed = 0,
    device: common.Device = None,
) -> None:
    """Measure how often what was given is recognised in what is generated."""
    from mmgen.evaluation.coherence import agreement_tables, tables
    from mmgen.evaluation.measure import Request, measure_agreement, measure_coherence

    if subsets is not None and judge is None:
        raise ConfigError("--subsets belongs to --judge NAME")
    settings: common.Settings = context.obj
    request = Request(
        targets=targets or (),
        given=given or (),
        data=data,
        split=split,
        rows=rows,
        samples=samples,
        iterations=iterations,
        temperature=temperature,
        chunk=chunk,
        seed=seed,
        plugins=settings.plugins,
    )
    loaded = measuring.opened(context, run, weights, device, file, tables.FORMATS)
    about = f"{run}, {split}"
    with measuring.rows_done("coherence") as (say, done):
        if judge is None:
            found = measure_coherence(loaded, request, say=say, done=done)
            table, notes = tables.coherence_table(found, about), found.notes
            save = partial(tables.save_coherence, found)
        else:
            agreed = measure_agreement(
                loaded, judge, request, subsets=subsets or 20, say=say, done=done
            )
            table, notes = agreement_tables.agreement_table(agreed, about), agreed.notes
            save = partial(agreement_tables.save_agreement, agreed)
    stdout.print(table.rich())
    measuring.tell(notes)
    if file is not None:
        stdout.print(f"table in {save(file, about)}")
