"""``mmgen growth``: what one more modality costs each model."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Annotated

import typer

from mmgen.cli.common import Device, Json, Settings, reachable
from mmgen.console import progress, status, stdout
from mmgen.errors import ConfigError


def growth(
    context: typer.Context,
    modalities: Annotated[
        str, typer.Option(help="How many modalities, K: a number or a range.")
    ] = "2-10",
    layers: Annotated[
        str,
        typer.Option(help="How many layers models with layers have, L: a number or a range."),
    ] = "1-3",
    kind: Annotated[
        str, typer.Option(help="What all K modalities are: a kind that mmgen plugins lists.")
    ] = "image",
    model: Annotated[
        list[str] | None,
        typer.Option(help="A model to count, as mmgen plugins lists them; all if left out."),
    ] = None,
    timed: Annotated[
        bool,
        typer.Option(
            "--time", help="Measure a training step of each as well, by a few steps on this device."
        ),
    ] = False,
    device: Device = None,
    file: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="A PNG file for the curves.", callback=reachable),
    ] = None,
    as_json: Json = False,
) -> None:
    """Count nets, parameters and memory of each model, by the number of modalities."""
    settings: Settings = context.obj
    k, levels = _range("--modalities", modalities, 2, 64), _range("--layers", layers, 1, 32)
    if device is not None and not timed:
        raise ConfigError(f"--device {device}: nothing is computed there without --time")
    with status("loading PyTorch ..."):
        from mmgen import build
        from mmgen.evaluation import growth as counting
        from mmgen.files.atomic import check_writable
        from mmgen.registry.loading import load

        if file is not None:  # before the work
            check_writable(file)
        timed_on = build.device(device or "auto") if timed else None
        registry = load(settings.plugins)
        modality = registry.get(kind).from_examples()
        models = {kind: registry.model(kind) for kind in model or registry.models}
    built = counting.candidates(models, k, levels)
    with progress("{task.completed:,}/{task.total:,} nets") as bar:
        task = bar.add_task("building", total=sum(c.expected for c in built))
        rows = counting.growth(
            models,
            modality,
            k,
            levels,
            timed_on=timed_on,
            done=lambda nets: bar.advance(task, nets),
        )
    if as_json:
        stdout.print_json(json.dumps([dataclasses.asdict(row) for row in rows]))
    else:
        stdout.print(counting.growth_table(rows).rich())
    if file is not None:
        counting.plot_growth(rows, file)
        stdout.print(f"curves in {file}")


def _range(option: str, text: str, least: int, most: int) -> range:
    match = re.fullmatch("([0-9]{1,3})(?:-([0-9]{1,3}))?", text.strip())
    if match:
        first, last = int(match[1]), int(match[2] or match[1])
        if least <= first <= last <= most:
            return range(first, last + 1)
    raise ConfigError(
        f"{option} {text}: write a number or a range from {least} to {most}, such as {least}-8"
    )
