"""The conformance checks: what every modality must keep, for its author to run.

A plugin's whole test file::

    @parametrize_with_checks(Tone(pitch=440), Tone(pitch=880))
    def test_contract(modality, check):
        check(modality)

Each check is a plain function of a modality that raises ``AssertionError``: what is wrong, and how
to mend it. One that does not apply raises ``unittest.SkipTest``, which pytest understands.
``mmgen plugins check KIND`` runs the same list.
"""

import copy
import json
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import wraps
from itertools import chain, product
from math import pi, prod
from typing import TYPE_CHECKING, Any
from unittest import SkipTest

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from mmgen.modality import Modality
from mmgen.nets.replicate import Looped, vectorised

if TYPE_CHECKING:
    import pytest

Check = Callable[[Modality], None]
CHECKS: list[Check] = []
"""Every check, in the order in which they run."""

LATENT = 5
MOST_EVENTS = 2**12


@dataclass(frozen=True)
class CheckResult:
    """What a check found.

    Attributes:
        name: The check's: ``"shapes"``.
        passed: False if the contract is broken. A check that does not apply passes.
        message: What is wrong and how to mend it, or why the check does not apply.
    """

    name: str
    passed: bool
    message: str = ""


def run_checks(modality: Modality) -> list[CheckResult]:
    """Runs every check and raises nothing."""
    return [_run(check, modality) for check in CHECKS]


def parametrize_with_checks(*modalities: Modality) -> "pytest.MarkDecorator":
    """Decorates a test ``(modality, check)``: it runs for every check of every modality."""
    import pytest

    pairs = [
        pytest.param(modality, check, id=f"{modality.kind}{number or ''}-{_name(check)}")
        for number, modality in enumerate(modalities)
        for check in CHECKS
    ]
    return pytest.mark.parametrize(("modality", "check"), pairs)


def _run(check: Check, modality: Modality) -> CheckResult:
    name = _name(check)
    try:
        check(modality)
    except AssertionError as error:
        return CheckResult(name, False, str(error))
    except SkipTest as reason:
        return CheckResult(name, True, f"does not apply: {reason}")
    except Exception as error:
        return CheckResult(name, False, f"raised {type(error).__name__}: {error}")
    return CheckResult(name, True)


def _name(check: Check) -> str:
    return check.__name__.removeprefix("check_")


def _listed(check: Check) -> Check:
    """Adds a check to the list; it runs on random numbers of its own, the same each time."""

    @wraps(check)
    def seeded(modality: Modality) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            check(modality)

    CHECKS.append(seeded)
    return seeded


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _stored(modality: Modality, rows: int) -> Tensor:
    return modality.example(torch.arange(rows), _generator())


def _observed(modality: Modality, rows: int) -> Tensor:
    return modality.observe(_stored(modality, rows), _generator())


def _latent(rows: int) -> Tensor:
    return torch.randn(rows, LATENT, generator=_generator())


def _seen(modality: Modality, rows: int) -> list[tuple[str, Tensor]]:
    with torch.no_grad():
        mean = modality.decoder(LATENT)(_latent(rows)).mean
    return [("observations", _observed(modality, rows)), ("means", mean)]


def _state(*nets: nn.Module) -> Iterable[Tensor]:
    return chain.from_iterable((*net.parameters(), *net.buffers()) for net in nets)


@_listed
def check_configuration(modality: Modality) -> None:
    """A configuration survives JSON and gives an equal modality; unknown keys are refused."""
    settings = json.loads(json.dumps(modality.configuration()))
    kind = settings.pop("kind")
    _require(kind == type(modality).kind, f"configuration() names kind {kind!r}; do not change it")
    again = type(modality)(**settings)
    _require(
        again == modality,
        f"built again from configuration() it is {again!r}, not {modality!r}; "
        "keep all that matters in fields that JSON can hold",
    )
    model_config = type(modality).model_config
    _require(
        model_config.get("extra") == "forbid" and bool(model_config.get("frozen")),
        'model_config must keep extra="forbid" and frozen=True, or misspelt settings pass in silence',
    )


@_listed
def check_example(modality: Modality) -> None:
    """Synthetic values come one a class number, and depend on the generator alone."""
    before = torch.get_rng_state()
    first, second = _stored(modality, 7), _stored(modality, 7)
    _require(len(first) == 7, f"example() gave {len(first)} rows for 7 class numbers")
    _require(
        torch.equal(first, second) and torch.equal(before, torch.get_rng_state()),
        "example() does not depend on its generator alone; pass generator=generator to torch",
    )


@_listed
def check_shapes(modality: Modality) -> None:
    """Shapes are as promised for batches of 1, 2 and 7, in the default dtype."""
    shape, features = tuple(modality.shape), set()
    encoder, decoder = modality.encoder().eval(), modality.decoder(LATENT).eval()
    for rows in (1, 2, 7):
        x = _observed(modality, rows)
        wanted = (rows, *shape)
        _require(
            x.shape == wanted and x.dtype == torch.get_default_dtype(),
            f"observe() gave {x.dtype} {tuple(x.shape)}, but shape promises float {wanted}",
        )
        h = encoder(x)
        _require(
            h.dim() == 2 and len(h) == rows,
            f"the encoder gave {tuple(h.shape)} for {rows} rows; return (B, features), flattened",
        )
        features.add(h.shape[1])
        p = decoder(_latent(rows))
        _require(
            isinstance(p, Distribution),
            f"the decoder returned {type(p).__name__}; return a torch Distribution, as Likelihood",
        )
        _require(
            p.batch_shape == (rows,) and p.event_shape == shape,
            f"the likelihood has batch {tuple(p.batch_shape)} and event {tuple(p.event_shape)}, not "
            f"({rows},) and {shape}; wrap it: Independent(..., {len(shape)})",
        )
        for what, given in (("mean", p.mean), ("sample()", p.sample())):
            _require(given.shape == wanted, f"the likelihood's {what} is {tuple(given.shape)}")
        got = tuple(p.log_prob(x).shape)
        _require(got == (rows,), f"log_prob gave {got} for {rows} rows; sum over the event")
    _require(len(features) == 1, f"the number of features varies with the batch: {features}")


