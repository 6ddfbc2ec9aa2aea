"""python -m benchmarks [PART ...]: measures, prints tables, and writes them with a plot.

    python -m benchmarks                  # all parts, against multivae, which is installed once
    python -m benchmarks training         # one part
    python -m benchmarks --no-peer        # without multivae
    python -m benchmarks --out docs/results/benchmarks.md

Each way of doing the same is timed in turn, and medians are compared: ratios hold on a machine that
does other things too, milliseconds do not. Other scripts here check rather than time, and are run
by themselves: ``experts.py`` (losses equal multivae's), ``memory.py`` (peaks against a dry run).
"""

import argparse
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from benchmarks import peers, writing
from benchmarks.measuring import OURS, Options, Section, machine
from mmgen.training import session

PARTS = (
    "training",
    "faces",
    "replicated",
    "likelihood",
    "generation",
    "reading",
    "starting",
    "card",
)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--rounds", type=int, default=7, help="how often each way is timed")
    parser.add_argument("--threads", type=int, help="of PyTorch, if not as many as it takes")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--peer", type=Path, help="the Python of an environment with multivae")
    parser.add_argument("--no-peer", action="store_true", help="leave multivae out")
    parser.add_argument("--out", type=Path, help="a Markdown file; its plot lies beside it")
    arguments = parser.parse_args(words)
    if unknown := set(arguments.parts) - {*PARTS}:
        parser.error(f"there is no part {min(unknown)!r}; there are {', '.join(PARTS)}")
    if arguments.rounds < 1:
        parser.error("--rounds: at least 1")
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    torch.set_flush_denormal(True)  # these two as mmgen train does
    session.keep_memory()
    peer = None if arguments.no_peer else arguments.peer or peers.environment()
    options = Options(arguments.rounds, arguments.device, peer)
    console, sections = Console(), []
    where = machine(options.device)
    console.print(where)
    for part in arguments.parts or PARTS:
        started = time.perf_counter()
        section = import_module(f"benchmarks.{part}").measure(options)
        console.print(table(section))
        console.print(f"{time.perf_counter() - started:.0f} s", style="dim")
        sections.append(section)
    if arguments.out is not None:
        writing.write(arguments.out, where, sections, arguments.rounds)
        console.print(arguments.out)


def table(section: Section) -> Table:
    """Returns a section as a table of milliseconds, with ratios to mmgen's."""
    names = list(dict.fromkeys(way for line in section.lines for way in line.seconds))
    made = Table("", *names, "note", title=section.title)
    for line in section.lines:
        cells = []
        for way in names:
            if way not in line.seconds:
                cells.append("")
                continue
            shown = writing.milliseconds(line.seconds[way])
            cells.append(shown if way == OURS else f"{shown} ({line.ratio(way):.2f})")
        made.add_row(line.what, *cells, line.note)
    if not section.lines:
        made.add_row(section.about)
    return made


if __name__ == "__main__":
    main()
