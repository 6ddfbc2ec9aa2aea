"""Checks of a model's distributions: p(z), q(z | x_S), p(x_k | z), and drawing from them."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.distributions import Distribution

from mmgen.batch import Batch
from mmgen.errors import listed
from mmgen.inference.iterative import Partwise
from mmgen.inference.sample import infer, sample_latent
from mmgen.latent.base import Latent, sample
from mmgen.model import Model
from mmgen.subsets import Subset, proper
from mmgen.testing.model.setup import Setup, has_density, joint_posterior, known, latents
from mmgen.testing.tools import require, seeded

DRAWS = 4000
"""The draws that means are taken over."""

NARROWER = 0.8
"""The temperature at which a density is compared with the one at 1."""


@seeded
def check_prior(setup: Setup) -> None:
    """The prior is a Latent, one for all rows or one per row, of the shapes that it draws."""
    for model, x in setup.cases():
        for rows in (1, 5):
            given = known(model, x).slice(0, rows)
            p = _latent("prior()", model.prior(given))
            _check_latent("prior()", p, {(), (rows,)} if given else {()})


@seeded
def check_posterior(setup: Setup) -> None:
    """The posterior is a Latent with one z per row, or None; all modalities have one."""
    for model, x in setup.cases():
        event = tuple(model.prior(known(model, x)).event_shape)
        for rows in (1, 5):
            part = x.slice(0, rows)
            joint_posterior(model, part)
            for subset in [*proper(model.names), model.names]:
                what = f"posterior() of {', '.join(subset)}"
                q = _asked(model, part.select(subset), what)
                if q is None:
                    continue
                _check_latent(what, _latent(what, q), {(rows,)})
                require(
                    tuple(q.event_shape) == event,
                    f"{what} is of z {tuple(q.event_shape)}, but prior() of {event}; both are "
                    "distributions of the same z",
                )
        nothing = _asked(model, Batch({}), "posterior() of nothing")
        require(
            nothing is None,
            "posterior() of nothing gave a distribution; return None: z given nothing is the "
            "prior's",
        )
        q, other = joint_posterior(model, x), joint_posterior(model, _backwards(x))
        require(
            torch.allclose(q.mean, other.mean, rtol=1e-4, atol=1e-5),
            "posterior() depends on the order of the batch's modalities; go through self.names",
        )


@seeded
def check_decode(setup: Setup) -> None:
    """Likelihoods have z's batch shape, whatever it is, and the modality's shape."""
    for model, x in setup.cases():
        q, given = joint_posterior(model, x), x.select(model.decoder_given) or None
        z = q.rsample(torch.Size([3]))
        whole = model.decode(z, given)
        require(
            tuple(whole) == model.targets,
            f"decode() gave {listed(whole)}, not {listed(model.targets)} in that order",
        )
        for name, p in whole.items():
            _check_likelihood(model, name, p, (3, x.rows))
        flat = model.decode(z.flatten(0, 1), given and _repeated(given, 3))
        for name, p in flat.items():
            one, other = p.log_prob(x[name].repeat(3, 1)), whole[name].log_prob(x[name])
            require(
                torch.allclose(one, other.flatten(), rtol=1e-4, atol=1e-5),
                f"decode() of z (3, 5, ...) gives {name} another log p(x | z) than of the same z "
                "(15, ...); flatten all batch dimensions, as Model.decode does",
            )
        last = model.targets[-1]
        require(
            [*model.decode(z, given, [last])] == [last],
            f"decode() with names={[last]} gave other modalities; give those that are asked for",
        )


@seeded
def check_generation(setup: Setup) -> None:
    """All that it generates from gives z, by an encoder or by iterative sampling."""
    for model, x in setup.cases():
        if model.directions is None:
            event = tuple(model.imputed_posterior(x).event_shape)
            require(
                event == tuple(model.prior(Batch({})).event_shape),
                f"imputed_posterior() is of z {event}, not of prior()'s; all distributions of z "
                "are of one shape",
            )
        for given in _conditions(model):
            seen = x.select(given)
            few = 2 if infer(model, seen) is None else None
            _check_drawn(model, sample_latent(model, seen, 2, iterations=few), seen)
            if model.directions is None and 0 < len(given) < len(model.names):
                z = sample_latent(model, seen, 2, iterations=2, start="prior")
                _check_drawn(model, z, seen)
        if isinstance(model, Partwise):
            joined = model.join(model.encode_each(x))
            require(
                torch.allclose(joined.mean, model.imputed_posterior(x).mean, rtol=1e-4, atol=1e-5),
                "join(encode_each(x)) is not imputed_posterior(x); the first is used in its place "
                "by iterative sampling, to encode what is given once: make them agree, or write "
                "neither encode_each() nor join()",
            )


@seeded
def check_temperature(setup: Setup) -> None:
    """Temperature 0 is the mean of z; below 1, draws scatter less."""
    for model, x in setup.cases():
        for what, q in latents(model, x):
            at_mean = sample(q, 0.0, (2,))
            require(
                at_mean.shape == (2, *q.batch_shape, *q.event_shape)
                and torch.equal(at_mean[0], q.mean),
                f"{what}: the mean is {tuple(q.mean.shape)}, not the shape of z; give one z per "
                "row, which is what temperature 0 takes",
            )
            narrow, wide = (_scatter(sample(q, t, (DRAWS // 4,))) for t in (0.2, 1.0))
            require(
                narrow < 0.9 * wide,
                f"{what}: draws at temperature 0.2 scatter {narrow:.3g}, at 1 {wide:.3g}; "
                "tempered() multiplies all noise by the temperature",
            )


@seeded
def check_densities(setup: Setup) -> None:
    """Densities are those that z are drawn from: their ratios average to 1."""
    model, x = next(iter(setup.cases(rows=2)))
    with torch.no_grad():
        for what, q in latents(model, x):
            z, other = q.rsample(torch.Size([DRAWS])), q.tempered(NARROWER)
            if not has_density(what, q, z):
                continue
            ratio = (other.log_prob(z) - q.log_prob(z)).exp()
            mean, error = ratio.mean(0), ratio.std(0) / math.sqrt(DRAWS)
            require(
                ((mean - 1).abs() < 0.02 + 5 * error).all(),
                f"{what}: the density at temperature {NARROWER} over that at 1 is {_worst(mean)} "
                f"on average over {DRAWS} draws, not 1; make log_prob(), rsample() and tempered() "
                "fit each other",
            )


def _latent(what: str, q: object) -> Latent:
    require(
        isinstance(q, Latent),
        f"{what} gave {type(q).__name__}; give a mmgen.latent.base.Latent, such as "
        "mmgen.latent.gaussian.DiagonalGaussian",
    )
    assert isinstance(q, Latent)
    return q


def _asked(model: Model, x: Batch, what: str) -> Latent | None:
    """Asks for a posterior, which must not raise, whatever it is asked for."""
    try:
        return model.posterior(x)
    except Exception as error:
        raise AssertionError(
            f"{what} raised {type(error).__name__}; return None where no encoder was trained for "
            "just these modalities"
        ) from error


def _check_latent(what: str, q: Latent, batches: set[tuple[int, ...]]) -> None:
    batch, event = tuple(q.batch_shape), tuple(q.event_shape)
    expected = " or ".join(map(str, sorted(batches)))
    require(
        batch in batches and len(event) > 0,
        f"{what} has batch shape {batch} and event shape {event}, not {expected} and (Z,); the "
        "dimensions of z are its event",
    )
    z = q.rsample(torch.Size([2]))
    log_q = q.log_prob(z)
    for told, value, shape in (
        ("rsample((2,))", z, (2, *batch, *event)),
        ("mean", q.mean, (*batch, *event)),
        ("log_prob", log_q, (2, *batch)),
    ):
        require(
            tuple(value.shape) == shape,
            f"{what}: {told} has shape {tuple(value.shape)}, not {shape}; make it fit the batch "
            "and event shapes that it names",
        )
        require(
            value.isfinite().all(), f"{what}: {told} is not finite; keep variances above a floor"
        )
    require(
        isinstance(q.symbol, str) and bool(q.symbol.strip()) and "\n" not in q.symbol,
        f'{what} has symbol {q.symbol!r}; write how it is called: "q(z | x)"',
    )


def _check_likelihood(model: Model, name: str, p: object, batch: tuple[int, ...]) -> None:
    shape = tuple(model.modalities[name].shape)
    got = (tuple(p.batch_shape), tuple(p.event_shape)) if isinstance(p, Distribution) else p
    require(
        got == (batch, shape),
        f"decode() of z with batch shape {batch} gave {name} the shapes {got}, not {(batch, shape)}"
        "; see mmgen.nets.unflattened",
    )


def _check_drawn(model: Model, z: Tensor, given: Batch) -> None:
    event = tuple(model.prior(known(model, given)).event_shape)
    rows = (given.rows,) if given else ()
    require(
        tuple(z.shape) == (2, *rows, *event),
        f"z given {', '.join(given) or 'nothing'} has shape {tuple(z.shape)}, not "
        f"{(2, *rows, *event)}; all distributions of z are of one shape",
    )
    require(z.isfinite().all(), f"z given {', '.join(given) or 'nothing'} is not finite")


def _conditions(model: Model) -> list[Subset]:
    """Returns what it can be given: anything, or C, or C and T."""
    if model.directions is not None:
        return [model.directions.given, model.names]
    return [(), *proper(model.names), model.names]


def _backwards(x: Batch) -> Batch:
    return Batch({n: x[n] for n in reversed([*x])})


def _repeated(x: Mapping[str, Tensor], times: int) -> Batch:
    return Batch({n: v.repeat(times, *[1] * (v.dim() - 1)) for n, v in x.items()})


def _scatter(z: Tensor) -> float:
    return float(z.detach().var(0).sum())


def _worst(ratio: Tensor) -> str:
    return f"{max(ratio.flatten().tolist(), key=lambda each: abs(each - 1)):.3g}"
