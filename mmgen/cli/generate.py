"""``mmgen generate``: any modalities given, any others generated."""

from collections import Counter
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from mmgen.cli.common import Device, Iterations, RunFolder, Weights, load_run, reachable
from mmgen.console import stderr, stdout, styled
from mmgen.errors import GenerationError

if TYPE_CHECKING:
    from torch.distributions import Distribution

    from mmgen.modality import Modality

TOLD = 10_000
"""Samples that are put into words at a time."""


def generate(
    context: typer.Context,
    run: RunFolder,
    given: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=VALUE ...: what is known, such as label=7 attributes=thick image=digit.png."
        ),
    ] = None,
    targets: Annotated[
        list[str] | None,
        typer.Option(help="NAME ...: what to generate. If left out, all that is not given."),
    ] = None,
    samples: Annotated[
        int,
        typer.Option("-n", "--samples", min=1, max=2**31 - 1, help="How many samples to generate."),
    ] = 16,
    file: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="A PNG file for what is generated, if that is pictures.",
            callback=reachable,
        ),
    ] = None,
    temperature: Annotated[
        float,
        typer.Option(
            min=0,
            help="How much samples differ: 1 as learned, less below 1; at 0 all have the mean z.",
        ),
    ] = 1.0,
    iterations: Iterations = None,
    start: Annotated[
        str,
        typer.Option(
            help="Iterative sampling: what missing values are at first, zero or prior (sampled)."
        ),
    ] = "zero",
    weights: Weights = "best",
    seed: Annotated[
        int | None,
        typer.Option(min=0, max=2**63 - 1, help="Fixes the samples: same seed, same samples."),
    ] = None,
    device: Device = None,
) -> None:
    """Generate modalities from others, or from nothing at all."""
    from mmgen.evaluation.familiar import unfamiliar
    from mmgen.files.atomic import check_writable
    from mmgen.gallery import check_grid, renderable
    from mmgen.seeding import random_state

    values = dict(_pair(word) for word in given or [])
    if start not in ("zero", "prior"):
        raise GenerationError(f"--start {start}: it is zero or prior")
    first: Literal["zero", "prior"] = "zero" if start == "zero" else "prior"
    if file is not None:  # before the work
        check_writable(file)
    loaded = load_run(context, run, weights, device)
    wanted = loaded.targets(values, targets or None)
    pictures = [n for n in wanted if renderable(loaded.modalities[n])]
    if file is not None and not pictures:
        raise GenerationError(f"--out {file}: none of {', '.join(wanted)} is a picture")
    if file is not None and len(pictures) > 1:
        several = ", ".join(pictures)
        raise GenerationError(f"--out {file}: {several} are pictures; name one with --targets")
    if file is not None:
        check_grid(loaded.modalities[pictures[0]], samples)
    # Of all: z, and the samples that are told.
    with nullcontext() if seed is None else random_state(loaded.device, seed):
        generated = loaded.generate(
            values, wanted, samples, temperature=temperature, iterations=iterations, start=first
        )
        for name, p in generated.items():
            _show(name, loaded.modalities[name], p, file)
    for note in unfamiliar(loaded, values):
        stderr.print(f"note: {note}")


def _pair(word: str) -> tuple[str, str]:
    name, sign, value = word.partition("=")
    if not sign:
        raise GenerationError(f"--given {word}: write NAME=VALUE, such as label=7")
    return name, value


def _show(name: str, modality: "Modality", p: "Distribution", file: Path | None) -> None:
    means = p.mean.cpu()
    if modality.render(means[:1]) is None:
        stdout.print(
            styled((name, "bold"), f": {modality.describe(means.mean(0, keepdim=True))[0]}")
        )
        words: Counter[str] = Counter()
        for part in p.sample().cpu().split(TOLD):
            words.update(modality.describe(part))
        common = words.most_common(5)
        stdout.print("  sampled: " + "; ".join(f"{word} ×{count}" for word, count in common))
        return
    count = f"{len(means)} pictures"
    if file is None:
        stdout.print(styled((name, "bold"), f": {count}; name a file for them with --out"))
        return
    from mmgen.gallery import save_grid

    picture = modality.render(means)
    assert picture is not None
    stdout.print(styled((name, "bold"), f": {count} in {save_grid(picture, file)}"))
