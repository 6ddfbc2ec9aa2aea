"""A training step of JMVAE-kl on faces, against a plain loop with separate nets.

    python benchmarks/faces.py [--device cuda] [--precision bfloat16] [--rows 64] [--rounds 7]

The paper's nets for CelebA (64×64, 40 attributes, z 128; 19.1 M parameters), the same objective and
Adam, in one process and alternating, so that a busy machine slows both. The plain loop is what one
writes by hand: a module a net, called one after the other. Prints the median time of each in
milliseconds, and the ratio.
"""

import argparse
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Normal, kl_divergence

from mmgen.batch import Batch
from mmgen.experiment import Experiment
from mmgen.training import execution, session
from mmgen_suzuki2018.celeba import CELEBA

ATTRIBUTES = 40
SIDE = 64
ALPHA = 0.5


def image_encoder() -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 4, 2, 1), nn.ReLU()]
    for before, after in ((64, 128), (128, 256), (256, 256)):
        layers += [nn.Conv2d(before, after, 4, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten())


def attributes_encoder() -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(ATTRIBUTES, 512), nn.ReLU(), nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU()
    )


def image_decoder() -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(128, 4096), nn.ReLU(), nn.Unflatten(1, (256, 4, 4))]
    for before, after in ((256, 256), (256, 128), (128, 64)):
        layers += [nn.ConvTranspose2d(before, after, 4, 2, 1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(64, 3, 4, 2, 1))


def attributes_decoder() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Linear(128, 4096), nn.ReLU(), nn.Linear(4096, 512), nn.BatchNorm1d(512), nn.ReLU()),
        *(nn.Linear(512, ATTRIBUTES), nn.Tanh()),
    )


def posterior(features: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(features, 1024), nn.ReLU(), nn.Linear(1024, 256))


def gaussian(parameters: Tensor) -> Distribution:
    mean, spread = parameters.float().chunk(2, -1)
    return Independent(Normal(mean, (F.softplus(spread) + 1e-4).sqrt()), 1)


class Plain(nn.Module):
    """JMVAE-kl of two modalities by hand: equation 10."""

    def __init__(self) -> None:
        super().__init__()
        self.joint = nn.ModuleList([image_encoder(), attributes_encoder(), posterior(4608)])
        self.image = nn.Sequential(image_encoder(), posterior(4096))
        self.attributes = nn.Sequential(attributes_encoder(), posterior(512))
        self.decoders = nn.ModuleList([image_decoder(), attributes_decoder()])

    def loss(self, x: Tensor, w: Tensor, beta: float) -> Tensor:
        """Returns the loss of a batch."""
        of_x, of_w, joined = self.joint
        q = gaussian(joined(torch.cat([of_x(x), of_w(w)], 1)))
        z = q.rsample()
        mean_x, mean_w = (decoder(z).float() for decoder in self.decoders)
        log_p = Independent(Normal(mean_x, 1.0), 3).log_prob(x) / 3
        log_p = log_p + Independent(Normal(mean_w, 1.0), 1).log_prob(w)
        prior = Independent(Normal(torch.zeros_like(z), torch.ones_like(z)), 1)
        kl = beta * kl_divergence(q, prior)
        for subset in (gaussian(self.image(x)), gaussian(self.attributes(w))):
            kl = kl + ALPHA * kl_divergence(q, subset)
        loss: Tensor = (kl - log_p).mean()
        return loss


def plain_steps(
    rows: int, device: str, autocast: Callable[[], AbstractContextManager[Any]]
) -> Iterator[float]:
    model = Plain().to(device)
    assert sum(p.numel() for p in model.parameters()) == 19_099_115
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)
    while True:
        x, w = torch.randn(rows, 3, SIDE, SIDE), torch.randn(rows, ATTRIBUTES).sign()
        x, w = x.to(device), w.to(device)
        start = time.perf_counter()
        optimiser.zero_grad()
        with autocast():
            loss = model.loss(x, w, 1.0)
        loss.backward()
        optimiser.step()
        yield elapsed(start, device)


def mmgen_steps(rows: int, device: str, precision: str) -> Iterator[float]:
    modalities: dict[str, Any] = {name: dict(m) for name, m in CELEBA.modalities.items()}
    modalities["image"] |= {"kind": "image", "channels": 3, "height": SIDE, "width": SIDE}
    names = [f"a{n}" for n in range(ATTRIBUTES)]
    modalities["attributes"] |= {"kind": "attributes", "names": names}
    [planned] = [p for p in CELEBA.runs if p.name == "jmvae-kl"]
    table = {
        "data": {"source": "synthetic", "rows": 4 * rows},
        "modalities": modalities,
        "model": {**CELEBA.model, **planned.model, "alpha": ALPHA},
        "train": {**CELEBA.train, "device": device, "precision": precision},
    }
    training = session.prepare(Experiment.checked(table, "the benchmark")).training
    assert sum(p.numel() for p in training.model.parameters()) == 19_099_115
    training.model.train()

    def drawn() -> Batch:
        x, w = torch.randn(rows, 3, SIDE, SIDE), torch.randn(rows, ATTRIBUTES).sign()
        return Batch({"image": x.to(device), "attributes": w.to(device)})

    print("measured to be faster here:", execution.words(execution.measure(training, drawn())))
    while True:
        batch = drawn()
        start = time.perf_counter()
        training.step(batch, 20.0)
        yield elapsed(start, device)


def elapsed(start: float, device: str) -> float:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    rows, device = arguments.rows, arguments.device

    def autocast() -> AbstractContextManager[Any]:
        if arguments.precision == "float32":
            return nullcontext()
        return torch.autocast(device.partition(":")[0], torch.bfloat16)

    torch.set_flush_denormal(True)
    sides = (plain_steps(rows, device, autocast), mmgen_steps(rows, device, arguments.precision))
    for _ in range(3):  # the first steps choose algorithms and take memory
        [next(side) for side in sides]
    times = [[next(side) for side in sides] for _ in range(arguments.rounds)]
    plain, ours = (statistics.median(column) for column in zip(*times, strict=True))
    table = Table("rows", "precision", "plain loop, ms", "mmgen, ms", "ratio")
    table.add_row(
        *(str(rows), arguments.precision, f"{plain:.0f}", f"{ours:.0f}", f"{plain / ours:.2f}")
    )
    console = Console()
    console.print(table)
    where = platform.processor() if device == "cpu" else torch.cuda.get_device_name(device)
    console.print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads, {where}")


if __name__ == "__main__":
    main()
