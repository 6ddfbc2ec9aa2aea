"""``mmgen report``: one page that shows what a run can do, and what it lacks."""

from pathlib import Path
from typing import Annotated

import typer

from mmgen.cli.common import Device, RunFolder, Settings, reachable, storable
from mmgen.console import status, stdout


def report(
    context: typer.Context,
    run: RunFolder,
    data: Annotated[
        Path | None,
        typer.Option(help="The data set's folder, if it is elsewhere now.", callback=storable),
    ] = None,
    device: Device = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The HTML file to write.",
            show_default="RUN/report.html",
            callback=reachable,
        ),
    ] = None,
) -> None:
    """Write one HTML page: what was trained, what it generates, how it learned."""
    settings: Settings = context.obj
    with status(f"reading {run} and drawing ...") as say:
        from mmgen.gallery import write_report

        page = write_report(
            run,
            data=data,
            device="auto" if device is None else device,
            out=file,
            plugin_modules=settings.plugins,
            say=lambda words: say(f"{words} ..."),
        )
    stdout.print(f"{run}: report in {page}")
