"""What the pages of all experiments have: settings, statements, how the runs were trained."""

import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmgen import toml
from mmgen.brief import OneLine
from mmgen.tables import Table
from mmgen.training import run_folder
from mmgen_suzuki2018.folder import Reproduction
from mmgen_suzuki2018.study import Planned


@dataclass(frozen=True, repr=False)
class Claim(OneLine):
    """A statement, of the paper or of what should come out.

    Attributes:
        words: What it says.
        holds: Whether what was measured agrees.
        evidence: The numbers.
    """

    words: str
    holds: bool
    evidence: str


def statements(judged: Sequence[Claim]) -> str:
    """Returns a table of statements and whether they hold, as Markdown."""
    rows = [(c.words, "yes" if c.holds else "**no**", c.evidence) for c in judged]
    return Table(("statement", "holds", "measured"), "lll", rows).markdown()


def command(reproduction: Reproduction) -> str:
    """Returns the command that makes the folder, data and folder left open."""
    words = ["mmgen reproduce", reproduction.study.name, "--data DATA"]
    words += ["--profile", reproduction.profile, "--epochs", str(reproduction.epochs)]
    words += [f"--{extra}" for extra in reproduction.extras]
    words += [f"--{key} {value}" for key, value in reproduction.train.items()]
    words += [f"--only {name}" for name in reproduction.only]
    words += ["--portrait FILE" for _ in reproduction.portraits]
    words += [] if reproduction.photographs else ["--no-photographs"]
    return " ".join([*words, "--out OUT"])


def beyond(reproduction: Reproduction) -> str:
    """Says what the rows are that the paper does not have."""
    lines = []
    for planned in reproduction.planned:
        if planned.row and planned.row not in reproduction.study.paper:
            values = {**planned.model, **planned.train}
            if planned.temperature != 1:
                values["temperature"] = planned.temperature
            settings = ", ".join(f"{key} = {toml.value(value)}" for key, value in values.items())
            lines.append(f"- **{planned.row}** {planned.about}: `{settings}`.")
    return "\n" + "\n".join(lines) + "\n" if lines else ""


def trained(reproduction: Reproduction) -> str:
    """Returns a table of how each run was trained, as Markdown."""
    headings = ("run", "epochs", "minutes", "examples/s", "best epoch", "loss on validation")
    lines = [_line(reproduction.run(planned.name), planned) for planned in reproduction.runs]
    return Table(headings, "lrrrrr", lines).markdown()


def _line(run: Path, planned: Planned) -> tuple[str, ...]:
    metrics = run_folder.read_metrics(run)
    best = [m for m in metrics if m["best"]][-1]
    speed = sum(m["examples_per_second"] for m in metrics) / len(metrics)
    minutes = sum(m["seconds"] for m in metrics) / 60
    loss = (best["validation"] or best["train"])["loss"]
    return (
        f"`{planned.name}`",
        *(f"{len(metrics)}", f"{minutes:.0f}", f"{speed:,.0f}"),
        *(f"{best['epoch']}", f"{loss:.2f}"),
    )


def machine(reproduction: Reproduction) -> str:
    """Says on what the runs were trained."""
    run = reproduction.run(reproduction.runs[-1].name)
    environment = run_folder.environment(run)
    cores = f"{os.cpu_count()} cores, {platform.machine()}"
    torch_version = environment["versions"]["torch"].split("+")[0]
    return f"{environment['device']} ({cores}), PyTorch {torch_version}"
