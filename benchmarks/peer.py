"""multivae's side of a benchmark, in an environment of its own, which has no mmgen.

    ENV/bin/python benchmarks/peer.py training '{"rows": 100, "threads": 2}'

Says what it is in a line, then does its work once for every line that it reads, and answers with
the seconds that it took; ``likelihood`` with the estimate too.
"""

import json
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib.metadata import version
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SIZES = {"image": 784, "label": 10}
DISTRIBUTIONS = {"image": "bernoulli", "label": "categorical"}


def mlp(*widths: int, out: int | None = None) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    if out is not None:
        layers.append(nn.Linear(widths[-1], out))
    return nn.Sequential(*layers)


def model(latent: int, alpha: float, *, softplus: bool = False) -> nn.Module:
    """Multivae's JMVAE with the paper's nets for MNIST.

    The head gives log variances, or what softplus makes variances of.
    """
    from multivae.models import JMVAE, JMVAEConfig
    from multivae.models.nn.base_architectures import BaseJointEncoder
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    class Encoder(BaseEncoder):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.latent_dim = latent
            self.net, self.head = mlp(size, 512, 512), nn.Linear(512, 2 * latent)

        def forward(self, x: Tensor) -> Any:
            mean, log_variance = self.head(self.net(x)).chunk(2, -1)
            return ModelOutput(embedding=mean, log_covariance=log_variance)

    class Joint(BaseJointEncoder):
        def __init__(self) -> None:
            super().__init__()
            self.latent_dim = latent
            self.nets = nn.ModuleDict({n: mlp(size, 512, 512) for n, size in SIZES.items()})
            self.head = nn.Linear(1024, 2 * latent)

        def forward(self, x: dict[str, Tensor]) -> Any:
            h = torch.cat([net(x[name]) for name, net in self.nets.items()], -1)
            mean, raw = self.head(h).chunk(2, -1)
            log_variance = (F.softplus(raw) + 1e-6).log() if softplus else raw
            return ModelOutput(embedding=mean, log_covariance=log_variance)

    class Decoder(BaseDecoder):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.latent_dim = latent
            self.net = mlp(latent, 512, 512, out=size)

        def forward(self, z: Tensor) -> Any:
            return ModelOutput(reconstruction=self.net(z))

    config = JMVAEConfig(
        n_modalities=2,
        latent_dim=latent,
        input_dims={n: (size,) for n, size in SIZES.items()},
        decoders_dist=DISTRIBUTIONS,
        alpha=alpha,
        warmup=1,
    )
    encoders = {n: Encoder(size) for n, size in SIZES.items()}
    decoders = {n: Decoder(size) for n, size in SIZES.items()}
    return JMVAE(config, encoders, decoders, Joint())


def training(rows: int, latent: int = 64, alpha: float = 0.5) -> Callable[[], None]:
    """A step of training: rows drawn, pixels drawn, Adam."""
    from multivae.data.datasets.base import MultimodalBaseDataset

    net = model(latent, alpha).train()
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    pictures = torch.randint(0, 256, (4 * rows, 784), dtype=torch.uint8)
    labels = torch.eye(10)[torch.randint(0, 10, (4 * rows,))]

    def step() -> None:
        chosen = torch.randint(0, 4 * rows, (rows,))
        image = torch.bernoulli(pictures[chosen] / 255)
        inputs = MultimodalBaseDataset(data={"image": image, "label": labels[chosen]})
        optimiser.zero_grad()
        net(inputs, epoch=2).loss.backward()
        optimiser.step()

    return step


def likelihood(
    weights: str, rows: int, samples: int, *, gradients: bool, latent: int = 64
) -> Callable[[], float]:
    """The joint likelihood of rows by importance sampling, with weights and rows from a file."""
    net = model(latent, 0.5, softplus=True).eval()
    given = torch.load(weights, weights_only=True)
    net.joint_encoder.load_state_dict(given["joint"])
    for name, decoder in net.decoders.items():
        decoder.load_state_dict(given[name])
    data = given["x"]

    def estimate() -> float:
        with nullcontext() if gradients else torch.no_grad():
            nll = net.compute_joint_nll(SimpleNamespace(data=data), samples)
        return -nll.item() / rows

    return estimate


def main() -> None:
    """Does the work as often as it is asked."""
    part, options = sys.argv[1], json.loads(sys.argv[2])
    torch.set_num_threads(options.pop("threads"))
    torch.set_flush_denormal(True)
    work = {"training": training, "likelihood": likelihood}[part](**options)
    answer = sys.stdout
    sys.stdout = sys.stderr  # what libraries say is no answer
    print(f"multivae {version('multivae')}, PyTorch {torch.__version__}", file=answer, flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        found = work()
        print(time.perf_counter() - started, found, file=answer, flush=True)


if __name__ == "__main__":
    main()
