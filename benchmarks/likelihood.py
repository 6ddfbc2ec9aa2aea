"""Decoded latents a second of the importance-sampled joint likelihood, against multivae.

    pip install multivae        # in an environment of its own that has mmgen as well
    python benchmarks/likelihood.py [--device cuda] [--rows 20] [--samples 1000]

One JMVAE with the paper's nets (image 784-512-512 with a Bernoulli likelihood, label 10-512-512),
its decoders and its joint posterior handed to both, on the same rows, in one process and
alternating, so that a busy machine slows both. multivae's ``compute_joint_nll`` decodes example by
example, 100 latents at a time, and keeps the graph of gradients; its second line is the same call
under ``torch.no_grad()``. Both estimates are printed: they must agree.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable
from types import SimpleNamespace

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from mmgen import build
from mmgen.batch import Batch
from mmgen.data.store import Split
from mmgen.evaluation.likelihood.estimates import SamplingBudget
from mmgen.evaluation.likelihood.estimators import likelihoods
from mmgen.experiment import Experiment
from mmgen.model import Model

CONFIGURATION = {
    "data": {"source": "synthetic", "rows": 1000},
    "modalities": {
        "image": {"kind": "image"},
        "label": {"kind": "label", "classes": [str(digit) for digit in range(10)]},
    },
    "model": {"kind": "jmvae", "latent": 64},
    "train": {},
}


def theirs(model: Model, device: torch.device) -> Callable[[dict[str, Tensor], int], Tensor]:
    """Builds multivae's JMVAE around the same nets."""
    try:
        from multivae.models import JMVAE, JMVAEConfig
        from multivae.models.nn.base_architectures import BaseJointEncoder
        from pythae.models.base.base_utils import ModelOutput
        from pythae.models.nn import BaseDecoder, BaseEncoder
    except ImportError as error:
        sys.exit(f"multivae is needed to compare with ({error}): pip install multivae")

    class Decoder(BaseDecoder):
        def __init__(self, net, shape):
            super().__init__()
            self.net, self.shape = net, shape

        def forward(self, z):
            return ModelOutput(reconstruction=self.net(z).reshape(-1, *self.shape))

    class Encoder(BaseEncoder):
        def __init__(self):
            super().__init__()
            self.latent_dim = model.latent

        def forward(self, x):  # multivae wants one a modality; the joint likelihood asks none
            raise NotImplementedError

    class Joint(BaseJointEncoder):
        def __init__(self):
            super().__init__()
            self.latent_dim = model.latent
            self.model = model

        def forward(self, x):
            q = self.model.posterior(Batch(x))
            return ModelOutput(embedding=q.mean, log_covariance=q.variance.log())

    shapes = {n: m.shape for n, m in model.modalities.items()}
    config = JMVAEConfig(
        n_modalities=2,
        latent_dim=model.latent,
        input_dims=shapes,
        decoders_dist={"image": "bernoulli", "label": "categorical"},
    )
    nets = {n: decoder.net for n, decoder in model.decoders.items()}
    decoders = {n: Decoder(net, shapes[n]) for n, net in nets.items()}
    peer = JMVAE(config, {n: Encoder() for n in nets}, decoders, Joint()).to(device).eval()

    def estimate(x: dict[str, Tensor], samples: int) -> Tensor:
        return -peer.compute_joint_nll(SimpleNamespace(data=x), samples) / len(x["image"])

    return estimate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rows", type=int, default=20)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--chunk", type=int, default=1000)
    arguments = parser.parse_args()
    device = torch.device(arguments.device)

    experiment = Experiment.checked(CONFIGURATION, "benchmark")
    registry = build.registry()
    dataset = build.dataset(experiment, registry)
    modalities = build.modalities(experiment, registry, dataset.modalities)
    model = build.model(experiment, modalities, device, registry).eval()
    stored = dataset.splits["train"].take(torch.arange(arguments.rows))
    # Pixels of 0 or 1, so that observing them draws nothing: both see the same.
    stored["image"] = (stored["image"] > 127).to(torch.uint8) * 255
    x = {n: m.observe(stored[n].to(device)) for n, m in modalities.items()}
    budget = SamplingBudget(samples=0, importance=arguments.samples, chunk=arguments.chunk)
    peer = theirs(model, device)

    def ours() -> float:
        return likelihoods(model, Split((stored,)), [], budget)[0].nats

    def without_gradients() -> float:
        with torch.no_grad():
            return peer(x, arguments.samples).item()

    ways = {
        "mmgen": ours,
        "multivae, no_grad": without_gradients,
        "multivae": lambda: peer(x, arguments.samples).item(),
    }
    best, estimates = dict.fromkeys(ways, math.inf), {}
    for _ in range(arguments.repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            estimates[name] = way()  # a number: the device has been waited for
            best[name] = min(best[name], time.perf_counter() - start)
    table = Table("", "log p(image, label)", "latents a second", "mmgen is faster by")
    latents = arguments.rows * arguments.samples
    for name, seconds in best.items():
        ratio = f"{seconds / best['mmgen']:.2f}"
        table.add_row(name, f"{estimates[name]:.2f}", f"{latents / seconds:,.0f}", ratio)
    Console().print(table)


if __name__ == "__main__":
    main()
