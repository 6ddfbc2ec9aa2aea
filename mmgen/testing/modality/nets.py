"""Checks of a modality's nets: gradients, independence, devices, dtypes, replication."""

import copy
import traceback
from pathlib import Path
from unittest import SkipTest

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from mmgen.build import unchecked
from mmgen.modality import Modality
from mmgen.nets.replicate import Looped, vectorised
from mmgen.testing.modality.likelihood import base_of
from mmgen.testing.modality.made import LATENT, latent, observed, stored
from mmgen.testing.tools import OneDevice, explaining, require, seeded


@seeded
def check_gradients(modality: Modality) -> None:
    """Every parameter of both nets gets a gradient."""
    x, encoder, decoder = observed(modality, 7), modality.encoder(), modality.decoder(LATENT)
    for net in (encoder, decoder):
        for parameter in net.parameters():  # a last layer may start at zero, and block gradients
            nn.init.normal_(parameter, mean=0.01, std=0.1)
    losses = {
        "encoder": (encoder, encoder(x).square().mean()),
        "decoder": (decoder, decoder(latent(7)).log_prob(x).mean()),
    }
    for what, (net, loss) in losses.items():
        if loss.requires_grad:
            loss.backward()
        for name, parameter in net.named_parameters():
            if not parameter.requires_grad:
                continue
            grad = parameter.grad
            require(
                grad is not None and grad.any(),
                f"the {what}'s parameter {name} gets no gradient; use it in forward() without "
                "detach(), no_grad() or rounding, or remove it",
            )
            require(
                grad is None or grad.isfinite().all(),
                f"the gradient of the {what}'s parameter {name} is not finite; guard logarithms, "
                "roots and divisions",
            )


@seeded
def check_rows(modality: Modality) -> None:
    """In eval mode a row's result does not depend on the other rows."""
    inputs = {"encoder": observed(modality, 8), "decoder": latent(8)}
    for what, rows in inputs.items():
        net = _net(modality, what)
        one, other = (_values(net(torch.cat([rows[:1], rest]))) for rest in rows[1:7].split(3))
        require(
            torch.allclose(one[0], other[0], rtol=1e-4, atol=1e-5),
            f"a row of the {what} changes with the rest of its batch, even after eval(); "
            "normalise over the row, or with running statistics",
        )


@seeded
def check_builds(modality: Modality) -> None:
    """Each build has tensors of its own, and first weights of its own."""
    builds = {what: [_net(modality, what) for _ in range(2)] for what in ("encoder", "decoder")}
    seen: set[int] = set()
    for net in (net for nets in builds.values() for net in nets):
        own = {tensor.untyped_storage().data_ptr() for tensor in net.state_dict().values()} - {0}
        require(
            not own & seen,
            "two nets share a tensor; make every layer inside encoder() or decoder(), not once "
            "for all",
        )
        seen |= own
    for what, (first, second) in builds.items():
        pairs = list(zip(first.parameters(), second.parameters(), strict=True))
        require(
            not pairs or not all(torch.equal(one, other) for one, other in pairs),
            f"two builds of the {what} start from the same weights; draw them from torch's global "
            "random numbers, and seed nothing",
        )


@seeded
def check_state(modality: Modality) -> None:
    """The state dictionary holds all of a net: loaded into another build, it computes the same."""
    for what, rows in (("encoder", observed(modality, 3)), ("decoder", latent(3))):
        first, second = _net(modality, what), _net(modality, what)
        second.load_state_dict(first.state_dict())
        require(
            torch.allclose(_values(first(rows)), _values(second(rows)), rtol=1e-4, atol=1e-5),
            f"the {what}'s state_dict() does not hold all of it, so that a checkpoint would lose "
            "it; keep tensors as parameters or with register_buffer()",
        )


