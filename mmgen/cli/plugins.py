"""``mmgen plugins``: which there are, whether one keeps the contract, and a new one to start."""

import dataclasses
import json
import shlex
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmgen.cli.common import Json, Settings, group, reachable
from mmgen.console import stderr, stdout, styled
from mmgen.errors import listed

if TYPE_CHECKING:
    from mmgen.registry.discovery import Record

app = group(help="List plugins, check whether one works, or start a new one.")


@app.callback(invoke_without_command=True)
def show(context: typer.Context, as_json: Json = False) -> None:
    """List plugins: versions, status, what each provides, and what is wrong with a broken one."""
    from rich.table import Table

    from mmgen.registry.loading import load

    if context.invoked_subcommand is not None:
        return
    settings: Settings = context.obj
    records = load(settings.plugins).records
    if as_json:
        stdout.print_json(json.dumps([dataclasses.asdict(record) for record in records]))
        return
    headings = ("plugin", "distribution", "version", "status", "provides")
    table = Table(*headings, box=None, pad_edge=False)
    colours = {"ok": "green", "broken": "red", "disabled": "yellow"}
    for record in records:
        status = styled((record.status, colours[record.status]))
        table.add_row(record.name, record.distribution, record.version, status, _provided(record))
    stdout.print(table)
    for record in records:
        for line in filter(None, (record.cause, *record.warnings)):
            stdout.print(f"{record.name}: {line}")


def _provided(record: "Record") -> str:
    """Returns a line for each sort of thing: ``"modalities: image"``."""
    sorts = {
        "modalities": record.kinds,
        "models": record.models,
        "sources": record.sources,
        "commands": record.commands,
    }
    return "\n".join(f"{sort}: {listed(names)}" for sort, names in sorts.items() if names)


@app.command()
def check(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(help="A kind, such as image, a plugin, or the module of a one-file plugin."),
    ],
) -> None:
    """Check whether a kind of modality or model, or all of a plugin, keep their contracts."""
    from mmgen.testing import check_plugin

    settings: Settings = context.obj
    broken = set()
    for kind, results in check_plugin(name, settings.plugins).items():
        stdout.print(styled((kind, "bold")))
        for result in results:
            mark = ("ok    ", "green") if result.passed else ("failed", "red")
            stdout.print(styled("  ", mark, f" {result.name}"))
            if not result.passed:
                broken.add(kind.partition(" ")[0])
                for line in result.message.splitlines():
                    stdout.print(textwrap.indent(textwrap.fill(line, 90), " " * 9))
    if broken:
        files = " and ".join(f"mmgen/{noun}.py" for noun in sorted(broken))
        stderr.print(f"the contract is broken: see above, and {files} for the recipe")
        raise typer.Exit(2)


@app.command()
def new(
    context: typer.Context,
    name: Annotated[
        str, typer.Argument(help="The name of the package: mmgen-audio gets the kind audio.")
    ],
    model: Annotated[
        bool, typer.Option("--model", help="Write a model instead of a modality.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The folder to write it to.",
            show_default="./NAME",
            callback=reachable,
        ),
    ] = None,
) -> None:
    """Write a package with a new modality, or model, that works, to be made your own."""
    from mmgen.scaffold import Scaffold, write_package

    settings: Settings = context.obj
    package = Scaffold.named(name, "model" if model else "modality")
    out = out or Path(name)
    write_package(package, out, settings.plugins)
    kind, run = package.kind, f"runs/{package.kind}"
    stdout.print(
        f"{out}: a package with the {package.noun} {kind}, all of it in "
        f"{out / package.module}/__init__.py. Next:"
    )
    shown = ["--targets", "image" if model else kind]
    for command in (
        ["pip", "install", "--editable", str(out)],
        ["mmgen", "plugins", "check", kind],
        ["python", "-m", "pytest", str(out)],
        ["mmgen", "train", str(out / "example.toml"), "--out", run],
        ["mmgen", "generate", run, "--given", "label=three", *shown, "-o", "three.png"],
    ):
        stdout.print(f"  {shlex.join(command)}")
