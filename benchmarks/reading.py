"""An epoch of batches, against torch's own loader."""

import tempfile
from collections.abc import Iterable
from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.measuring import OURS, Measured, Options, Section, Work, alternate, timed
from mmgen import build
from mmgen.data.batches import Batches
from mmgen.data.split import Split
from mmgen.data.store import read_dataset, write_dataset

ROWS, BATCH = 20_000, 100


def measure(options: Options) -> Section:
    registry = build.registry()
    settings = {
        "image": {"kind": "image"},
        "label": {"kind": "label", "classes": [str(digit) for digit in range(10)]},
    }
    modalities = {n: registry.create(n, each) for n, each in settings.items()}
    stored = {
        "image": torch.randint(0, 256, (ROWS, 1, 28, 28), dtype=torch.uint8),
        "label": torch.randint(0, 10, (ROWS,)),
    }
    loader = DataLoader(TensorDataset(*stored.values()), batch_size=BATCH, shuffle=True)

    def theirs() -> None:
        for pictures, _labels in loader:
            torch.bernoulli(pictures.to(options.device) / 255)

    def batches(split: Split, *, resident: bool) -> Work:
        made = Batches(
            split, modalities, device=options.device, batch_size=BATCH, resident=resident
        )
        return lambda: _exhaust(made.epoch(0, 0))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data"
        split = Split((stored,))
        write_dataset(path, name="data", about="", modalities=settings, splits={"train": stored})
        mapped = read_dataset(path).splits["train"]
        ways = {
            OURS: timed(batches(split, resident=True), options.device),
            "mmgen, from the disk": timed(batches(mapped, resident=False), options.device),
            "DataLoader": timed(theirs, options.device),
        }
        found = alternate(ways, options.rounds, warm=1)
    return Section(
        "Data",
        f"An epoch of {ROWS:,} pictures 28×28 with a label, batches of {BATCH}, shuffled and "
        "binarised, against torch's DataLoader over tensors in memory, with no worker, as is "
        "fastest there.",
        (Measured(f"{ROWS:,} rows", found),),
    )


def _exhaust(values: Iterable[object]) -> None:
    for _ in values:
        pass
