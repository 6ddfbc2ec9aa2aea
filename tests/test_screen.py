"""What people read while they wait, and the help: in plain words, and within 80 columns."""

import io
import re

import pytest
import typer
from rich.cells import cell_len
from typer.core import TyperGroup

from mmgen import console
from mmgen.cli.app import app
from mmgen.cli.epochs import legend, line
from mmgen.training.loop import Epoch


def epoch(terms, number=7, **settings):
    values = {"loss": -723.25, **terms}
    given = {"train": values, "validation": values, "beta": 1.0, "best": True}
    return Epoch(epoch=number, seconds=1.0, **given | {"examples_per_second": 12345.6} | settings)


LONG = {f"reconstruction/{'a-very_long-name' * 20}{n}": -10.0 * n for n in range(5)}
SUBSETS = {f"kl/{n}+{n + 1}": 1.5 for n in range(30)}


@pytest.mark.parametrize(
    "terms",
    [
        {},
        {"kl/prior": 14.24},
        {"reconstruction/image": 755.75, "kl/prior": 14.24},
        LONG | {"kl/prior": 14.24} | SUBSETS,
        {f"reconstruction/m{n}": 1e30 for n in range(9)} | {"kl/prior": float("nan")},
        {"[red]": 1.0, "\x1b[31m": 2.0, "kl/z1": 1.0, "kl/z2": 2.0},
        {f"reconstruction/{'字' * 40}": 1.0},
    ],
    ids=["none", "one", "two", "K=5", "huge", "hostile", "wide"],
)
@pytest.mark.parametrize("beta", [0.05, 1.0])
@pytest.mark.parametrize("validated", [True, False])
def test_an_epoch_fits_80_columns(terms, beta, validated):
    more = {} if validated else {"validation": {}}
    for number, epochs in ((7, 40), (999, 100_000)):
        text = line(epoch(terms, number, beta=beta, **more), epochs).plain
        assert cell_len(console.printable(text)) <= 80
        assert re.match(rf"epoch +{number}/{epochs}  loss -723.25", text)
        assert text.endswith("  12,346/s best")
        assert ("β 0.05" in text) == (beta < 1)


def test_an_epoch_shows_what_is_most_of_its_loss():
    terms = {"reconstruction/label": -0.06, "reconstruction/image": -85.5, "kl/prior": 14.24,
             "kl/image": 20.0, "kl/label": 1.22}  # fmt: skip
    text = line(epoch(terms | {"loss": 7.1}, examples_per_second=440.0), 40).plain
    assert "kl 14.24  image -85.50  label -0.06 …" in text
    assert "kl 3.00" in line(epoch({"kl/z1": 1.0, "kl/z2": 2.0}), 40).plain
    assert "subsets 3.00" in line(epoch({"kl/prior": 1.0, "kl/a": 1.0, "kl/b": 2.0}), 40).plain
    assert len(legend(True).plain) <= 80


def test_a_status_is_shown_as_it_is_and_vanishes(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(console, "stderr", console._Plain(file=file, force_terminal=True))
    with console.status("reading [red]x[/red] :smile: ..."):
        pass
    with console.status("") as say:
        say("then [/y]\x1b[31m ...")
    text = file.getvalue()
    assert "reading [red]x[/red] :smile: ..." in text
    assert "then [/y]␛[31m ..." in text
    assert text.endswith("\x1b[1A\x1b[2K")  # the line is erased


def test_a_status_is_quiet_where_no_one_looks(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(console, "stderr", console._Plain(file=file))
    with console.status("reading ...") as say:
        say("reading on ...")
    assert file.getvalue() == ""


def commands(command=None, path=("mmgen",)):
    command = command or typer.main.get_command(app)
    yield " ".join(path), command
    if isinstance(command, TyperGroup):
        root = typer.Context(command)
        for name in command.list_commands(root):
            child = command.resolve_command(root, [name])[1]
            yield from commands(child, (*path, name))


@pytest.mark.parametrize(("name", "command"), [*commands()], ids=lambda value: str(value)[:30])
def test_every_option_is_told_in_a_sentence(name, command):
    assert command.help, name
    for parameter in command.params:
        if parameter.name == "help":
            continue
        words = parameter.help or ""
        assert re.fullmatch(r"(?s)[A-Z].{8,}[.?]", words), f"{name} {parameter.name}: {words!r}"
        # Fragments, and what the display would take for markup.
        assert not re.match("Of |So many|[a-z] a row", words), f"{name} {parameter.name}: {words!r}"
        assert "[" not in words
        assert "T|S" not in words
