"""``mmgen data``: write a data set, or show what one holds."""

import inspect
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmgen.cli import data_card, data_table
from mmgen.cli.common import Force, Settings, all_reachable, group, reachable, storable
from mmgen.cli.words import Words
from mmgen.console import progress, stderr
from mmgen.distribution import SOURCES
from mmgen.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

    from mmgen.registry.loading import Registry
    from mmgen.registry.options import Option
    from mmgen.source import Content, Source

Out = Annotated[
    Path,
    typer.Option("--out", "-o", help="The folder to write the data set to.", callback=storable),
]


class Sources(Words):
    """The commands of ``mmgen data``; one for each kind of source."""

    group, plural, title = SOURCES, "sources", "Sources"

    def found(self, registry: "Registry", word: str) -> typer.Typer:
        """Returns an app with the command that writes the data set of a source."""
        made = group()
        made.command(word)(command(registry.source(word), registry))
        return made

    def told(self, registry: "Registry", word: str) -> str:
        """Returns the first paragraph of the class's docstring."""
        return _help(registry.sources[word]) if word in registry.sources else ""


app = group(help="Write a data set, or show what one holds.", no_args_is_help=True, cls=Sources)
app.command()(data_table.table)
app.command()(data_table.folder)


@app.command()
def show(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="The data set's folder.", callback=storable)],
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every file and compare it with its hash.")
    ] = False,
) -> None:
    """Show what a data set holds: modalities, counts, shares of each value, how it was made."""
    from mmgen.data.store import read_dataset

    dataset = read_dataset(folder)
    if verify:
        dataset.verify()
    data_card.show(dataset, context.obj)


def command(cls: "type[Source]", registry: "Registry") -> Callable[..., None]:
    """Returns the function of ``mmgen data KIND``, whose parameters are the source's options.

    Args:
        cls: The source.
        registry: Has the plugin that provides it.
    """
    from mmgen.registry.options import options

    fields = {option.name: _parameter(option) for option in options(cls)}
    shared = {"context": typer.Context, "out": Out, "force": Force}

    def write(context: typer.Context, out: Path, force: bool, **given: Any) -> None:
        from mmgen import build
        from mmgen.data.content import content
        from mmgen.data.store import ensure_absent

        ensure_absent(out, force)
        kept = {key: value for key, value in given.items() if value is not None}
        source = registry.make_source(cls.kind, kept)
        read = content(source, registry, lambda: build.registry(context.obj.plugins))
        _write(out, cls.kind, read, context.obj, force)

    kinds = {**shared, **{name: kind for name, (kind, _) in fields.items()}}
    defaults = {"force": False, **{name: default for name, (_, default) in fields.items()}}
    write.__annotations__ = kinds
    write.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [
            inspect.Parameter(
                name,
                inspect.Parameter.KEYWORD_ONLY,
                annotation=kind,
                default=defaults.get(name, inspect.Parameter.empty),
            )
            for name, kind in kinds.items()
        ]
    )
    write.__doc__ = _help(cls)
    return write


def _help(cls: "type[Source]") -> str:
    return " ".join((inspect.getdoc(cls) or cls.kind).partition("\n\n")[0].split())


def _parameter(option: "Option") -> tuple[Any, Any]:
    """Returns the annotation and the default of an option, as typer reads them."""
    more: dict[str, Any] = {"help": option.help}
    if option.type in (int, float):
        more |= {"min": option.least, "max": option.most}
    if option.type is Path:
        more["callback"] = all_reachable if option.several else reachable
    if option.words:
        more["metavar"] = "|".join(option.words)
    kind: Any = list[option.type] if option.several else option.type  # type: ignore[name-defined]
    if option.required:
        return Annotated[kind, typer.Argument(**more)], inspect.Parameter.empty
    default = list(option.default or ()) or None if option.several else option.default
    flag = f"--{option.name.replace('_', '-')}"
    names = [f"{flag}/--no-{flag[2:]}" if default is True else flag]
    return Annotated[kind | None, typer.Option(*names, **more)], default


def _write(out: Path, kind: str, read: "Content", settings: Settings, force: bool) -> None:
    """Writes what a source gives, and shows how far it is."""
    bar = progress("{task.completed:,}" + f" of {read.rows:,}" * (read.rows > 0))
    task = bar.add_task(f"writing {kind}", total=read.rows or None)
    with ExitStack() as shown:
        shown.enter_context(bar)

        def passed(
            chunks: "Iterable[Mapping[str, Tensor]]", last: bool
        ) -> "Iterator[Mapping[str, Tensor]]":
            for chunk in chunks:
                rows = max((len(value) for value in chunk.values() if value.ndim), default=0)
                if not bar.tasks[task].completed:
                    _check_room(out, read.rows / max(rows, 1), chunk.values())
                yield chunk
                bar.advance(task, rows)
            if last:
                shown.close()  # what follows is printed

        splits = {
            name: passed(chunks, last=number == len(read.splits))
            for number, (name, chunks) in enumerate(read.splits.items(), start=1)
        }
        written = data_card.write(
            out, kind, read.about, read.modalities, splits, settings, force=force, fit=True
        )
    if not isinstance(read.about, str):  # it tells what is known only now
        stderr.print(written.about)


def _check_room(out: Path, chunks: float, values: "Iterable[Tensor]") -> None:
    """Checks that as many chunks as the first one fit on the disk, if their number is known."""
    from mmgen.formatting import size

    folder = out.absolute().parent
    while not folder.exists():
        folder = folder.parent
    needed, free = chunks * sum(value.nbytes for value in values), shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{out}: the data set takes about {size(needed)}, where {size(free)} are free; "
            "write fewer rows, or to another disk"
        )