@seeded
def check_replicated(modality: Modality) -> None:
    """Copies of the encoder run as one wide net have a loop's values and gradients."""
    nets = [_net(modality, "encoder").double() for _ in range(3)]
    wide = vectorised(copy.deepcopy(nets))
    if wide is None:
        raise SkipTest("the encoder's copies run as a plain loop, as it has uncommon layers")
    x = observed(modality, 4).double().requires_grad_()
    loop = Looped(nets)
    one, many = wide.eval()(x), loop(x)
    require(
        one.shape == many.shape and torch.allclose(one, many),
        "the encoder's copies compute something else as one wide net; use plain layers, or a "
        "module of your own, which runs as a loop",
    )
    weights = torch.randn(one.shape[1:], dtype=x.dtype)
    for number in range(len(nets)):
        require(
            torch.allclose(
                _gradients(wide, one[number], weights, x),
                _gradients(loop, many[number], weights, x),
            ),
            "the encoder's copies get other gradients as one wide net; use each layer once",
        )


def _gradients(net: nn.Module, value: Tensor, weights: Tensor, x: Tensor) -> Tensor:
    """Returns the gradient of x and the squared length of that of all parameters, as one row."""
    inputs = [x, *net.parameters()]
    grads = torch.autograd.grad(
        value, inputs, weights, retain_graph=True, allow_unused=True, materialize_grads=True
    )
    length = sum((grad.square().sum() for grad in grads[1:]), start=x.new_zeros(()))
    return torch.cat([grads[0].flatten(), length.reshape(1)])


@seeded
def check_dtypes(modality: Modality) -> None:
    """Both nets move to float64, and stay in it."""
    x, z = observed(modality, 2).double(), latent(2).double()
    fix = "make tensors with dtype=x.dtype, and do not cast"
    for what, rows in (("encoder", x), ("decoder", z)):
        with explaining(f"the {what} does not run in float64", fix):
            value = _values(_net(modality, what).double()(rows))
        require(value.dtype == torch.float64, f"the {what} turns float64 into {value.dtype}; {fix}")


@seeded
def check_devices(modality: Modality) -> None:
    """Observing and both nets stay on their device: the meta device stands for any other."""
    fix = (
        "make tensors with device=x.device, keep constants with register_buffer(), and read no "
        "values with item() or numpy()"
    )
    _require_unvalidated(_net(modality, "decoder")(latent(3)))
    values = stored(modality, 3).to("meta")
    off = "it does not run on another device"
    # Distributions inside torch's own validate in any case: OneHotCategorical.
    with explaining(off, fix), OneDevice(), unchecked():  # type: ignore[no-untyped-call]
        with torch.device("meta"):
            encoder, decoder = modality.encoder(), modality.decoder(LATENT)
        x = modality.observe(values)
        _require_meta("observe()", x, fix)
        _require_meta("the encoder", encoder(x), fix)
        p = decoder(torch.empty(3, LATENT, device="meta"))
        _require_meta("the likelihood's mean", p.mean, fix)
        _require_meta("log_prob", p.log_prob(x), fix)
        if (drawn := _sample(p)) is not None:
            _require_meta("the likelihood's sample()", drawn, fix)


def _require_unvalidated(p: Distribution) -> None:
    p = base_of(p)  # Independent itself looks at no values
    require(
        not p._validate_args,  # noqa: SLF001
        f"{type(p).__name__} validates its values, for which it waits for the device in every "
        "step; build it with validate_args=False",
    )


def _sample(p: Distribution) -> Tensor | None:
    """Draws on the meta device; ``None`` where torch's own distribution cannot, as VonMises."""
    try:
        return p.sample()
    except (RuntimeError, NotImplementedError) as error:
        frames = traceback.extract_tb(error.__traceback__)
        if Path(frames[-1].filename).is_relative_to(Path(torch.__file__).parent):
            return None
        raise


def _require_meta(what: str, value: Tensor, fix: str) -> None:
    require(value.is_meta, f"{what} left the device of its input for {value.device}; {fix}")


def _net(modality: Modality, what: str) -> nn.Module:
    """Builds a net in eval mode."""
    return (modality.encoder() if what == "encoder" else modality.decoder(LATENT)).eval()


def _values(output: object) -> Tensor:
    """Returns features, or the mean of a likelihood."""
    values: Tensor = output if isinstance(output, Tensor) else output.mean  # type: ignore[attr-defined]
    return values
