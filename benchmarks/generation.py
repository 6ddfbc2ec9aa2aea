"""Generating: what it takes beside the nets alone, at once and in rounds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.measuring import OURS, Measured, Options, Section, alternate, timed
from benchmarks.training import CLASSES, NETS
from mmgen import build
from mmgen.batch import Batch
from mmgen.experiment import Experiment
from mmgen.run import Run

SAMPLES, CHAINS, ITERATIONS = 10_000, 100, 40


def measure(options: Options) -> Section:
    return Section(
        "Generation",
        f"{SAMPLES:,} pictures from one label by JMVAE-kl; and {CHAINS} by iterative sampling of a "
        f"hierarchical JMVAE, {ITERATIONS} rounds: against the same nets called without anything "
        "else.",
        (at_once(options), in_rounds(options)),
    )


def untrained(model: Mapping[str, Any], device: torch.device) -> Run:
    """Returns a run of an image and a label that was never trained."""
    table = {
        "data": {"source": "synthetic", "rows": 100},
        "modalities": {
            "image": {"kind": "image", **NETS},
            "label": {"kind": "label", "classes": CLASSES, **NETS},
        },
        "model": {"latent": 64, **model},
        "train": {},
    }
    experiment, registry = Experiment.checked(table, "the benchmark"), build.registry()
    modalities = build.modalities(experiment, registry, experiment.modalities)
    model_ = build.model(experiment, modalities, device, registry).eval()
    return Run(Path(), experiment, modalities, model_, device)


def at_once(options: Options) -> Measured:
    """Measures direct sampling."""
    run = untrained({"kind": "jmvae-kl"}, options.device)
    model, label = run.model, torch.eye(10, device=options.device)[:1]

    def ours() -> object:
        return run.generate({"label": "0"}, ["image"], SAMPLES)["image"].mean

    @torch.no_grad()
    def alone() -> object:
        q = model.posterior(Batch({"label": label}))
        assert q is not None
        return model.decoders["image"](q.sample(torch.Size([SAMPLES]))[:, 0]).mean

    ways = {OURS: timed(ours, options.device), "nets alone": timed(alone, options.device)}
    return Measured(f"{SAMPLES:,} pictures", alternate(ways, options.rounds))


def in_rounds(options: Options) -> Measured:
    """Measures iterative sampling."""
    run = untrained({"kind": "hierarchical", "layers": 2}, options.device)
    model, device = run.model, options.device
    x = Batch(
        {
            "image": torch.rand(CHAINS, 1, 28, 28, device=device).round(),
            "label": torch.eye(10, device=device)[torch.zeros(CHAINS, dtype=torch.long)],
        }
    )

    def ours() -> object:
        drawn = run.generate({"label": "0"}, ["image"], CHAINS, iterations=ITERATIONS)
        return drawn["image"].mean

    @torch.no_grad()
    def alone() -> None:
        for _ in range(ITERATIONS):
            z = model.imputed_posterior(x).sample()
            model.decode(z, Batch({}), ["image"])["image"].mean  # noqa: B018 - computed when asked

    ways = {OURS: timed(ours, device), "nets alone": timed(alone, device)}
    return Measured(f"{CHAINS} chains of {ITERATIONS} rounds", alternate(ways, options.rounds))
