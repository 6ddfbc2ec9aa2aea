"""``mmgen coherence``: how often what was given is recognised in what is generated."""

from pathlib import Path
from typing import Annotated

import typer

from mmgen.cli.common import (
    MOST,
    Device,
    Iterations,
    RunFolder,
    Seed,
    Settings,
    Weights,
    reachable,
)
from mmgen.cli.measuring import (
    Chunk,
    Data,
    Given,
    Rows,
    SplitName,
    Targets,
    opened,
    rows_done,
    tell,
)
from mmgen.console import stdout


def coherence(
    context: typer.Context,
    run: RunFolder,
    targets: Targets = None,
    given: Given = None,
    split: SplitName = "test",
    rows: Rows = None,
    samples: Annotated[
        int,
        typer.Option(
            "-n",
            "--samples",
            min=0,
            max=MOST,
            help="Samples of z per row, beside the mean z; 0 leaves them out.",
        ),
    ] = 10,
    iterations: Iterations = None,
    temperature: Annotated[
        float, typer.Option(min=0, help="How much sampled z vary: 1 as learned, less below 1.")
    ] = 1.0,
    file: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="A file for the table: .md, .csv or .json.", callback=reachable
        ),
    ] = None,
    data: Data = None,
    weights: Weights = "best",
    chunk: Chunk = None,
    seed: Seed = 0,
    device: Device = None,
) -> None:
    """Measure how often what was given is recognised in what is generated."""
    from mmgen.evaluation.coherence.tables import FORMATS, coherence_table, save_coherence
    from mmgen.evaluation.measure import Request, measure_coherence

    settings: Settings = context.obj
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
    loaded = opened(context, run, weights, device, file, FORMATS)
    with rows_done("coherence") as (say, done):
        found = measure_coherence(loaded, request, say=say, done=done)
    about = f"{run}, {split}"
    stdout.print(coherence_table(found, about).rich())
    tell(found.notes)
    if file is not None:
        stdout.print(f"table in {save_coherence(found, file, about)}")
