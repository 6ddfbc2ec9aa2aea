"""What the figures are drawn from: iterative sampling as it goes on, and z in two dimensions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmgen.batch import Batch
from mmgen.brief import OneLine
from mmgen.data.batches import Batches
from mmgen.data.store import Split
from mmgen.evaluation.likelihood.decoding import log_likelihoods
from mmgen.evaluation.likelihood.estimators import ROWS
from mmgen.inference.iterative import iterate
from mmgen.inference.sample import inferred, sample_latent
from mmgen.run import Run
from mmgen.seeding import random_state


@torch.no_grad()
def pictures(
    run: Run, given: str, target: str, after: Sequence[int], *, samples: int = 1, seed: int = 0
) -> Tensor:
    """Generates from every choice of a modality, after several numbers of iterations (eq. 6).

    Args:
        run: The trained run.
        given: A modality with choices, a label.
        target: What is generated.
        after: Numbers of iterations; all are read off the same chains.
        samples: Chains per choice.
        seed: Fixes them.

    Returns:
        The mean of p(x_T|z): ``(iterations, choices, samples, *shape)``, on the CPU.
    """
    modality = run.modalities[given]
    cells = [modality.parse(choice) for choice in modality.choices()]
    with random_state(run.device, seed):
        x = Batch({given: modality.observe(torch.stack(cells).to(run.device))})
        shown = []
        for t, z in enumerate(iterate(run.model, x, samples, iterations=max(after)), start=1):
            if t in after:
                mean = run.model.decode(z, names=[target])[target].mean
                shown.append(mean.transpose(0, 1).cpu())
    return torch.stack(shown)


@dataclass(frozen=True, repr=False)
class Point(OneLine):
    """One likelihood after so many iterations.

    Attributes:
        model: Which.
        target: T.
        given: S.
        iteration: t; 0 where S has an encoder, and nothing iterates.
        nats: The mean over rows of the mean over N samples of log p(x_T|z_t).
        standard_error: Over rows.
    """

    model: str
    target: str
    given: str
    iteration: int
    nats: float
    standard_error: float


@torch.no_grad()
def likelihood_by_iteration(
    model: str,
    run: Run,
    split: Split,
    target: str,
    given: str,
    *,
    iterations: int,
    samples: int,
    chunk: int = 1000,
    seed: int = 0,
) -> list[Point]:
    """Measures eq. 11 after each iteration, all along the same chains.

    A run that has an encoder for what is given is measured once, without iterations.

    Args:
        model: What it is called.
        run: The trained run.
        split: The rows.
        target: T.
        given: S.
        iterations: T of iterative sampling.
        samples: N, chains per row.
        chunk: The most latents decoded at a time.
        seed: Fixes all draws.
    """
    batches = Batches(split, run.modalities, device=run.device, batch_size=ROWS)
    encodes = inferred(run.model, [given]) is not None
    blocks = []
    with random_state(run.device, seed):
        for x in batches.epoch(None, 0):
            seen = x.select([given])
            if encodes:
                steps: Iterator[Tensor] = iter([sample_latent(run.model, seen, samples)])
            else:
                steps = iterate(run.model, seen, samples, iterations=iterations)
            along = [log_likelihoods(run.model, x, z, [target], chunk)[target] for z in steps]
            blocks.append(torch.stack([log_p.mean(0) for log_p in along]))
    values = torch.cat(blocks, 1).double().cpu()  # (iterations, rows)
    errors = values.std(1) / values.shape[1] ** 0.5
    first = 0 if encodes else 1
    return [
        Point(model, target, given, t, mean, error)
        for t, (mean, error) in enumerate(
            zip(values.mean(1).tolist(), errors.tolist(), strict=True), start=first
        )
    ]


@torch.no_grad()
def latents(
    run: Run, split: Split, given: Sequence[str], *, iterations: int, seed: int = 0
) -> Tensor:
    """Draws one z per row, given some modalities: what decoders read, ``(rows, Z)``, on the CPU.

    Args:
        run: The trained run.
        split: The rows.
        given: S; iterative sampling where it has no encoder.
        iterations: T of it.
        seed: Fixes all draws.
    """
    batches = Batches(split, run.modalities, device=run.device, batch_size=ROWS)
    chains = None if inferred(run.model, given) is not None else iterations
    with random_state(run.device, seed):
        parts = [
            sample_latent(run.model, x.select(given), 1, iterations=chains)[0]
            for x in batches.epoch(None, 0)
        ]
        return run.model.decoder_input(torch.cat(parts)).cpu()
