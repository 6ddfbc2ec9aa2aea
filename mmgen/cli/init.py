"""``mmgen init``: the configuration that a data set is trained with, to be edited."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmgen import shell
from mmgen.cli.common import Force, Preset, Settings, reachable, storable
from mmgen.console import status, stdout
from mmgen.errors import WriteError

if TYPE_CHECKING:
    from mmgen.experiment import Experiment


def init(
    context: typer.Context,
    data: Annotated[
        Path, typer.Argument(metavar="DATA", help="The data set's folder.", callback=storable)
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="KEY=VALUE", help="Settings to change, such as model.kind=hierarchical."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The file to write.",
            show_default="printed, for > my.toml",
            callback=reachable,
        ),
    ] = None,
    preset: Preset = None,
    force: Force = False,
) -> None:
    """Write the configuration that a data set is trained with: every setting, with a comment."""
    settings: Settings = context.obj
    with status(f"reading {data} ..."):
        from mmgen.cli import own_data
        from mmgen.template import default_experiment

        if not own_data.is_dataset(data):
            own_data.refuse_raw(data, "init")
        if out is not None:
            _check_free(out, force)
        experiment = default_experiment(data, overrides or [], paper=preset == "paper")
        text = _written(experiment, data, out, settings)
    if out is None:
        stdout.print(text, end="")
        return
    from mmgen.files.atomic import write

    write(out, text)
    stdout.print(f"{out}: written; its first lines say how to train it")


def _check_free(out: Path, force: bool) -> None:
    if out.is_dir():
        raise WriteError(f"--out {out}: is a folder; name a file in it, such as {out / 'my.toml'}")
    if out.exists() and not (force and out.is_file()):
        more = "replace it with --force, or " if out.is_file() else ""
        raise WriteError(f"--out {out}: is there already; {more}choose another name")
    if not out.parent.is_dir():
        raise WriteError(f"--out {out}: there is no folder {out.parent}")


def _written(experiment: "Experiment", folder: Path, out: Path | None, settings: Settings) -> str:
    from mmgen import build, template
    from mmgen.cli.own_data import free

    registry = build.registry(settings.plugins)
    dataset = build.dataset(experiment, registry)
    modalities = build.modalities(experiment, registry, dataset.modalities)
    chosen = build.model_settings(experiment, registry)
    resolved = build.resolved(experiment, modalities, chosen)
    file, run = out or Path("my.toml"), free(Path("runs") / (folder.resolve().name or "run"))
    head = (
        "What this data set is trained with, every default written out. Edit it, then",
        f"  {shell.command('train', file, '--out', run, plugins=settings.plugins)}",
    )
    stored = build.as_stored(resolved, registry, dataset)
    return template.written(resolved, chosen, modalities, stored, head)
