"""A step of training: JMVAE-kl of MNIST's size, against a plain loop, multivae, and products."""

from collections.abc import Iterator
from contextlib import ExitStack

import torch

from benchmarks import peers, plain
from benchmarks.measuring import OURS, Measured, Options, Section, Work, alternate, timed
from mmgen.batch import Batch
from mmgen.experiment import Experiment
from mmgen.training import execution, session

CLASSES = [str(digit) for digit in range(10)]
NETS = {"encoder_widths": [512, 512], "decoder_widths": [512, 512]}

READING = ((784, 512, False), (512, 512, True)), ((10, 512, False), (512, 512, True))
JOINED = ((1024, 128, True), (512, 128, True), (512, 128, True))
WRITTEN = ((64, 512, True), (512, 512, True))
WRITING = (*WRITTEN, (512, 784, True), *WRITTEN, (512, 10, True))
PRODUCTS = (*(layer for net in READING for layer in 2 * net), *JOINED, *WRITING)
"""Every linear layer of a step: inputs, outputs, whether a gradient of its input is needed."""


def measure(options: Options) -> Section:
    lines = [
        _line(options, rows, precision)
        for precision in ("float32", "bfloat16")
        for rows in (100, 1000)
    ]
    return Section(
        "Training",
        "A step of JMVAE-kl, image (784-512-512) and label (10-512-512), z of 64, Adam: rows and "
        "pixels drawn, forward, backward, update. The plain loop is what one writes by hand in "
        "PyTorch; products alone are the step's matrix products and nothing else. multivae is in "
        "float32 in all lines: it has nothing else.",
        tuple(lines),
    )


def _line(options: Options, rows: int, precision: str) -> Measured:
    ours, chosen = mmgen(rows, options.device, precision)
    ways = {
        OURS: timed(ours, options.device),
        "plain loop": timed(by_hand(rows, options.device, precision), options.device),
        "products alone": timed(products(rows, options.device, precision), options.device),
    }
    with ExitStack() as stack:
        if options.peer is not None:
            peer = stack.enter_context(peers.peer(options.peer, "training", rows=rows))
            ways["multivae"] = peer
        found = alternate(ways, options.rounds, warm=5)
    return Measured(f"batch {rows:,}, {precision}", found, chosen)


def mmgen(rows: int, device: torch.device, precision: str) -> tuple[Work, str]:
    """Returns a step as ``mmgen train`` takes it, and how its nets were found to run fastest."""
    table = {
        "data": {"source": "synthetic", "rows": 4 * rows},
        "modalities": {
            "image": {"kind": "image", **NETS},
            "label": {"kind": "label", "classes": CLASSES, **NETS},
        },
        "model": {"kind": "jmvae-kl", "latent": 64, "alpha": plain.ALPHA},
        "train": {"batch_size": rows, "device": str(device), "precision": precision},
    }
    prepared = session.prepare(Experiment.checked(table, "the benchmark"))
    training = prepared.training
    training.model.train()

    def batches() -> Iterator[Batch]:
        epoch = 0
        while True:
            yield from prepared.train.epoch(0, epoch)
            epoch += 1

    each = batches()
    chosen = execution.words(execution.measure(training, next(each)))
    return lambda: training.step(next(each), 20.0), chosen


def by_hand(rows: int, device: torch.device, precision: str) -> Work:
    """Returns a step of the plain loop."""
    model = plain.Digits().to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    pictures = torch.randint(0, 256, (4 * rows, 784), dtype=torch.uint8, device=device)
    labels = torch.eye(10, device=device)[torch.randint(0, 10, (4 * rows,), device=device)]

    def step() -> None:
        chosen = torch.randint(0, 4 * rows, (rows,), device=device)
        x = torch.bernoulli(pictures[chosen] / 255)
        plain.step(model, optimiser, (x, labels[chosen]), precision)

    return step


def products(rows: int, device: torch.device, precision: str) -> Work:
    """Returns the matrix products of a step: forward, and both gradients."""
    dtype = torch.float32 if precision == "float32" else torch.bfloat16
    layers = [
        (
            torch.randn(rows, before, device=device, dtype=dtype),
            torch.randn(before, after, device=device, dtype=dtype),
            torch.randn(rows, after, device=device, dtype=dtype),
            inward,
        )
        for before, after, inward in PRODUCTS
    ]

    def step() -> None:
        for x, weight, gradient, inward in layers:
            x @ weight
            x.mT @ gradient
            if inward:
                gradient @ weight.mT

    return step
