"""Blocks that modalities are made of: MLPs, convolutions, likelihoods.

Nets are plain ``nn.Sequential`` of common layers wherever possible, because those are the ones
that :mod:`mmgen.nets.replicate` runs as one wide operation.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    Distribution,
    Independent,
    Normal,
    OneHotCategorical,
    constraints,
)


def mlp(
    in_features: int,
    widths: Sequence[int],
    out_features: int | None = None,
    *,
    batch_norm: bool = False,
) -> nn.Sequential:
    """Builds linear layers with ReLU between: ``(B, in_features) -> (B, out)``.

    Args:
        in_features: The number of inputs.
        widths: The widths of the hidden layers, each followed by a ReLU.
        out_features: The width of a last, linear layer; without it the net ends in a ReLU.
        batch_norm: Whether a batch normalisation stands before every ReLU but the first.

    Examples:
        >>> mlp(784, [512, 512])
        Sequential(
          (0): Linear(in_features=784, out_features=512, bias=True)
          (1): ReLU()
          (2): Linear(in_features=512, out_features=512, bias=True)
          (3): ReLU()
        )
    """
    layers: list[nn.Module] = []
    for before, after in pairwise([in_features, *widths]):
        normed = [nn.BatchNorm1d(after)] if batch_norm and layers else []
        layers += [nn.Linear(before, after), *normed, nn.ReLU()]
    if out_features is not None:
        layers.append(nn.Linear([in_features, *widths][-1], out_features))
    return nn.Sequential(*layers)


def convolutional_encoder(
    shape: tuple[int, int, int], channels: Sequence[int], *, batch_norm: bool = False
) -> nn.Sequential:
    """Builds 4×4 convolutions of stride 2: ``(B, C, H, W) -> (B, features)``.

    Each layer halves height and width, rounding down, and is followed by a ReLU; with
    ``batch_norm``, all but the first by a batch normalisation before it.

    Raises:
        ValueError: If the picture is too small for that many halvings.
    """
    _halvings(shape, channels)
    layers: list[nn.Module] = []
    for before, after in pairwise([shape[0], *channels]):
        normed = [nn.BatchNorm2d(after)] if batch_norm and layers else []
        layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), *normed, nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten())


def convolutional_decoder(
    in_features: int,
    shape: tuple[int, int, int],
    channels: Sequence[int],
    *,
    batch_norm: bool = False,
) -> nn.Sequential:
    """Builds the mirror image of the encoder: ``(B, in_features) -> (B, *shape)``.

    ``channels`` are given in the encoder's order, from the picture inwards. The output is linear;
    with ``batch_norm``, a batch normalisation stands before every ReLU but the first.
    """
    sizes = _halvings(shape, channels)
    height, width = sizes[-1]
    innermost = channels[-1]
    layers: list[nn.Module] = [
        nn.Linear(in_features, innermost * height * width),
        nn.ReLU(),
        nn.Unflatten(1, (innermost, height, width)),
    ]
    outwards = [*reversed(channels), shape[0]]
    for (before, after), size in zip(pairwise(outwards), reversed(sizes[:-1]), strict=True):
        odd = (size[0] % 2, size[1] % 2)
        layers += [
            nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, output_padding=odd),
            *([nn.BatchNorm2d(after)] if batch_norm else []),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers[: -2 if batch_norm else -1])  # the output is linear


def _halvings(shape: tuple[int, int, int], channels: Sequence[int]) -> list[tuple[int, int]]:
    sizes = [(shape[1], shape[2])]
    for _ in channels:
        sizes.append((sizes[-1][0] // 2, sizes[-1][1] // 2))
    if not channels or 0 in sizes[-1]:
        raise ValueError(
            f"{len(channels)} convolutions of stride 2 do not fit a picture of "
            f"{shape[1]}x{shape[2]} pixels"
        )
    return sizes


class Log1p(nn.Module):
    """log(1 + x), elementwise: of counts, whose size varies by orders of magnitude."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(*)``, above −1, to ``(*)``."""
        return x.log1p()


class Likelihood(nn.Module):
    """p(x | z): a net for the parameters, and the family that turns them into a distribution.

    Parameters leave in the dtype of the input: bfloat16 autocast stays inside the net, and the
    likelihood is computed in full precision.

    Args:
        net: ``(B, in_features) -> (B, parameters)``.
        family: Parameters to a distribution of batch shape ``(B,)``.
    """

    def __init__(self, net: nn.Module, family: Callable[[Tensor], Distribution]) -> None:
        super().__init__()
        self.net = net
        self.family = family

    def forward(self, h: Tensor) -> Distribution:
        """Maps ``(B, in_features)`` to a distribution of batch shape ``(B,)``."""
        return self.family(self.net(h).to(h.dtype))


class LearnedDeviation(nn.Module):
    """p(x | z) of real values around a net's output, with one standard deviation, which is learned.

    Args:
        net: ``(B, in_features) -> (B, *)``.
        family: The net's output and the deviation to a distribution of batch shape ``(B,)``.

    References:
        O. Rybkin, K. Daniilidis, S. Levine, "Simple and effective VAE training with calibrated
        decoders", ICML 2021.
    """

    def __init__(self, net: nn.Module, family: Callable[[Tensor, Tensor], Distribution]) -> None:
        super().__init__()
        self.net = net
        self.family = family
        self.log_deviation = nn.Parameter(torch.zeros(()))

    def forward(self, h: Tensor) -> Distribution:
        """Maps ``(B, in_features)`` to a distribution of batch shape ``(B,)``."""
        # Not below exp(-6): values that are reproduced exactly would draw it to 0.
        deviation = (F.softplus(self.log_deviation + 6) - 6).exp()
        return self.family(self.net(h).to(h.dtype), deviation)


