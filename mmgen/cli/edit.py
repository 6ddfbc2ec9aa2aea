"""``mmgen edit``: a photograph, changed by what the model infers from it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmgen.cli.common import Device, Iterations, RunFolder, Weights, load_run, reachable
from mmgen.console import stdout, styled
from mmgen.errors import GenerationError
from mmgen.formatting import number

if TYPE_CHECKING:
    from mmgen.editing import Edit
    from mmgen.run import Run

FOLLOWS, SHOWN = 0.1, 5
"""Of the way from off to on, how far an attribute follows to be told; and how many are."""


def edit(
    context: typer.Context,
    run: RunFolder,
    photograph: Annotated[
        Path, typer.Argument(metavar="PHOTO", help="A picture file.", callback=reachable)
    ],
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="NAME=VALUE ...: an attribute on (1, yes), off (0, no) or, of Gaussian "
            "likelihood, a number: -1 is off, 1 on, 2 more; or a modality, such as label=B.",
        ),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="A PNG file: the photograph, its reconstruction, the edited one, and bars of "
            "what was inferred.",
            callback=reachable,
        ),
    ] = None,
    edited: Annotated[
        Path | None,
        typer.Option(
            help="A PNG file for the edited photograph alone, in its own size.", callback=reachable
        ),
    ] = None,
    strip: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Change one attribute step by step."),
    ] = None,
    first: Annotated[
        float | None,
        typer.Option(
            "--from", min=-100, max=100, help="The first value of a strip.", show_default="off"
        ),
    ] = None,
    last: Annotated[
        float | None,
        typer.Option(
            "--to", min=-100, max=100, help="The last value of a strip.", show_default="on"
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=2, max=50, help="How many values a strip shows.")] = 7,
    crop: Annotated[
        str | None,
        typer.Option(
            metavar="none|center|face",
            help="Which part of the photograph the model sees.",
            show_default="as in training",
        ),
    ] = None,
    picture: Annotated[
        str | None, typer.Option(help="The photograph's modality, if several are pictures.")
    ] = None,
    follow: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="How much other attributes follow those that are set, as they go together in "
            "what the model generates: 0 holds them as they were inferred.",
        ),
    ] = 1.0,
    iterations: Iterations = None,
    weights: Weights = "best",
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Fixes what is random, if anything is.")
    ] = 0,
    device: Device = None,
) -> None:
    """Change what is seen in a photograph: infer its attributes, and set some."""
    from mmgen.editing import edit as changed
    from mmgen.files.atomic import check_writable

    wanted = dict(_pair(word) for word in changes or [])
    if not wanted and strip is None:
        raise GenerationError("nothing is changed: --set NAME=VALUE, or --strip NAME")
    if strip is None and (first, last) != (None, None):
        raise GenerationError("--from and --to belong to --strip NAME")
    if strip is not None and edited is not None:
        raise GenerationError("--edited is one photograph, and a strip has several")
    for each in filter(None, (file, edited)):  # before the work
        if each.exists() and photograph.exists() and each.samefile(photograph):
            raise GenerationError(f"{each} is the photograph itself: name another file")
        check_writable(each)
    loaded = load_run(context, run, weights, device)
    values = [] if strip is None else _values(loaded, picture, strip, first, last, steps)
    done = changed(
        loaded,
        photograph,
        [{**wanted, strip: value} for value in values] if strip is not None else [wanted],
        crop=crop,
        picture=picture,
        follow=follow,
        iterations=iterations,
        seed=seed,
    )
    _tell(loaded, done, photograph)
    words = ", ".join(f"{name}={value}" for name, value in wanted.items())
    titles = [f"{strip} = {number(value, 3)}" for value in values] or ["edited"]
    if file is not None:
        from mmgen.gallery.edit import draw_edit

        title = f"{photograph.name}: " + ", ".join(filter(None, [words, strip]))
        draw_edit(done, loaded.modalities, file, title, titles)
        stdout.print(f"{file}")
    if edited is not None:
        from mmgen.gallery.edit import save_photograph

        stdout.print(f"{save_photograph(done.edited(), edited)}")
    if file is None and edited is None:
        stdout.print("name a file for the pictures with --out")


def _pair(word: str) -> tuple[str, str]:
    name, sign, value = word.partition("=")
    if not (sign and name):
        raise GenerationError(f"--set {word}: write NAME=VALUE, such as Smiling=1")
    return name, value


def _values(
    run: "Run", picture: str | None, name: str, first: float | None, last: float | None, steps: int
) -> list[float]:
    """Returns the values of a strip, from off to on if it is not said."""
    from mmgen.editing import changeable
    from mmgen.errors import listed, nearest

    known = changeable(run, picture)
    if name not in known:
        raise GenerationError(
            f"--strip {name}: there is no attribute of this name{nearest(name, known)}; there are "
            f"{listed(known)}"
        )
    off, on = known[name]
    start, end = off if first is None else first, on if last is None else last
    return [start + (end - start) * step / (steps - 1) for step in range(steps)]


def _tell(run: "Run", done: "Edit", photograph: Path) -> None:
    """Prints the part that was seen, what was inferred from it, and what was changed."""
    left, top, right, bottom = done.part
    _, height, width = done.photograph.shape
    seen = f"{right - left} × {bottom - top} pixels at {left}, {top} of {width} × {height}"
    stdout.print(styled((photograph.name, "bold"), f": {seen}"))
    for name, x in done.inferred.items():
        modality = run.modalities[name]
        stdout.print(styled((name, "bold"), f": {modality.describe(x.unsqueeze(0))[0]}"))
        ends, rows = modality.switches(), done.changed[name]
        followers: list[tuple[float, str]] = []
        for at, (own, (off, on)) in enumerate(ends.items()):
            before, after = float(x.flatten()[at]), rows.flatten(1)[:, at].tolist()
            told = " … ".join(number(v, 3) for v in dict.fromkeys([after[0], after[-1]]))
            words = f"{own}: {number(before, 3)} → {told}"
            if at in done.asked[name]:
                stdout.print(f"  {words}")
            else:
                share = max(abs(value - before) for value in after) / abs(on - off)
                followers += [(share, words)] if share > FOLLOWS else []
        for _, words in sorted(followers, reverse=True)[:SHOWN]:
            stdout.print(f"  follows: {words}")
        if len(followers) > SHOWN:
            stdout.print(f"  and {len(followers) - SHOWN} more")
        if not ends and not (rows == x).all():
            stdout.print(f"  → {modality.describe(rows[:1])[0]}")
