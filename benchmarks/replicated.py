"""Copies of an encoder net with stacked weights, against one net after the other."""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import nn

from benchmarks import plain
from benchmarks.measuring import OURS, Measured, Options, Section, Work, alternate, timed
from mmgen.batch import Batch
from mmgen.experiment import Experiment
from mmgen.nets.blocks import convolutional_encoder, mlp
from mmgen.nets.replicate import Looped, vectorised
from mmgen.training import execution, session

ROWS = 100
MODALITIES = range(2, 8)
WHOLE = 5
"""The modalities of the line that is a whole step."""

NETS: dict[str, tuple[Sequence[int], Callable[[], nn.Module]]] = {
    "MLP 784-512-512": ((784,), lambda: mlp(784, [512, 512])),
    "MLP 10-512-512": ((10,), lambda: mlp(10, [512, 512])),
    "convolution 28×28": ((1, 28, 28), lambda: convolutional_encoder((1, 28, 28), [32, 64])),
}


def measure(options: Options, modalities: Sequence[int] = MODALITIES) -> Section:
    lines = [
        copies(options, name, shape, make, count)
        for name, (shape, make) in NETS.items()
        for count in modalities
    ]
    lines += [whole(options, precision) for precision in ("float32", "bfloat16")]
    return Section(
        "Replicated encoders",
        f"Forward and backward of all 2^(K−1) copies of one modality's encoder on {ROWS} rows: "
        "weights stacked, run as was measured to be fastest, against separate nets in a loop. "
        f"Last, a whole step with Adam of JMVAE-kl with K = {WHOLE} pictures.",
        tuple(lines),
    )


def copies(
    options: Options,
    name: str,
    shape: Sequence[int],
    make: Callable[[], nn.Module],
    modalities: int,
) -> Measured:
    """Measures the copies of one net for so many modalities."""
    device = options.device
    x = torch.rand(ROWS, *shape, device=device)
    nets = [make().to(device) for _ in range(2 ** (modalities - 1))]
    stacked, loop = vectorised(copy.deepcopy(nets)), Looped(nets)
    assert stacked is not None
    stacked.way = execution.fastest(stacked, x, device)

    def work(net: nn.Module) -> Work:
        return lambda: net(x).square().mean().backward()

    ways = {OURS: timed(work(stacked), device), "loop": timed(work(loop), device)}
    found = alternate(ways, options.rounds)
    return Measured(f"{name}, K = {modalities}, {len(nets)} copies", found, stacked.way)


def whole(options: Options, precision: str) -> Measured:
    """Measures a whole step of JMVAE-kl."""
    device = options.device
    names = [f"x{k}" for k in range(WHOLE)]
    nets = {"encoder_widths": [512, 512], "decoder_widths": [512, 512]}
    table = {
        "data": {"source": "synthetic", "rows": 4 * ROWS},
        "modalities": {name: {"kind": "image", **nets} for name in names},
        "model": {"kind": "jmvae-kl", "latent": 64, "alpha": plain.ALPHA},
        "train": {"batch_size": ROWS, "device": str(device), "precision": precision},
    }
    training = session.prepare(Experiment.checked(table, "the benchmark")).training
    training.model.train()
    x = torch.rand(WHOLE, ROWS, 784, device=device).round()
    batch = Batch({name: each.reshape(-1, 1, 28, 28) for name, each in zip(names, x, strict=True)})
    chosen = execution.words(execution.measure(training, batch))
    model = plain.Pictures(WHOLE).to(device)
    assert sum(p.numel() for p in model.parameters()) == sum(
        p.numel() for p in training.model.parameters()
    )
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-3)
    ways = {
        OURS: timed(lambda: training.step(batch, 20.0), device),
        "loop": timed(lambda: plain.step(model, optimiser, (x,), precision), device),
    }
    found = alternate(ways, options.rounds)
    return Measured(f"a step, K = {WHOLE}, {precision}", found, chosen)
