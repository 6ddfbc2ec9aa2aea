"""One table in every format: what is in a cell stays in it."""

import csv
import io

import pytest

from mmgen.errors import ConfigError
from mmgen.tables import Table, comma_separated, save
from mmgen.terminal import Plain

HOSTILE = ["a|b", "50 % & more", "[red]x[/red]", "a_b", "log p(a | b) ± 1", "–"]
TABLE = Table(
    ("what", "nats"),
    "lr",
    [(word, f"{n}.0") for n, word in enumerate(HOSTILE)],
    "A title",
    "and a caption",
    sections={2},
    styles={0: "bold", 1: "dim"},
)


def printed(table, width=60):
    file = io.StringIO()
    Plain(file=file, width=width).print(table.rich())
    return file.getvalue().splitlines()


def test_the_terminal_shows_words_as_they_are_and_a_gap_between_sections():
    lines = printed(TABLE)
    assert "A title" in lines[0]
    assert "and a caption" in lines[-1]
    body = lines[4 : 4 + len(HOSTILE) + 1]
    assert body[2].strip() == ""
    assert [line.rsplit(maxsplit=1)[0].strip() for line in body if line.strip()] == HOSTILE


def test_words_that_may_wrap_yield_before_numbers_and_other_words():
    row = ("long words that wrap", "words that stay", "-123.45")
    lines = printed(Table(("a", "b", "c"), "wlr", [row]), width=34)
    assert any("words that stay" in line and "-123.45" in line for line in lines)
    assert not any("long words that wrap" in line for line in lines)


def test_a_bar_does_not_end_a_cell_of_markdown():
    head, rule, *body = TABLE.markdown().splitlines()
    assert (head, rule) == ("| what | nats |", "| --- | ---: |")
    assert body[:3] == [
        "| **a\\|b** | 0.0 |",
        "| *50 % & more* | 1.0 |",
        "| [red]x[/red] | 2.0 |",
    ]
    assert TABLE.markdown(str.upper).splitlines()[2] == "| **A|B** | 0.0 |"


def test_latex_commands_in_cells_are_words():
    text = TABLE.latex("about\nit")
    assert text.startswith("% about it\n\\begin{tabular}{lr}\n\\toprule\nwhat & nats \\\\\n")
    assert "50 \\% \\& more & 1.0 \\\\" in text
    assert "a\\_b & 3.0" in text
    assert r"$\log p$(a $\mid$ b) $\pm$ 1 & 4.0" in text
    wide = Table(("a", "b"), "wr", [("x", "1")]).latex("", lambda cell: f"${cell}$")
    assert r"{lr}" in wide
    assert "a & $b$" in wide


def test_csv_is_read_back_as_it_was():
    records = [{"a": 'x,"y"', "b": 0.1 + 0.2}, {"a": "", "b": None}]
    lines = list(csv.DictReader(io.StringIO(comma_separated(["a", "b"], records))))
    assert lines == [{"a": 'x,"y"', "b": repr(0.1 + 0.2)}, {"a": "", "b": ""}]


def test_a_file_is_written_by_its_suffix(tmp_path):
    formats = {".md": lambda: "markdown", ".csv": lambda: "csv"}
    assert save(tmp_path / "new" / "a.CSV", formats).read_text() == "csv"
    with pytest.raises(ConfigError, match=r"a\.xls: tables are written as \.md, \.csv"):
        save(tmp_path / "a.xls", formats)