# The usual families. None validates its values, which would wait for the device in every step.


def bernoulli(logits: Tensor) -> Distribution:
    """Returns independent values in {0, 1}: parameters ``(B, *event)``, event ``(*event)``."""
    return _independent(_Bernoulli(logits=logits, validate_args=False))


def continuous_bernoulli(logits: Tensor) -> Distribution:
    """Returns independent values in [0, 1], normalised unlike a Bernoulli of grey values.

    References:
        G. Loaiza-Ganem, J. P. Cunningham, "The continuous Bernoulli: fixing a pervasive error in
        variational autoencoders", NeurIPS 2019.
    """
    return _independent(ContinuousBernoulli(logits=logits, validate_args=False))


def gaussian(mean: Tensor, standard_deviation: float | Tensor) -> Distribution:
    """Returns independent real values of one variance, around ``mean`` ``(B, *event)``."""
    if isinstance(standard_deviation, Tensor):
        deviation = standard_deviation.expand_as(mean)
    else:
        deviation = torch.full_like(mean, standard_deviation)
    return _independent(Normal(mean, deviation, validate_args=False))


def gaussian_with_variance(parameters: Tensor, floor: float = 1e-4) -> Distribution:
    """Returns independent real values whose variances the net gives too, as it is sure or not.

    Args:
        parameters: ``(B, 2·C, *rest)``: the means, then softplus⁻¹ of the variances less the floor.
        floor: The least variance. Rounded or constant values would draw it to 0, and their density
            to infinity.

    Returns:
        A distribution of event shape ``(C, *rest)``.
    """
    mean, raw = parameters.chunk(2, dim=1)
    deviation = (F.softplus(raw) + floor).sqrt()
    return _independent(Normal(mean, deviation, validate_args=False))


def one_hot(logits: Tensor) -> Distribution:
    """Returns a one-hot categorical distribution over n classes, from logits ``(B, n)``."""
    return _OneHot(logits)


class Averaged(Distribution):
    """A distribution whose log density is divided by a number, as by that of the colours.

    Args:
        base: The distribution, of which all else is.
        by: The number.

    Examples:
        >>> p = Averaged(gaussian(torch.zeros(2, 3, 8, 8), 1.0), 3)
        >>> p.log_prob(torch.zeros(2, 3, 8, 8)) / 64  # −log √2π, whatever the number of colours
        tensor([-0.9189, -0.9189])
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, base: Distribution, by: int) -> None:
        self.base, self.by = base, by
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Returns log p(value) / by, in nats."""
        return self.base.log_prob(value) / self.by

    def entropy(self) -> Tensor:
        """Returns the mean of −:meth:`log_prob`."""
        return self.base.entropy() / self.by

    @property
    def has_rsample(self) -> bool:  # type: ignore[override]
        """Whether gradients flow through what is drawn."""
        return self.base.has_rsample

    @property
    def support(self) -> Any:
        """What values can be."""
        return self.base.support

    @property
    def mean(self) -> Tensor:
        """The mean."""
        return self.base.mean

    @property
    def mode(self) -> Tensor:
        """The mode."""
        return self.base.mode

    @property
    def variance(self) -> Tensor:
        """The variance."""
        return self.base.variance

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draws values."""
        return self.base.sample(sample_shape)

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        """Draws values that gradients flow through."""
        return self.base.rsample(sample_shape)

    def __repr__(self) -> str:
        return f"Averaged({type(self.base).__name__}, {self.by})"


def _independent(each: Distribution) -> Distribution:
    dimensions = len(each.batch_shape) - 1
    return Independent(each, dimensions, validate_args=False)


class _Softplus(torch.autograd.Function):
    """log(1 + exp(x)), to within rounding of 1: a sixth of the time of torch's own on a CPU.

    torch keeps the digits of values near 0 by log1p, one number after the other. A log density adds
    values up, to which those digits are nothing; the gradient here is exact.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        value: Tensor = x.abs().neg_().exp_().add_(1).log_().add_(x.clamp_min(0))
        return value

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:  # noqa: ARG004
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        product: Tensor = gradient * x.sigmoid()
        return product


class _Bernoulli(Bernoulli):
    # torch's own, a cross-entropy, takes up to three times as long on many rows on a CPU.
    def log_prob(self, value: Tensor) -> Tensor:
        if self.logits.is_cuda:  # there torch's own is one kernel, and ours would be six
            return value * self.logits - F.softplus(self.logits)
        # In place: on a CPU, to take memory for one more result costs as much as the sum.
        return (value * self.logits).sub_(_Softplus.apply(self.logits))

    # torch's own draws one number after the other on a CPU, which takes as long as a whole net.
    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        with torch.no_grad():
            p = self.probs.expand(self._extended_shape(sample_shape))
            return (torch.rand_like(p) < p).to(p.dtype)


class _OneHot(OneHotCategorical):
    # torch's own validates its logits whatever it is told.
    def __init__(self, logits: Tensor) -> None:
        self._categorical = Categorical(logits=logits, validate_args=False)
        Distribution.__init__(self, logits.shape[:-1], logits.shape[-1:], validate_args=False)

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008
        with torch.no_grad():
            p = self.probs.expand(self._extended_shape(sample_shape))
            until = p.cumsum(-1)
            u = torch.rand_like(p[..., :1]) * until[..., -1:]  # rounding may end below 1
            number = (until <= u).sum(-1, keepdim=True).clamp(max=p.shape[-1] - 1)
            return (torch.arange(p.shape[-1], device=p.device) == number).to(p.dtype)
