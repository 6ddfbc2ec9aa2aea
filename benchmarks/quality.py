"""What defaults are chosen by: candidates on several data sets and seeds, at equal time.

    python -m benchmarks.quality OUT --mnist FOLDER [--minutes 5] [--seeds 3] [--jobs 2]
    python -m benchmarks.quality OUT --mnist FOLDER --only glyphs --only measurements
    python -m benchmarks.quality OUT --candidate 'wide: model.latent=128 model.alpha=0.3'
    python -m benchmarks.quality OUT --mnist FOLDER --only 'five pictures' --candidate defaults \
        --candidate 'MVAE: model.kind="mvae"' --candidate 'MoPoE: model.kind="mopoe"'

A candidate is settings laid over the defaults. Each is trained on each set with each seed for the
same time: one epoch is measured, and as many are trained as fit. Then ``mmgen coherence --judge``
asks whether what is generated is of one class, on the validation split: the test split is for those
who doubt the choice. What is done already is kept: the same command goes on. Ends with a table,
which is written to OUT/quality.md too.
"""

import argparse
import csv
import json
import math
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from os import environ, wait4, waitstatus_to_exitcode
from pathlib import Path
from tempfile import TemporaryFile

from PIL import Image

from mmgen.data.sources.torchvision import read_idx

ROWS, SAMPLES = 2000, 5

CANDIDATES: dict[str, tuple[str, ...]] = {
    "defaults": (),
    "paper": ("--preset=paper",),
    "Gaussian": ('model.subset_posterior="gaussian"',),
    "mixture": ('model.subset_posterior="mixture"',),
    "N(0, I)": ('model.sampling_prior="prior"',),
    "Z = 64": ("model.latent=64",),
    "constant rate": ('train.schedule="constant"',),
    "label × 1": ("modalities.label.likelihood_weight=1",),
    "separate": ('model.subset_encoder="separate"',),
}
"""What is typed beside ``mmgen train DATA``, by name."""


@dataclass(frozen=True)
class Set:
    """A data set.

    Attributes:
        make: Returns the words of ``mmgen`` that make it in a folder, or ``None`` if what it is
            made of is not at hand.
        judge: The modality that classes are read of.
        settings: What is laid over the defaults for all candidates: which modalities take part.
    """

    make: Callable[[argparse.Namespace, Path], Sequence[object] | None]
    judge: str = "label"
    settings: tuple[str, ...] = ()


def _mnist(options: argparse.Namespace, folder: Path) -> Sequence[object] | None:
    return options.mnist and ("data", "mnist", options.mnist, "--out", folder)


def _pictures(options: argparse.Namespace, folder: Path) -> Sequence[object] | None:
    counts = ("--train", 20_000, "--validation", 2000, "--test", 2000)
    return options.mnist and ("data", "polymnist-like", options.mnist, "--out", folder, *counts)


def _glyphs(_: argparse.Namespace, folder: Path) -> Sequence[object]:
    return "data", "glyphs", "--out", folder


def _faces(options: argparse.Namespace, folder: Path) -> Sequence[object] | None:
    return options.celeba and ("data", "celeba", options.celeba, "--crop", "face", "--out", folder)


def _measurements(_: argparse.Namespace, folder: Path) -> Sequence[object]:
    table = folder.with_suffix(".csv")
    write_measurements(table)
    return "data", "table", table, "--out", folder


def _words(_: argparse.Namespace, folder: Path) -> Sequence[object]:
    table = folder.with_suffix(".csv")
    write_words(table)
    return "data", "table", table, "--out", folder


def _clothes(options: argparse.Namespace, folder: Path) -> Sequence[object] | None:
    if not options.clothes:
        return None
    table = folder.with_name(f"{folder.name}-table") / "rows.csv"
    write_clothes(table, options.clothes)
    return "data", "table", table, "--out", folder


