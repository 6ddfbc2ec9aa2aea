"""One table for the terminal, Markdown, CSV and LaTeX.

Cells are words, never markup: in the terminal :mod:`mmgen.console` shows them as they are, and the
files escape what would end a cell.
"""

import csv
import io
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from mmgen.brief import OneLine
from mmgen.errors import ConfigError, listed
from mmgen.files.atomic import check_writable, deliver

if TYPE_CHECKING:
    from rich.table import Table as RichTable

_MARKS = {"bold": "**", "dim": "*"}


def piped(cell: str) -> str:
    """Escapes the bar, which would end a cell of a Markdown table."""
    return cell.replace("|", "\\|")


def as_latex(cell: str) -> str:
    """Escapes what LaTeX would take for a command, and sets ``log p(`` as mathematics."""
    special = {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "|": r"$\mid$",
        "±": r"$\pm$",
        "–": "--",
    }
    escaped = "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in cell)
    return escaped.replace("log p(", r"$\log p$(")


@dataclass(frozen=True, repr=False)
class Table(OneLine):
    """A table in words.

    Attributes:
        headings: Of the columns.
        align: One letter per column: ``r`` for numbers, which stand right; ``l`` for words, and
            ``w`` for words that wrap in a narrow terminal, where columns of ``w`` yield first.
        rows: As many cells each; in the terminal, one that is shorter has empty cells at its end.
        title: What the numbers are.
        caption: Units and rows.
        sections: The numbers of the rows above which the terminal has a gap.
        styles: Rows that stand out, by number: their first cell in Markdown.
    """

    headings: Sequence[str]
    align: str
    rows: Sequence[Sequence[str]]
    title: str = ""
    caption: str = ""
    sections: Collection[int] = ()
    styles: Mapping[int, Literal["bold", "dim"]] = field(default_factory=dict)

    def rich(self) -> "RichTable":
        """Returns the table for :data:`mmgen.console.stdout`."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table as RichTable

        table = RichTable(
            title=self.title or None,
            caption=self.caption or None,
            box=SIMPLE_HEAD,
            padding=(0, 1, 0, 0),
            pad_edge=False,
        )
        for heading, side in zip(self.headings, self.align, strict=True):
            justify: Literal["left", "right"] = "right" if side == "r" else "left"
            table.add_column(heading, justify=justify, no_wrap=side != "w")
        for n, row in enumerate(self.rows):
            if n in self.sections:
                table.add_section()
            table.add_row(*row, style=self.styles.get(n))
        return table

    def markdown(self, escape: Callable[[str], str] = piped) -> str:
        """Returns GitHub's table, without title and caption.

        Args:
            escape: Of every cell.
        """
        lines = [[escape(cell) for cell in self.headings]]
        lines += [["---:" if side == "r" else "---" for side in self.align]]
        for n, row in enumerate(self.rows):
            mark = _MARKS.get(self.styles.get(n, ""), "")
            first, *others = map(escape, row)
            lines.append([f"{mark}{first}{mark}", *others])
        return "".join(f"| {' | '.join(line)} |\n" for line in lines)

    def latex(self, about: str, number: Callable[[str], str] = as_latex) -> str:
        """Returns a ``tabular`` with the rules of the package booktabs.

        Args:
            about: A comment above it.
            number: Writes the cells of ``r`` columns.
        """
        head, *body = (
            " & ".join(
                number(cell) if side == "r" else as_latex(cell)
                for cell, side in zip(row, self.align, strict=True)
            )
            + r" \\"
            for row in (self.headings, *self.rows)
        )
        comment, columns = f"% {about}".replace("\n", " "), self.align.replace("w", "l")
        top = [comment, rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule"]
        return "\n".join([*top, *body, r"\bottomrule", r"\end{tabular}"]) + "\n"


def comma_separated(columns: Sequence[str], records: Iterable[Mapping[str, object]]) -> str:
    """Returns CSV for programs: one line per record, with all digits; ``None`` is empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return out.getvalue()


def checked_format(path: Path, formats: Iterable[str]) -> str:
    """Returns the suffix of a file of tables, which can be written.

    Raises:
        ConfigError: If it is none of ``formats``.
        WriteError: If it cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in formats:
        raise ConfigError(f"--out {path}: tables are written as {listed(formats)}")
    check_writable(path)
    return suffix


def save(path: Path, formats: Mapping[str, Callable[[], str]]) -> Path:
    """Writes a file in the format of its suffix.

    Raises:
        ConfigError: If it is none of ``formats``.
        WriteError: If the file cannot be written.
    """
    deliver(path, formats[checked_format(path, formats)]())
    return path
