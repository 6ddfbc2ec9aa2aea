"""The importance-sampled joint likelihood, against multivae: the same weights and rows."""

import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import peers
from benchmarks.measuring import OURS, Measured, Options, Section, alternate, timed
from benchmarks.training import CLASSES, NETS
from mmgen import build
from mmgen.batch import Batch
from mmgen.data.split import Split
from mmgen.evaluation.likelihood.estimates import SamplingBudget
from mmgen.evaluation.likelihood.estimators import likelihoods
from mmgen.experiment import Experiment
from mmgen.model import Model

ROWS, SAMPLES = 20, 1000

CONFIGURATION = {
    "data": {"source": "synthetic", "rows": 1000},
    "modalities": {
        "image": {"kind": "image", **NETS},
        "label": {"kind": "label", "classes": CLASSES, **NETS},
    },
    "model": {"kind": "jmvae", "latent": 64},
    "train": {},
}


def measure(options: Options) -> Section:
    device = options.device
    experiment = Experiment.checked(CONFIGURATION, "the benchmark")
    registry = build.registry()
    dataset = build.dataset(experiment, registry)
    modalities = build.modalities(experiment, registry, dataset.modalities)
    model = build.model(experiment, modalities, device, registry).eval()
    stored = dataset.splits["train"].take(torch.arange(ROWS))
    # Pixels of 0 or 1, so that observing them draws nothing: both see the same.
    stored = Batch({**stored, "image": (stored["image"] > 127).to(torch.uint8) * 255})
    x = {n: m.observe(stored[n]).flatten(1) for n, m in modalities.items()}
    budget = SamplingBudget(samples=0, importance=SAMPLES)
    estimates: dict[str, float] = {}

    def ours() -> None:
        estimates[OURS] = likelihoods(model, Split((stored,)), [], budget)[0].nats

    ways = {OURS: timed(ours, device)}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        if options.peer is not None:
            weights = Path(folder) / "weights.pt"
            torch.save({**nets(model), "x": x}, weights)
            asked: dict[str, Any] = {"weights": str(weights), "rows": ROWS, "samples": SAMPLES}
            for name, gradients in (("multivae, no_grad", False), ("multivae", True)):
                peer = peers.peer(options.peer, "likelihood", **asked, gradients=gradients)
                ways[name] = stack.enter_context(peer)
        found = alternate(ways, options.rounds)
        for name, way in ways.items():
            if isinstance(way, peers.Peer):
                estimates[name] = float(way.found)
    said = ", ".join(f"{value:.2f} by {name}" for name, value in estimates.items())
    return Section(
        "Likelihood",
        f"log p(image, label) of {ROWS} rows by importance sampling, {SAMPLES:,} z each, of a "
        "JMVAE with the same weights. multivae keeps the graph of gradients unless told not to. "
        f"Estimates in nats, which must agree: {said}.",
        (Measured(f"{ROWS} rows × {SAMPLES:,} z", found),),
    )


def nets(model: Model) -> dict[str, dict[str, Tensor]]:
    """Returns a JMVAE's nets as multivae's are named in ``peer.py``: joint encoder, decoders."""
    encoder: Any = model.get_submodule("encoder")
    joint: dict[str, Tensor] = {}
    for name, net in encoder.encoders.items():
        layers = [layer for layer in net.layers if hasattr(layer, "weight")]
        for number, layer in enumerate(layers):
            joint[f"nets.{name}.{2 * number}.weight"] = layer.weight[0].mT
            joint[f"nets.{name}.{2 * number}.bias"] = layer.bias[0].flatten()
    projections = [encoder.first.weights[name][0].mT for name in encoder.names]
    joint["head.weight"], joint["head.bias"] = torch.cat(projections, 1), encoder.first.bias[0]
    found = {
        name: {f"net.{key}": value for key, value in decoder.net.state_dict().items()}
        for name, decoder in model.decoders.items()
    }
    found["joint"] = joint
    return {
        part: {key: value.detach().cpu().contiguous() for key, value in weights.items()}
        for part, weights in found.items()
    }
