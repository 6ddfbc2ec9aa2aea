"""Checks that a model learns, and that its numbers are likelihoods: bound ≤ log p(x)."""

import math
from unittest import SkipTest

import torch
from torch import Tensor

from mmgen.batch import Batch
from mmgen.inference.importance import importance_sample
from mmgen.model import Model, log_likelihoods
from mmgen.settings import TrainConfig
from mmgen.testing.model import toys
from mmgen.testing.model.setup import Setup, known
from mmgen.testing.tools import require, seeded
from mmgen.training.loop import Training

ROWS = 24
"""The rows whose likelihoods are compared."""

DRAWS = 4000
"""The z that each likelihood is a mean over."""

STEPS = 80
"""The steps after which a bound is tight, and what is none has risen above log p(x)."""

FEW = 40
"""The steps after which a loss is lower."""

NOISE = 0.3
"""The nats by which log p(x) may fall where there is little to learn."""

SLACK = 0.03
"""Nats, beside five standard errors: the logarithm of a mean is a little too low."""


@seeded
def check_learns(setup: Setup) -> None:
    """A few steps on few rows lower the loss that it is chosen by, and make rows likelier."""
    modalities = toys.mixed(3)
    model = setup.build(modalities)
    x = toys.observed(modalities, 16).select(model.names)
    before, log_p = _chosen_by(model, x), _likelihood(model, x)
    _train(model, x, FEW, 0.005)
    after = _chosen_by(model, x)
    require(
        after < before,
        f"after {FEW} steps on 16 rows the loss that it is chosen by is {after:.4g}, "
        f"from {before:.4g}; see which terms train which group of parameters, and how fast",
    )
    then = _likelihood(model, x)
    require(
        then > log_p - NOISE,
        f"after {FEW} steps on 16 rows log p(x) is {then:.4g}, from {log_p:.4g}; what is "
        "minimised is Σ weight · value: of a log-likelihood the weight is −1",
    )


def _train(model: Model, x: Batch, steps: int, rate: float) -> None:
    config = TrainConfig(epochs=1, learning_rate=rate, device="cpu")
    training = Training(model.train(), config, torch.device("cpu"))
    for _ in range(steps):
        training.step(x, progress=1.0)
    model.eval()


@torch.no_grad()
def _chosen_by(model: Model, x: Batch) -> float:
    torch.manual_seed(5)
    return float(torch.stack([model(x).bound() for _ in range(10)]).mean())


@torch.no_grad()
def _likelihood(model: Model, x: Batch) -> float:
    """Returns the mean log p(x) of rows, by importance weights."""
    torch.manual_seed(5)
    return _weighed(model, x, 200)[0]


@seeded
def check_evidence(setup: Setup) -> None:
    """Trained on Gaussian rows: bound ≤ log p(x), and importance weights average to p(x).

    log p(x) is the mean of p(x | z) over many z of the prior, for one latent factor. Training
    raises whatever is no bound above it, and brings the posterior to where weights are even.
    """
    modalities = toys.linear()
    with torch.enable_grad():
        model = setup.build(modalities, latent=1).double()
        rows = Batch({n: v.double() for n, v in toys.factored(modalities, 4 * ROWS).items()})
        rows = rows.select(model.names)
        _train(model, rows, STEPS, 0.05)
    x = rows.slice(0, ROWS)
    with torch.no_grad():
        truth, error = _exact(model, x)
        _check_weights(model, x, truth, error)
        _check_bound(model, x, truth, error)


def _check_bound(model: Model, x: Batch, truth: float, error: float) -> None:
    many = Batch({n: v.repeat(64, 1) for n, v in x.items()})
    terms = [term for term in model(many) if term.bound]
    if not terms:
        raise SkipTest("no term is marked as part of a bound on log p(x)")
    each = torch.stack([-term.weight * term.value for term in terms]).sum(0).reshape(64, -1)
    bound = float(each.mean())
    noise = float((each.var(0).sum()).sqrt()) / (each.shape[1] * math.sqrt(64))
    require(
        bound <= truth + 5 * math.hypot(error, noise) + SLACK,
        f"what its terms call a bound is {bound:.4g} nats, above log p(x) = {truth:.4g}; correct "
        "their values and weights, or mark those that are no part of a bound on log p(x) with "
        "bound=False",
    )


def _check_weights(model: Model, x: Batch, truth: float, error: float) -> None:
    estimate, noise = _weighed(model, x, DRAWS)
    require(
        abs(estimate - truth) <= 5 * math.hypot(error, noise) + SLACK,
        f"importance weights average to log p(x) = {estimate:.4g} nats, but z of the prior to "
        f"{truth:.4g}; prior() and posterior() must return the densities that their z are drawn "
        "from, and posterior() the one that objective() trains",
    )


def _weighed(model: Model, x: Batch, draws: int) -> tuple[float, float]:
    """Returns the mean log p(x) of rows, and its standard error: by importance weights."""
    drawn = importance_sample(model, x, model.names, draws)
    log_p = log_likelihoods(model, x, drawn.z)
    return _log_mean(drawn.log_weight + torch.stack([*log_p.values()]).sum(0))


def _exact(model: Model, x: Batch) -> tuple[float, float]:
    """Returns the mean log p(x) of rows, and its standard error: over z of the prior."""
    p = model.prior(known(model, x))
    z = p.rsample(torch.Size([DRAWS]))
    if not p.batch_shape:
        z = z.unsqueeze(1).expand(DRAWS, x.rows, *p.event_shape)
    return _log_mean(torch.stack([*log_likelihoods(model, x, z).values()]).sum(0))


def _log_mean(log_weights: Tensor) -> tuple[float, float]:
    """Returns log of the mean weight ``(draws, B)``, averaged over rows, and its error at most."""
    each = log_weights.logsumexp(0) - math.log(len(log_weights))
    weights = (log_weights - each).exp()
    return float(each.mean()), float((weights.std(0) / math.sqrt(len(weights))).mean())