@_listed
def check_finite(modality: Modality) -> None:
    """Observations, features, means, samples and log-likelihoods are finite, for wide z too."""
    x = _observed(modality, 7)
    p = modality.decoder(LATENT)(10 * _latent(7))
    values = {"observe()": x, "the encoder": modality.encoder()(x), "the likelihood's mean": p.mean}
    values |= {"the likelihood's sample()": p.sample(), "log_prob": p.log_prob(x)}
    for what, value in values.items():
        _require(
            bool(value.isfinite().all()),
            f"{what} gave {_first(value, ~value.isfinite())}; guard logarithms and divisions",
        )


def _first(values: Tensor, where: Tensor) -> float:
    return float(values[where].flatten()[0])


@_listed
def check_gradients(modality: Modality) -> None:
    """Every parameter of both nets gets a gradient."""
    x = _observed(modality, 7)
    encoder, decoder = modality.encoder(), modality.decoder(LATENT)
    for what, net in (("encoder", encoder), ("decoder", decoder)):
        with torch.no_grad():  # a last layer of zeros is fine: off its start, gradients flow
            for parameter in net.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
        loss = net(x).square().sum() if net is encoder else net(_latent(7)).log_prob(x).sum()
        if loss.requires_grad:
            loss.backward()
        for name, parameter in net.named_parameters():
            grad = parameter.grad
            _require(
                not parameter.requires_grad or (grad is not None and bool(grad.any())),
                f"{what} parameter {name} gets no gradient; use it in forward(), without detach(), "
                "rounding or no_grad(), or remove it",
            )
            finite = grad is None or bool(grad.isfinite().all())
            _require(finite, f"the gradient of {what} parameter {name} is not finite")


@_listed
def check_support(modality: Modality) -> None:
    """The likelihood's parameters are possible, and its support holds observations and samples."""
    x = _observed(modality, 7)
    p = modality.decoder(LATENT)(10 * _latent(7))
    base = _base(p)
    for name, constraint in base.arg_constraints.items():
        # A parameter that was not given is worked out from the one that was.
        if isinstance(constraint, torch.distributions.constraints.Constraint) and (
            name in vars(base) or name in vars(getattr(base, "_categorical", base))
        ):
            _require(
                bool(constraint.check(getattr(base, name)).all()),
                f"the {type(base).__name__}'s {name} leave {constraint}; "
                "are logits taken for probabilities? Name the argument, as in logits=...",
            )
    for what, value in (("observe()", x), ("the likelihood's sample()", p.sample())):
        inside = p.support.check(value)
        _require(
            bool(inside.all()),
            f"{what} gave values outside the likelihood's support {p.support}; "
            "scale observations, or choose a likelihood, so that the two fit",
        )


def _base(p: Distribution) -> Distribution:
    while isinstance(p, Independent):
        p = p.base_dist
    return p


@_listed
def check_normalised(modality: Modality) -> None:
    """The likelihood of all possible observations adds up to one, where they can be listed."""
    p = modality.decoder(LATENT).double()(_latent(3).double())
    base = _base(p)
    if base.has_enumerate_support:
        values = base.enumerate_support(expand=False).reshape(-1, *base.event_shape)
        count = prod(p.event_shape) // prod(base.event_shape)
        if len(values) ** count > MOST_EVENTS:
            raise SkipTest(f"{len(values)}^{count} possible observations are too many to add up")
        rows = [torch.stack(row) for row in product(values, repeat=count)]
        events = torch.stack(rows).reshape(-1, 1, *p.event_shape)
        total = p.log_prob(events).exp().sum(0)
    elif prod(p.event_shape) == 1:
        # x = centre + scale · tan(θ) reaches heavy tails; the midpoint rule avoids both ends.
        draws = p.sample(torch.Size([1000])).quantile(torch.tensor([0.25, 0.5, 0.75]).double())
        theta = (torch.arange(200_000).double() + 0.5) / 200_000 * pi - pi / 2
        x = draws[1] + (draws[2] - draws[0]) * theta.tan()
        events = x.reshape(-1, 1, *p.event_shape)
        density = p.log_prob(events).exp() * p.support.check(events)
        slope = (draws[2] - draws[0]) / theta.cos().square()
        total = (density * slope.unsqueeze(1)).sum(0) * pi / 200_000
    else:
        raise SkipTest("a continuous observation of many values cannot be added up")
    _require(
        bool(((total - 1).abs() < 0.01).all()),
        f"p(x | z) adds up to {total.tolist()} over all x, not to 1; correct log_prob",
    )


@_listed
def check_rows_are_independent(modality: Modality) -> None:
    """In eval mode a row's result does not depend on the other rows."""
    encoder, decoder = modality.encoder().eval(), modality.decoder(LATENT).eval()
    x, z = _observed(modality, 8), _latent(8)
    for what, net, rows in (("encoder", encoder, x), ("decoder", decoder, z)):
        together, others = (net(torch.cat([rows[:1], rest])) for rest in (rows[1:4], rows[4:7]))
        if what == "decoder":
            together, others = together.mean, others.mean
        _require(
            torch.allclose(together[0], others[0], rtol=1e-4, atol=1e-5),
            f"a row of the {what} changes with the rest of its batch, even in eval(); "
            "normalise with running statistics, or within the row",
        )
