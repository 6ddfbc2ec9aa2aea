"""What is printed: words from data are shown as they are, and never steer the terminal."""

import io

import pytest
from rich.table import Table
from rich.text import Text

from mmgen import console
from mmgen.terminal import Plain

WORDS = ["[/x]", "[red]no[/]", ":x:", "[link=file:///etc/passwd]a[/link]", "\\[bold]", "100 %"]


def printed(renderable, **options):
    file = io.StringIO()
    plain = Plain(file=file, width=60, **options)
    plain.print(renderable)
    return file.getvalue()


@pytest.mark.parametrize("word", WORDS)
def test_words_are_printed_as_they_are(word):
    table = Table(word, title=word)
    table.add_row(word)
    assert printed(word) == f"{word}\n"
    assert printed(console.styled((word, "bold"), f" {word}")) == f"{word} {word}\n"
    assert printed(table).count(word) == 3


@pytest.mark.parametrize("steering", ["\x1b[2J", "\r", "\x07", "\x9b31m", "\x7f", "\u202e"])
def test_control_characters_never_reach_the_terminal(steering):
    table = Table(steering)
    table.add_row(Text(f"a{steering}b"))
    for renderable in (f"a{steering}b", Text(f"a{steering}b"), table):
        text = printed(renderable, force_terminal=False)
        assert steering[0] not in text
        assert "a" in text


def test_a_style_is_the_only_source_of_escape_sequences():
    text = printed(console.styled(("good", "green"), "\x1b[31mbad"), force_terminal=True)
    assert text.count("\x1b") == 2  # green begins and ends
    assert "␛[31mbad" in text


def test_half_characters_of_file_names_can_be_encoded():
    printed("a\udcffb").encode("utf-8")


def test_columns_with_hidden_characters_stay_aligned():
    table = Table("a", "b", box=None)
    table.add_row("\x1b\x1b", "1")
    table.add_row("xx", "2")
    lines = printed(table).splitlines()
    assert lines[1].index("1") == lines[2].index("2")


def test_a_bar_shows_a_description_as_it_is():
    with console.progress("{task.fields[words]}") as bar:
        task = bar.add_task("[/x]", total=1, words="[/y]")
        row = [str(column(bar.tasks[task])) for column in bar.columns if hasattr(column, "markup")]
    assert row == ["[/x]", "[/y]"]
