"""A step of training on faces: JMVAE-kl with the paper's nets for CelebA, against a plain loop."""

from typing import Any

import torch

from benchmarks import plain
from benchmarks.measuring import OURS, Measured, Options, Section, alternate, timed
from mmgen.batch import Batch
from mmgen.experiment import Experiment
from mmgen.training import execution, session
from mmgen.training.loop import Training
from mmgen_suzuki2018.celeba import CELEBA

ROWS, SIDE = 64, 64
PARAMETERS = 19_099_115


def measure(options: Options) -> Section:
    lines = [_line(options, precision) for precision in ("float32", "bfloat16")]
    return Section(
        "Faces",
        f"A step of JMVAE-kl with the paper's nets for CelebA ({SIDE}×{SIDE}, "
        f"{plain.ATTRIBUTES} attributes, z of 128; {PARAMETERS:,} parameters), batch {ROWS}, Adam.",
        tuple(lines),
    )


def _line(options: Options, precision: str) -> Measured:
    device = options.device
    training = prepared(device, precision)
    model = plain.Faces().to(device)
    for each in (model, training.model):
        assert sum(p.numel() for p in each.parameters()) == PARAMETERS
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)

    def drawn() -> tuple[torch.Tensor, torch.Tensor]:
        x, w = torch.randn(ROWS, 3, SIDE, SIDE), torch.randn(ROWS, plain.ATTRIBUTES).sign()
        return x.to(device), w.to(device)

    def ours() -> None:
        x, w = drawn()
        training.step(Batch({"image": x, "attributes": w}), 20.0)

    x, w = drawn()
    chosen = execution.words(execution.measure(training, Batch({"image": x, "attributes": w})))
    ways = {
        OURS: timed(ours, device),
        "plain loop": timed(lambda: plain.step(model, optimiser, drawn(), precision), device),
    }
    found = alternate(ways, options.rounds)
    return Measured(f"batch {ROWS}, {precision}", found, chosen)


def prepared(device: torch.device, precision: str) -> Training:
    """Returns a training of the paper's JMVAE-kl."""
    modalities: dict[str, Any] = {name: dict(m) for name, m in CELEBA.modalities.items()}
    modalities["image"] |= {"kind": "image", "channels": 3, "height": SIDE, "width": SIDE}
    names = [f"a{n}" for n in range(plain.ATTRIBUTES)]
    modalities["attributes"] |= {"kind": "attributes", "names": names}
    [planned] = [p for p in CELEBA.runs if p.name == "jmvae-kl"]
    table = {
        "data": {"source": "synthetic", "rows": 4 * ROWS},
        "modalities": modalities,
        "model": {**CELEBA.model, **planned.model, "alpha": plain.ALPHA},
        "train": {**CELEBA.train, "device": str(device), "precision": precision},
    }
    training = session.prepare(Experiment.checked(table, "the benchmark")).training
    training.model.train()
    return training
