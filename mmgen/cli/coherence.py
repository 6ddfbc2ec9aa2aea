"""``mmgen coherence``: how often what was given is recognised in what is generated."""

from pathlib import Path
from typing import Annotated

import typer

from mmgen.cli import common, measuring
from mmgen.console import stdout


def coherence(
    context: typer.Context,
    run: common.RunFolder,
    targets: measuring.Targets = None,
    given: measuring.Given = None,
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
    from mmgen.evaluation.coherence.tables import FORMATS, coherence_table, save_coherence
    from mmgen.evaluation.measure import Request, measure_coherence

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
    loaded = measuring.opened(context, run, weights, device, file, FORMATS)
    with measuring.rows_done("coherence") as (say, done):
        found = measure_coherence(loaded, request, say=say, done=done)
    about = f"{run}, {split}"
    stdout.print(coherence_table(found, about).rich())
    measuring.tell(found.notes)
    if file is not None:
        stdout.print(f"table in {save_coherence(found, file, about)}")
