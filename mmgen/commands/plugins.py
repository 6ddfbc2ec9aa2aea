"""``mmgen plugins``: which there are, and whether one keeps the contract."""

import dataclasses
import json
from typing import Annotated

import typer
from rich.table import Table

from mmgen.commands.common import Json, Settings, stderr, stdout

app = typer.Typer(help="List plugins, or check one against the contract.")


@app.callback(invoke_without_command=True)
def show(context: typer.Context, as_json: Json = False) -> None:
    """List plugins, their versions, status, kinds and causes."""
    from mmgen.plugins import load

    if context.invoked_subcommand is not None:
        return
    settings: Settings = context.obj
    records = load(settings.plugins).records
    if as_json:
        stdout.print_json(json.dumps([dataclasses.asdict(record) for record in records]))
        return
    table = Table("plugin", "distribution", "version", "status", "kinds", box=None, pad_edge=False)
    colours = {"ok": "green", "broken": "red", "disabled": "yellow"}
    for record in records:
        status = f"[{colours[record.status]}]{record.status}[/]"
        kinds = ", ".join(record.kinds)
        table.add_row(record.name, record.distribution, record.version, status, kinds)
    stdout.print(table)
    for record in records:
        if record.cause:
            stdout.print(f"{record.name}: {record.cause}", markup=False)


@app.command()
def check(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A kind, or the module of a one-file plugin.")],
) -> None:
    """Run the conformance checks on a kind, or on all kinds of a module."""
    from mmgen.testing import check_plugin

    settings: Settings = context.obj
    failed = False
    for kind, results in check_plugin(name, settings.plugins).items():
        stdout.print(f"[bold]{kind}[/]")
        for result in results:
            mark = "[green]ok    [/]" if result.passed else "[red]failed[/]"
            stdout.print(f"  {mark} {result.name}")
            if not result.passed:
                failed = True
                stdout.print(f"         {result.message}", markup=False)
    if failed:
        stderr.print("the contract is broken: see above, and mmgen/modality.py for the recipe")
        raise typer.Exit(2)