SETS: dict[str, Set] = {
    "glyphs": Set(_glyphs),
    "mnist, 2": Set(_mnist, settings=('data.modalities=["image", "label"]',)),
    "mnist, 3": Set(_mnist),
    "two pictures": Set(_pictures, settings=('data.modalities=["m0", "m1", "label"]',)),
    "five pictures": Set(_pictures, settings=('data.modalities=["m0", "m1", "m2", "m3", "m4"]',)),
    "measurements": Set(_measurements),
    "words": Set(_words),
    "clothes": Set(_clothes),
    "faces": Set(_faces, judge="attributes"),
}


def write_measurements(path: Path, rows: int = 12_000, seed: int = 0) -> None:
    """Writes a table of two instruments and a class: lines of several shapes, and a few numbers.

    A class is a shape of the curve at two possible places, so that the numbers of one class are no
    one Gaussian; a twentieth of the readings of the second instrument are of another class.
    """
    draw = random.Random(seed)
    classes = ("iron", "glass", "paper", "resin", "water", "bone")
    centres = [(draw.uniform(-2, 2), draw.uniform(-2, 2)) for _ in range(2 * len(classes))]
    heads = [f"curve_{n}" for n in range(16)] + ["hardness", "density"]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*heads, "label"])
        for _ in range(rows):
            number, place = draw.randrange(len(classes)), draw.randrange(2)
            phase = number + 0.4 * place + draw.gauss(0, 0.15)
            curve = [math.sin(phase + n * (1 + place) / 4) + draw.gauss(0, 0.25) for n in range(16)]
            told = draw.randrange(len(classes)) if draw.random() < 0.05 else number
            x, y = centres[2 * told + place]
            read = [x + draw.gauss(0, 0.4), y + draw.gauss(0, 0.4)]
            writer.writerow([*(f"{v:.4f}" for v in (*curve, *read)), classes[number]])


def write_words(path: Path, rows: int = 8000, seed: int = 0) -> None:
    """Writes a table of a word, a wave and a class: a word is of one class, and so is a wave.

    A class has five words, and waves of one frequency and any phase: it is told for certain from
    either, and neither is told from it.
    """
    draw = random.Random(seed)
    names = ("low", "mild", "brisk", "high")
    heads = [f"wave_{n}" for n in range(16)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["word", *heads, "label"])
        for _ in range(rows):
            number, phase = draw.randrange(len(names)), draw.uniform(0, 2 * math.pi)
            word = f"{names[number][:2]}{draw.choice('aeiou')}"
            turn = 2 * math.pi * (number + 1) / 16
            wave = [math.sin(phase + turn * n) + draw.gauss(0, 0.1) for n in range(16)]
            writer.writerow([word, *(f"{v:.4f}" for v in wave), names[number]])


def write_clothes(path: Path, folder: Path, rows: int = 15_000, seed: int = 0) -> None:
    """Writes a table of pictures of clothes, their class, and three more columns of yes and no.

    Args:
        path: The table; the pictures lie beside it.
        folder: Holds ``FashionMNIST/raw``, as torchvision has it.
        rows: How many are taken.
        seed: Which.
    """
    images, labels = read_idx("fashion-mnist", folder, train=True, download=False)
    (path.parent / "pictures").mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label", "footwear", "light", "sleeves"])
        for row in random.Random(seed).sample(range(len(images)), rows):
            image, number = images[row].numpy(), int(labels[row])
            Image.fromarray(image).save(path.parent / f"pictures/{row}.png")
            sleeves = number in (0, 2, 3, 4, 6) and image[:, :6].mean() > 20
            more = (number in (5, 7, 9), image.mean() < 60, sleeves)
            writer.writerow([f"pictures/{row}.png", CLOTHES[number], *map(int, more)])


CLOTHES = (
    *("shirt", "trousers", "pullover", "dress", "coat"),
    *("sandal", "blouse", "sneaker", "bag", "boot"),
)


