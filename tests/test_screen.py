"""What people read while they wait, and the help: in plain words, and within 80 columns."""

import io
import re

import pytest
import torch
import typer
from rich.cells import cell_len
from typer.core import TyperGroup

from mmgen import console
from mmgen.cli.app import app
from mmgen.cli.epochs import legend, line
from mmgen.objective import prior_kl, reconstruction, subset_kl
from mmgen.terminal import Plain, printable
from mmgen.training.loop import Epoch


def epoch(terms, number=7, **settings):
    values = {"loss": -723.25, **terms}
    given = {"train": values, "validation": values, "beta": 1.0, "best": True}
    return Epoch(epoch=number, seconds=1.0, **given | {"examples_per_second": 12345.6} | settings)


def known(*names):
    """Returns the terms of these names, as models of the paper have them."""
    value, terms = torch.zeros(2), {}
    for name in names:
        kind, _, what = name.partition("/")
        if kind == "reconstruction":
            terms[name] = reconstruction(what, value)
        elif kind == "subset":
            terms[name] = subset_kl(tuple(what.split("+")), value, "", 1.0)
        elif kind == "kl":
            terms[name] = prior_kl(value, "", what)
    return terms


LONG = {f"reconstruction/{'a-very_long-name' * 20}{n}": -10.0 * n for n in range(5)}
SUBSETS = {f"subset/{n}+{n + 1}": 1.5 for n in range(30)}


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
        text = line(epoch(terms, number, beta=beta, **more), epochs, known(*terms)).plain
        assert cell_len(printable(text)) <= 80
        assert re.match(rf"epoch +{number}/{epochs}  loss -723.25", text)
        assert text.endswith("  12,346/s best")
        assert ("β 0.05" in text) == (beta < 1)


def test_an_epoch_shows_what_is_most_of_its_loss():
    def told(values, terms=None, **settings):
        return line(epoch(values, **settings), 40, known(*values) if terms is None else terms).plain

    terms = {"reconstruction/label": -0.06, "reconstruction/image": -85.5, "kl/prior": 14.24,
             "subset/image": 20.0, "subset/label": 1.22}  # fmt: skip
    text = told(terms | {"loss": 7.1}, examples_per_second=440.0)
    assert "kl 14.24  image -85.50  label -0.06 …" in text
    assert "kl 3.00" in told({"kl/z1": 1.0, "kl/z2": 2.0})
    assert "subsets 3.00" in told({"kl/prior": 1.0, "subset/a": 1.0, "subset/b": 2.0})
    # What a term is, it says itself; one that nobody knows has its name.
    odd = {"x": prior_kl(torch.zeros(2), ""), "y": reconstruction("photo", torch.zeros(2))}
    assert "kl 1.00  photo -2.00  kl/z 0.50" in told(
        {"x": 1.0, "y": -2.0, "kl/z": 0.5, "loss": 7.1}, odd
    )
    assert len(legend(True).plain) <= 80


def test_a_status_is_shown_as_it_is_and_vanishes(monkeypatch):
    file = io.StringIO()
    monkeypatch.setattr(console, "stderr", Plain(file=file, force_terminal=True))
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
    monkeypatch.setattr(console, "stderr", Plain(file=file))
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
        if parameter.name == "help" or getattr(parameter, "hidden", False):
            continue
        words = parameter.help or ""
        assert re.fullmatch(r"(?s)[A-Z].{8,}[.?]", words), f"{name} {parameter.name}: {words!r}"
        # Fragments, and what the display would take for markup.
        assert not re.match("Of |So many|[a-z] a row", words), f"{name} {parameter.name}: {words!r}"
        assert "[" not in words
        assert "T|S" not in words
