"""The folder of a reproduction: what is in it, what is still to do, and how far it is.

reproduction.json       what was asked for: profile and epochs
configs/NAME.toml       one experiment a run, for ``mmgen train``
runs/NAME/              run folders, with likelihoods.json and coherence.json measured of them
logs/                   what the processes said
table-1.*, figure-*     what the paper shows, each with its data
README.md               all of it on one page
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mmgen.brief import OneLine
from mmgen.errors import RunError
from mmgen.files.atomic import deliver
from mmgen.files.holding import LOCK
from mmgen.files.locks import WRITER
from mmgen.files.reading import exists
from mmgen.training import run_folder
from mmgen_suzuki2018.jobs import Job
from mmgen_suzuki2018.measured import manifest, same_text
from mmgen_suzuki2018.mnist import (
    BEYOND,
    IMAGE,
    LABEL,
    PROFILES,
    READINGS,
    RUNS,
    SAMPLES,
    Planned,
    Profile,
)

MANIFEST = "reproduction.json"
LIKELIHOODS, COHERENCE = "likelihoods.json", "coherence.json"


@dataclass(frozen=True, repr=False)
class Reproduction(OneLine):
    """The paper's MNIST experiment in a folder.

    Attributes:
        out: The folder.
        data: The data set.
        profile: Which of :data:`mmgen_suzuki2018.mnist.PROFILES`.
        epochs: Of every model of the table.
        beyond: Whether JMVAE-kl with other settings, and with a flow, are rows more.
        readings: Whether what the paper leaves open, read otherwise, are rows more.
        device: ``auto``, or a torch device.
        plugins: One-file plugins, as ``mmgen -p``.
    """

    out: Path
    data: Path
    profile: str
    epochs: int
    beyond: bool = False
    readings: bool = False
    device: str = "auto"
    plugins: tuple[str, ...] = ()

    @property
    def effort(self) -> Profile:
        """How much is measured."""
        return PROFILES[self.profile]

    @property
    def runs(self) -> tuple[Planned, ...]:
        """The runs, those that take longest first."""
        return (*(BEYOND if self.beyond else ()), *(READINGS if self.readings else ()), *RUNS)

    def run(self, name: str) -> Path:
        """Returns a run's folder."""
        return self.out / "runs" / name

    def measured(self) -> dict[str, Path]:
        """Returns where the likelihoods of the table's runs are, by run."""
        return {p.name: self.run(p.name) / LIKELIHOODS for p in self.runs if p.row}

    def begin(self) -> None:
        """Writes what was asked for and the configurations, or checks that it is the same.

        Raises:
            RunError: If the folder was begun with other settings, or is something else.
            WriteError: If it cannot be written to.
        """
        asked: dict[str, object] = {
            "experiment": "mnist",
            "profile": self.profile,
            "epochs": self.epochs,
            "train": {**self.effort.train},
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
                    f"{self.out}: was begun by a version of mmgen whose --profile {self.profile} "
                    "trains otherwise; choose another --out"
                )
        else:
            self.ensure_absent()
        for planned in self.runs:
            text = planned.configuration(self.data.resolve(), self.epochs, self.effort.train)
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
        """Returns the command that writes the data set, of the folder that torchvision has."""
        words = ("data", "mnist", str(root), "--out", str(self.data))
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
        table = [planned for planned in self.runs if planned.row]
        # Iterative sampling takes longest: first.
        table.sort(key=lambda planned: not planned.iterative)
        return self._measurements(table, LIKELIHOODS, "evaluate", *effort)

    def recognitions(self) -> list[Job]:
        """Lists the measurements of what is recognised that are not done."""
        table = [p for p in self.runs if p.row and p.model.get("targets", [IMAGE]) == [IMAGE]]
        direction = ("--given", LABEL, "--targets", IMAGE, "--rows", str(self.effort.looked_at))
        return self._measurements(table, COHERENCE, "coherence", *direction)

    def _measurements(
        self, table: Sequence[Planned], file: str, verb: str, *effort: str
    ) -> list[Job]:
        left = []
        for planned in table:
            run = self.run(planned.name)
            if _newer(run / file, run / "best.safetensors"):
                continue
            chains = ("--iterations", str(self.effort.iterations)) if planned.iterative else ()
            noise = ("--temperature", f"{planned.temperature:g}")
            words = (verb, str(run), *effort, *chains, *noise, "--out", str(run / file))
            left.append(self._job(planned, Path(file).stem, *words))
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


def _newer(file: Path, than: Path) -> bool:
    """Tells whether a measurement is there and of the weights that are there."""
    return file.exists() and than.exists() and file.stat().st_mtime_ns > than.stat().st_mtime_ns


def _write(path: Path, text: str) -> None:
    if not same_text(path, text):
        deliver(path, text)