@dataclass(frozen=True)
class Trial:
    """One candidate on one set with one seed.

    Attributes:
        where: Its folder.
        data: The data set's.
        judge: See :class:`Set`.
        settings: All that is laid over the defaults.
    """

    where: Path
    data: Path
    judge: str
    settings: tuple[str, ...]

    def done(self) -> dict[str, float] | None:
        """Returns what was measured, if it was."""
        file = self.where / "measured.json"
        return json.loads(file.read_text()) if file.exists() else None

    def run(self, minutes: float) -> None:
        """Trains for so long, and measures."""
        run, trial = self.where / "run", self.where / "epoch"
        train = ("train", self.data, "--no-figures")
        if not run.exists():
            began = time.monotonic()
            used = mmgen(*train, "--out", trial, "--force", *self.settings, "train.epochs=2")
            own = used / (time.monotonic() - began)  # others may work beside it
            *_, epoch = (trial / "metrics.jsonl").read_text().splitlines()
            epochs = max(1, int(60 * minutes / (own * json.loads(epoch)["seconds"])))
            (self.where / "epochs").write_text(str(epochs))
        epochs = int((self.where / "epochs").read_text())
        resume = ("--resume",) if run.exists() else ()
        mmgen(*train, "--out", run, *resume, *self.settings, f"train.epochs={epochs}")
        found = self.where / "agreement.json"
        which = ("--judge", self.judge, "--split", "validation", "--rows", ROWS, "-n", SAMPLES)
        mmgen("coherence", run, *which, "--out", found)
        (self.where / "measured.json").write_text(
            json.dumps({"epochs": epochs, **summary(json.loads(found.read_text()), self.judge)})
        )


def summary(agreement: Mapping[str, object], judge: str) -> dict[str, float]:
    """Returns the numbers that a candidate is judged by, each from 0 to 1 but for the distance.

    Shares are of what the judge reads in real rows: a judge that errs there cannot see more.

    - ``told``: the class from one other modality, the one that tells most;
    - ``shown``: in one other modality from the class, the mean;
    - ``crossed``: from one of the others in another of them, the mean; absent where there are two;
    - ``many``: from one, in all of the others at once, the mean;
    - ``nothing``: all that is generated from nothing is of one class;
    - ``distance``: the mean Fréchet distance of what is generated from nothing.
    """
    groups: dict[str, list[float]] = {}
    findings = agreement["findings"]
    assert isinstance(findings, list)
    for each in findings:
        if each["about"]:
            continue
        given, targets, value = each["given"], each["targets"], each["value"]
        share = value / (each["ceiling"] or 1)
        if each["question"] == "one to one" and targets:
            name = "crossed"
            if given == [judge]:
                name = "shown"
            elif targets == [judge]:
                name = "told"
            groups.setdefault(name, []).append(share)
        elif each["question"] == "one to many, right":
            groups.setdefault("many", []).append(share)
        elif each["question"] == "from nothing":
            groups.setdefault("nothing", []).append(share)
        elif each["question"] == "Fréchet" and not given:
            groups.setdefault("distance", []).append(value)
    return {n: (max if n == "told" else statistics.mean)(each) for n, each in groups.items()}


def mmgen(*words: object) -> float:
    """Runs a command of mmgen on one core, and returns the seconds that the core worked for it.

    Raises:
        SystemExit: With what it said, if it fails.
    """
    command = [sys.executable, "-m", "mmgen", *map(str, words)]
    environment = {**environ, "OMP_NUM_THREADS": "1"}
    with TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said, env=environment)
        _, status, used = wait4(process.pid, 0)
        process.returncode = waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise SystemExit(f"{' '.join(command[2:])}\n{said.read()[-2000:]}")
    return used.ru_utime + used.ru_stime


NUMBERS = ("told", "shown", "crossed", "many", "nothing", "distance")


