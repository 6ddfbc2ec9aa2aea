"""What rows with holes are worth: models trained on MNIST of which cells are missing.

    python -m benchmarks.holes OUT --mnist FOLDER [--epochs 30] [--seeds 1] [--jobs 2]
    python -m benchmarks.holes OUT --data DATA --split validation --no-experts

Picture, digit and attributes of 12,000 rows of MNIST, or any other data set of mmgen. Of each row,
each cell is missing with the same probability, at random, but never all of them. Compared on the
same complete rows, by the same classifiers: the default model trained on all cells, on rows with
holes, on those of the rows alone that are complete for as many steps, and on rows with holes with
the weights of complete rows; and the models of experts on rows with holes, for as long as the
default model took. Direction by direction: what is generated from each modality alone, from z that
is sampled. What is done already is kept: the same command goes on. Writes OUT/holes.md.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.quality import mmgen
from mmgen.batch import Batch
from mmgen.data.split import Split
from mmgen.data.store import Dataset, read_dataset, write_dataset
from mmgen.template import model_of

ROWS = {"train": 12_000, "validation": 2000, "test": 2000}

MISSING = {"half": 0.5, "most": 0.8}
"""The share of cells that are missing, by name; a little less, as no row lacks all."""

EXPERTS = ("mvae", "mopoe")

ROUND = 5
"""Epochs of which the time is taken, to train experts as long as the default model."""


@dataclass(frozen=True)
class Trial:
    """A model, trained on some rows.

    Attributes:
        name: What it is called in the table.
        data: The folder of the rows that it is trained on.
        settings: What is laid over the defaults.
        seed: Of training.
        like: The trial whose time it is given; if left out, ``epochs`` are what it says.
        epochs: How many.
    """

    name: str
    data: Path
    settings: tuple[str, ...]
    seed: int
    like: "Trial | None" = None
    epochs: int = 0

    @property
    def where(self) -> Path:
        """Its folder."""
        return self.data.parent.parent / "runs" / f"{self.name}-{self.seed}"

    def done(self) -> dict[str, float] | None:
        """Returns what was measured, if it was."""
        file = self.where.with_suffix(".json")
        return json.loads(file.read_text()) if file.exists() else None

    def run(self, complete: Path, split: str) -> None:
        """Trains, and measures on a split of rows without holes."""
        words = ("train", self.data, *self.settings, f"train.seed={self.seed}", "--no-figures")
        epochs = self.epochs
        if self.like is not None:
            budget = self.like.done()
            assert budget is not None, "it is trained before"
            timed = self.where.with_name(f"{self.where.name}-timed")
            used = mmgen(*words, f"train.epochs={ROUND}", "--out", timed, "--force")
            epochs = max(1, round(ROUND * budget["seconds"] / used))
        resume = ("--resume",) if self.where.exists() else ()
        used = mmgen(*words, f"train.epochs={epochs}", "--out", self.where, *resume)
        table = self.where.with_name(f"{self.where.name}-coherence.json")
        rows = ("--data", complete, "--split", split)
        mmgen("coherence", self.where, *rows, "-n", 5, "--out", table)
        found = json.loads(table.read_text())
        measured = {"epochs": epochs, "seconds": used, **directions(found)}
        self.where.with_suffix(".json").write_text(json.dumps(measured))


def directions(coherence: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, float]:
    """Returns what is recognised in what is sampled, by direction: one given, one generated.

    F1 of attributes, else the share that is right; from nothing, the share of which all agree.
    """
    return {
        f"{each['given'][0] if each['given'] else 'nothing'} → {each['target']}": each["value"]
        for each in coherence["rows"]
        if len(each["given"]) < 2 and each["z"] == "sampled"
    }


def make(out: Path, mnist: Path | None, data: Path | None = None) -> dict[str, Path]:
    """Makes the data sets, unless they are there: complete, with holes, and without rows of these.

    Args:
        out: The folder of all.
        mnist: The folder of ``MNIST/raw``.
        data: A data set to take rows of, instead.

    Returns:
        The folders by name.
    """
    folders = {name: out / "data" / name for name in ("complete", *MISSING, "whole-rows")}
    if not folders["complete"].exists():
        every = data or out / "data" / "mnist"
        if not every.exists():
            mmgen("data", "mnist", mnist, "--out", every)
        rows = read_dataset(every)
        first = {
            split: {name: value[:count] for name, value in rows.splits[split].load().items()}
            for split, count in ROWS.items()
        }
        _write(folders["complete"], rows, first)
    complete = read_dataset(folders["complete"])
    for name, share in MISSING.items():
        if not folders[name].exists():
            chunks = {split: holes(rows, share) for split, rows in complete.splits.items()}
            _write(folders[name], complete, chunks)
    if not folders["whole-rows"].exists():
        chunks = {split: holes(rows, MISSING["half"]) for split, rows in complete.splits.items()}
        whole = {split: _whole(rows) for split, rows in chunks.items()}
        _write(folders["whole-rows"], complete, whole)
    return folders


def holes(rows: Split, share: float, seed: int = 0) -> Batch:
    """Returns rows of which cells are missing, but never all of a row."""
    values = rows.load()
    g = torch.Generator().manual_seed(seed)
    has = torch.rand(rows.count, len(values), generator=g) >= share
    while (none := ~has.any(1)).any():
        has[none] = torch.rand(int(none.sum()), len(values), generator=g) >= share
    return Batch(dict(values), {name: has[:, k] for k, name in enumerate(values)})


def _whole(rows: Batch) -> dict[str, Tensor]:
    here = rows.having(rows)
    assert here is not None
    return {name: value[here] for name, value in rows.items()}


def _write(folder: Path, like: Dataset, chunks: Mapping[str, Mapping[str, Tensor]]) -> None:
    write_dataset(
        folder, name=like.name, about=like.about, modalities=like.modalities, splits=chunks
    )


def trials(folders: Mapping[str, Path], options: argparse.Namespace) -> Iterator[list[Trial]]:
    """Yields trials that can be run side by side."""
    rows = {name: read_dataset(folder).splits["train"].count for name, folder in folders.items()}
    whole = model_of({tuple(read_dataset(folders["complete"]).modalities): 1})
    usual = tuple(f"model.{key}={whole[key]}" for key in ("alpha", "prediction"))
    for seed in range(options.seeds):
        first = [
            Trial(name, folder, (), seed, epochs=round(options.epochs * rows["complete"] / n))
            for (name, folder), n in zip(folders.items(), rows.values(), strict=True)
        ]
        yield first
        yield [
            Trial(f"{name}-as-complete", folders[name], usual, seed, epochs=options.epochs)
            for name in MISSING
        ]
        if not options.experts:
            continue
        of = {trial.name: trial for trial in first}
        yield [
            Trial(f"{kind}-{name}", folders[name], (f"model.kind={kind}",), seed, of[name])
            for name in MISSING
            for kind in EXPERTS
        ]


def table(measured: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Returns a table as Markdown: means over seeds, in per cent, and their share of complete."""
    names = [n for n in next(iter(measured.values()))[0] if "→" in n]
    lines = ["| trained on | epochs | CPU s | " + " | ".join(names) + " |"]
    lines += ["|---|---:|---:|" + "---:|" * len(names)]
    full = measured["complete"]
    for name, found in measured.items():
        cells = [f"{statistics.mean(each[n] for each in found):.0f}" for n in ("epochs", "seconds")]
        for n in names:
            mean = statistics.mean(each[n] for each in found)
            share = mean / statistics.mean(each[n] for each in full)
            cells.append(f"{100 * mean:.1f} ({share:.2f})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, ""])


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.holes", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("out", type=Path, help="the folder of data, runs and the table")
    data = parser.add_mutually_exclusive_group(required=True)
    data.add_argument("--mnist", type=Path, help="the folder of MNIST/raw")
    data.add_argument("--data", type=Path, help="a data set, instead")
    parser.add_argument("--split", default="test", help="what is measured on")
    parser.add_argument("--no-experts", dest="experts", action="store_false")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="how many runs at once, a core each")
    options = parser.parse_args(words)
    folders = make(options.out.resolve(), options.mnist, options.data)
    measured: dict[str, list[dict[str, float]]] = {}
    for group in trials(folders, options):
        waiting = [trial for trial in group if trial.done() is None]

        def work(trial: Trial) -> None:
            trial.where.parent.mkdir(parents=True, exist_ok=True)
            trial.run(folders["complete"], options.split)
            print(f"{trial.where}: {trial.done()}", file=sys.stderr)

        with ThreadPoolExecutor(options.jobs) as pool:
            for _ in pool.map(work, waiting):
                pass
        for trial in group:
            found = trial.done()
            assert found is not None
            measured.setdefault(trial.name, []).append(found)
        text = table(measured)
        (options.out / "holes.md").write_text(text)
        print(text)


if __name__ == "__main__":
    main()
