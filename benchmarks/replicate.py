"""Replicated encoder nets as wide operations, against the plain loop over copies.

    python benchmarks/replicate.py [--device cuda] [--rows 100]

Forward and backward of all 2^(K−1) copies of one modality's encoder (the paper's 784-512-512), for
K = 2…7, in one process and alternating, so that a busy machine slows both. Prints the best time of
each in milliseconds, and the ratio.
"""

import argparse
import copy
import time

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from mmgen.nets.blocks import convolutional_encoder, mlp
from mmgen.nets.replicate import Looped, vectorised

NETS = {
    "mlp 784-512-512": ((784,), lambda: mlp(784, [512, 512])),
    "mlp 10-512-512": ((10,), lambda: mlp(10, [512, 512])),
    "convolution 28x28": ((1, 28, 28), lambda: convolutional_encoder((1, 28, 28), [32, 64])),
}


def step(net: nn.Module, x: Tensor) -> float:
    start = time.perf_counter()
    net(x).square().mean().backward()
    if x.is_cuda:
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    table = Table("net", "K", "copies", "loop, ms", "wide, ms", "ratio")
    for name, (shape, make) in NETS.items():
        x = torch.rand(arguments.rows, *shape, device=arguments.device)
        for modalities in range(2, 8):
            copies = 2 ** (modalities - 1)
            nets = [make().to(arguments.device) for _ in range(copies)]
            wide, loop = vectorised(copy.deepcopy(nets)), Looped(nets)
            assert wide is not None
            times = [(step(loop, x), step(wide, x)) for _ in range(arguments.repeats)]
            best = [min(column) for column in zip(*times, strict=True)]
            ratio = f"{best[0] / best[1]:.2f}"
            table.add_row(name, str(modalities), str(copies), *(f"{b:.2f}" for b in best), ratio)
    Console().print(table)


if __name__ == "__main__":
    main()