def table(measured: Mapping[tuple[str, str], Sequence[Mapping[str, float]]], about: str) -> str:
    """Returns a table for each set as Markdown: means over seeds, ± their standard deviation."""
    parts = [f"# Candidates for defaults\n\n{about}\n"]
    for name in dict.fromkeys(name for name, _ in measured):
        lines = [f"## {name}", "", "| candidate | epochs | " + " | ".join(NUMBERS) + " |"]
        lines += ["|---|---:|" + "---:|" * len(NUMBERS)]
        for (of, candidate), found in measured.items():
            if of == name and found:
                epochs = round(statistics.mean(each["epochs"] for each in found))
                cells = [_cell(number, found) for number in NUMBERS]
                lines.append(f"| {candidate} | {epochs} | " + " | ".join(cells) + " |")
        parts.append("\n".join([*lines, ""]))
    return "\n".join(parts)


def _cell(number: str, found: Sequence[Mapping[str, float]]) -> str:
    values = [each[number] for each in found if number in each]
    if not values:
        return "–"
    share = number != "distance"
    mean = statistics.mean(values) * (100 if share else 1)
    spread = statistics.stdev(values) * (100 if share else 1) if len(values) > 1 else 0
    return f"{mean:.1f} ± {spread:.1f}"


def trials(
    options: argparse.Namespace, candidates: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, str, Trial]]:
    """Yields the trials, seed by seed, so that a stop leaves all candidates compared."""
    for seed in range(options.seeds):
        for name in options.only or SETS:
            data = options.out / "data" / name.replace(", ", "-").replace(" ", "-")
            if not data.exists():
                made = SETS[name].make(options, data)
                if made is None:
                    continue
                mmgen(*made)
            for candidate, settings in candidates.items():
                words = "-".join("".join(c if c.isalnum() else " " for c in candidate).split())
                where = options.out / "trials" / data.name / words / str(seed)
                all_settings = (*SETS[name].settings, *settings, f"train.seed={seed}")
                yield name, candidate, Trial(where, data, SETS[name].judge, all_settings)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("out", type=Path, help="the folder of data, runs and the table")
    parser.add_argument("--mnist", type=Path, help="the folder of MNIST/raw")
    parser.add_argument("--clothes", type=Path, help="the folder of FashionMNIST/raw")
    parser.add_argument("--celeba", type=Path, help="the folder of list_attr_celeba.txt")
    parser.add_argument("--minutes", type=float, default=5, help="of training, for each run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=1, help="how many runs at once, a core each")
    parser.add_argument("--only", action="append", choices=tuple(SETS), help="this set")
    parser.add_argument(
        "--candidate", action="append", default=[], help="NAME, or 'NAME: KEY=VALUE KEY=VALUE'"
    )
    options = parser.parse_args(words)
    candidates = dict(_candidate(each) for each in options.candidate) or CANDIDATES
    every = [*trials(options, candidates)]
    waiting = [trial for *_, trial in every if trial.done() is None]
    started, count = time.monotonic(), len(waiting)

    def work(trial: Trial) -> None:
        trial.where.mkdir(parents=True, exist_ok=True)
        trial.run(options.minutes)
        print(f"{(time.monotonic() - started) / 60:.0f} min: {trial.where}", file=sys.stderr)

    print(f"{count} of {len(every)} trials are left", file=sys.stderr)
    with ThreadPoolExecutor(options.jobs) as pool:
        for _ in pool.map(work, waiting):
            pass
    measured: dict[tuple[str, str], list[dict[str, float]]] = {}
    for name, candidate, trial in every:
        found = trial.done()
        measured.setdefault((name, candidate), []).extend([found] if found else [])
    about = (
        f"{options.minutes:g} minutes of training on one core each, {options.seeds} seeds, "
        f"{ROWS:,} validation rows, {SAMPLES} samples of z each; per cent, mean ± deviation."
    )
    text = table(measured, about)
    (options.out / "quality.md").write_text(text)
    print(text)


def _candidate(words: str) -> tuple[str, tuple[str, ...]]:
    name, _, settings = words.partition(":")
    name = name.strip()
    if not settings.strip() and name not in CANDIDATES:
        raise SystemExit(f"--candidate {name}: there are {', '.join(CANDIDATES)}")
    return name, tuple(settings.split()) or CANDIDATES[name]


if __name__ == "__main__":
    main()
