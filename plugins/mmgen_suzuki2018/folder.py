"""The folder of a reproduction: what is in it, what is still to do, and how far it is.

reproduction.json       what was asked for: profile and epochs
configs/NAME.toml       one experiment a run, for ``mmgen train``
runs/NAME/              run folders, with what was measured of them
logs/                   what the processes said
table-N.*, figure-*     what the paper shows, each with its data
README.md               all of it on one page
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from mmgen.brief import OneLine
from mmgen.errors import RunError
from mmgen.files.atomic import deliver
from mmgen.files.holding import LOCK
from mmgen.files.locks import WRITER
from mmgen.files.reading import exists
from mmgen.training import run_folder
from mmgen_suzuki2018.jobs import Job
from mmgen_suzuki2018.measured import manifest, same_text
from mmgen_suzuki2018.study import SAMPLES, Planned, Profile, Study

MANIFEST = "reproduction.json"
LIKELIHOODS, COHERENCE = "likelihoods.json", "coherence.json"


@dataclass(frozen=True, repr=False)
class Reproduction(OneLine):
    """An experiment of the paper in a folder.

    Attributes:
        study: The experiment.
        out: The folder.
        data: The data set.
        profile: Which of the study's profiles.
        epochs: Of every model of the table.
        extras: Which of the study's extra runs there are.
        device: ``auto``, or a torch device.
        plugins: One-file plugins, as ``mmgen -p``.
        train: What ``[train]`` of all runs has beside, whatever the profile.
        only: The runs that are made; all if empty.
        portraits: Photographs that a figure changes, instead of test pictures.
        photographs: Whether figures show pictures of the data set.
    """

    study: Study
    out: Path
    data: Path
    profile: str
    epochs: int
    extras: tuple[str, ...] = ()
    device: str = "auto"
    plugins: tuple[str, ...] = ()
    train: Mapping[str, Any] = field(default_factory=dict)
    only: tuple[str, ...] = ()
    portraits: tuple[Path, ...] = ()
    photographs: bool = True

    @property
    def effort(self) -> Profile:
        """How much is measured."""
        return self.study.profiles[self.profile]

    @property
    def planned(self) -> tuple[Planned, ...]:
        """What is trained or measured, what takes longest first."""
        extras = (self.study.extras[name] for name in self.extras)
        everything = (*chain.from_iterable(extras), *self.study.runs)
        if not self.only:
            return everything
        return tuple(p for p in everything if (p.weights or p.name) in self.only)

    @property
    def runs(self) -> tuple[Planned, ...]:
        """What is trained, what takes longest first."""
        return tuple(planned for planned in self.planned if not planned.weights)

    def run(self, name: str) -> Path:
        """Returns a run's folder."""
        return self.out / "runs" / name

    def file(self, planned: Planned, name: str) -> Path:
        """Returns where a measurement is."""
        prefix = f"{planned.name}-" if planned.weights else ""
        return self.run(planned.weights or planned.name) / (prefix + name)

    def measured(self) -> dict[str, Path]:
        """Returns where the likelihoods of the table's rows are, by run."""
        return {p.name: self.file(p, LIKELIHOODS) for p in self.planned if p.row}

    def begin(self) -> None:
        """Writes what was asked for and the configurations, or checks that it is the same.

        Raises:
            RunError: If the folder was begun with other settings, or is something else.
            WriteError: If it cannot be written to.
        """
        asked: dict[str, object] = {
            "experiment": self.study.name,
            "profile": self.profile,
            "epochs": self.epochs,
            "train": {**self.effort.train, **self.train},
        }
        if exists(self.out / MANIFEST):
            begun = manifest(self.out / MANIFEST)
            for key in ("experiment", "profile", "epochs"):
                if begun.get(key) != asked[key]:
                    raise RunError(
                        f"{self.out}: was begun with {key} {begun.get(key)}, not {asked[key]}. "
                        f"Go on with --profile {begun.get('profile')} --epochs "
                        f"{begun.get('epochs')}, or choose another --out"
                    )
            # What a profile means may change: runs of both would be one table.
            if begun.get("train", {}) != asked["train"]:
                raise RunError(
                    f"{self.out}: was begun with other settings of training, or by a version of "
                    f"mmgen whose --profile {self.profile} trains otherwise; choose another --out"
                )
        else:
            self.ensure_absent()
        for planned in self.runs:
            train = {**self.effort.train, **self.train}
            text = self.study.configuration(planned, self.data.resolve(), self.epochs, train)
            _write(self.configuration(planned), text)
        _write(self.out / MANIFEST, json.dumps(asked, indent=2) + "\n")

    def ensure_absent(self) -> None:
        """Checks that a reproduction may begin, or go on, in the folder.

        Raises:
            RunError: If it is something else.
        """
        if not self.out.exists() or (self.out / MANIFEST).exists():
            return
        # This process may have locked it already.
        if not self.out.is_dir() or {p.name for p in self.out.iterdir()} - {LOCK, WRITER}:
            raise RunError(f"{self.out}: holds something else; choose another --out")

    def configuration(self, planned: Planned) -> Path:
        """Returns the configuration's file."""
        return self.out / "configs" / f"{planned.name}.toml"

    def importing(self, root: Path) -> Job:
        """Returns the command that writes the data set, of a folder as it is handed out."""
        name, *options = self.study.source.words
        words = ("data", name, str(root), *options, "--out", str(self.data))
        return Job("data", (*self._plugins(), *words), self.out / "logs" / "data.log")

    def trainings(self) -> list[Job]:
        """Lists the trainings that are not done."""
        left = []
        for planned in self.runs:
            run = self.run(planned.name)
            if run_folder.epochs_done(run) >= planned.epochs(self.epochs):
                continue
            command = ("train", str(self.configuration(planned)), "--resume", "--no-figures")
            left.append(self._job(planned, "train", *command, "--out", str(run)))
        return left

    def likelihoods(self) -> list[Job]:
        """Lists the measurements of likelihoods that are not done."""
        effort = ("--samples", str(SAMPLES), "--importance", "0", "--rows", str(self.effort.rows))
        # Iterative sampling takes longest: first.
        table = sorted((p for p in self.planned if p.row), key=lambda p: not p.iterative)
        return self._measurements(table, LIKELIHOODS, "evaluate", *effort)

    def recognitions(self) -> list[Job]:
        """Lists the measurements of what is recognised that are not done."""
        if not self.study.coherence:
            return []
        _, targets, given, _ = self.study.columns[0]
        table = [p for p in self.planned if p.row and p.generates(targets)]
        direction = ("--given", *given, "--targets", *targets)
        rows = ("--rows", str(self.effort.looked_at))
        return self._measurements(table, COHERENCE, "coherence", *direction, *rows)

    def _measurements(
        self, table: Sequence[Planned], name: str, verb: str, *effort: str
    ) -> list[Job]:
        left = []
        for planned in table:
            run, file = self.run(planned.weights or planned.name), self.file(planned, name)
            if newer(file, run / "best.safetensors"):
                continue
            chains = ("--iterations", str(self.effort.iterations)) if planned.iterative else ()
            noise = ("--temperature", f"{planned.temperature:g}")
            words = (verb, str(run), *effort, *chains, *noise, "--out", str(file))
            left.append(self._job(planned, Path(name).stem, *words))
        return left

    def _job(self, planned: Planned, what: str, *words: str) -> Job:
        log = self.out / "logs" / f"{planned.name}-{what}.log"
        return Job(planned.name, (*self._plugins(), *words, "--device", self.device), log)

    def _plugins(self) -> list[str]:
        return [word for plugin in self.plugins for word in ("-p", plugin)]

    def trained(self, planned: Planned) -> tuple[int, str]:
        """Returns how many epochs a run has, and a word on the last."""
        metrics = run_folder.read_metrics(self.run(planned.name))
        if not metrics:
            return 0, ""
        last = metrics[-1]
        loss = (last["validation"] or last["train"])["loss"]
        return last["epoch"], f"loss {loss:.2f}  {last['examples_per_second']:,.0f}/s"


def newer(file: Path, than: Path) -> bool:
    """Tells whether a measurement is there and of the weights that are there."""
    return file.exists() and than.exists() and file.stat().st_mtime_ns > than.stat().st_mtime_ns


def _write(path: Path, text: str) -> None:
    if not same_text(path, text):
        deliver(path, text)
