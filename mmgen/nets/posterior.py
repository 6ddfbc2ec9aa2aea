"""Gaussian posteriors: q(z | x_S) for every subset S of the modalities, as one tensor.

References:
    M. Suzuki, K. Nakayama, Y. Matsuo, "Deep generative models for bidirectional generation
    between different modalities", IPSJ Journal 59(3), 2018, equations 5 and 10.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from mmgen.modality import Modality
from mmgen.nets.replicate import replicate
from mmgen.subsets import Subset

if TYPE_CHECKING:
    from mmgen.nets.flow import FlowPosterior

    Gaussian = Independent[Normal]
else:
    Gaussian = Independent

VARIANCE_FLOOR = 1e-6
"""Added to every variance: a collapsed one would make densities infinite."""


def gaussian(parameters: Tensor) -> Gaussian:
    """Reads a diagonal Gaussian off ``(..., 2Z)``: mean, and softplus to the variance.

    Returns:
        A distribution of batch shape ``(...)`` and event shape ``(Z,)``.
    """
    # Out of autocast: densities and divergences need full precision.
    full = parameters.to(torch.promote_types(parameters.dtype, torch.float32))
    mean, raw = full.chunk(2, dim=-1)
    return normal(mean, (F.softplus(raw) + VARIANCE_FLOOR).sqrt())


def normal(mean: Tensor, standard_deviation: Tensor) -> Gaussian:
    """Returns N(mean, diag(standard_deviation²)), event shape ``(Z,)``."""
    # Validation would read the values, a synchronisation of the device in every step.
    base = Normal(mean, standard_deviation, validate_args=False)
    return Independent(base, 1, validate_args=False)


def draw(
    q: "Gaussian | FlowPosterior", temperature: float = 1.0, samples: Sequence[int] = ()
) -> Tensor:
    """Draws z ``(*samples, *batch, Z)``, its noise u ~ N(0, I) multiplied by a temperature.

    Below 1, z come nearer to the mean (of a flow: to its centre), which 0 gives itself: they differ
    less from each other, and more of them look like what was given.

    Args:
        q: A Gaussian, or a flow over one.
        temperature: τ ≥ 0.
        samples: How many a row.

    References:
        D. P. Kingma, P. Dhariwal, "Glow: Generative Flow with Invertible 1x1 Convolutions",
        NeurIPS 2018, section 6.
    """
    if temperature == 0:
        return q.mean.expand(*samples, *q.mean.shape)
    if temperature != 1:
        q = tempered(q, temperature) if isinstance(q, Independent) else q.tempered(temperature)
    return q.rsample(torch.Size(samples))


def tempered(q: Gaussian, temperature: float) -> Gaussian:
    """Returns N(mean, τ² · variance)."""
    return normal(q.base_dist.loc, temperature * q.base_dist.scale)


def standard_normal(like: Tensor) -> Gaussian:
    """Returns N(0, I) of the shape, dtype and device of ``like``, the prior of z."""
    return normal(torch.zeros_like(like), torch.ones_like(like))


def rows(q: Gaussian, index: int | slice) -> Gaussian:
    """Returns the part of a Gaussian's batch: ``rows(q, -1)`` of batch (S, B) is batch (B,)."""
    return normal(q.base_dist.loc[index], q.base_dist.scale[index])


class GaussianHead(nn.Module):
    """Features ``(..., F)`` to a diagonal Gaussian over ``(Z,)``."""

    def __init__(self, in_features: int, latent: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_features, 2 * latent)

    def forward(self, h: Tensor) -> Gaussian:
        """Maps features ``(..., F)`` to a Gaussian of batch shape ``(...)``."""
        return gaussian(self.linear(h))


class SubsetEncoder(nn.Module):
    """q(z | x_S) for S in a list of subsets: Gaussians of batch shape ``(S, B)``.

    Each subset has its own copy of its members' encoder nets, as many as subsets contain the
    modality: 2^(K−1)·K nets for all subsets. Their features are concatenated and go through the
    fusion layers and a linear head.

    Args:
        modalities: The K modalities by name.
        subsets: The subsets that get an encoder, in the order of the output.
        latent: Z, the size of z.
        fusion: The widths of the layers between concatenation and head, each with a ReLU.
    """

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        subsets: Sequence[Subset],
        latent: int,
        fusion: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.subsets = tuple(subsets)
        self.names = tuple(n for n in modalities if any(n in s for s in subsets))
        self.members = _members(self.names, subsets)
        # A list, not a dict: a modality may be called "type" or "values".
        self.encoders = nn.ModuleList(
            replicate(modalities[n].encoder, len(self.members[n])) for n in self.names
        )
        widths = [*fusion, 2 * latent]
        inputs = {n: features(net, modalities[n].shape) for n, net in self.nets().items()}
        self.first = SumOfProjections(inputs, subsets, widths[0])
        self.rest = nn.ModuleList(
            BatchedLinear(len(subsets), before, after) for before, after in pairwise(widths)
        )

    def nets(self) -> dict[str, nn.Module]:
        """Returns the replicated encoder nets by modality."""
        return dict(zip(self.names, self.encoders, strict=True))

    def forward(self, x: Mapping[str, Tensor], subset: Subset | None = None) -> Gaussian:
        """Returns Gaussians of batch shape ``(S, B)``, read off what :meth:`encode` returns."""
        return gaussian(self.encode(x, subset))

    def encode(self, x: Mapping[str, Tensor], subset: Subset | None = None) -> Tensor:
        """Encodes ``{name: (B, *shape)}`` to what posteriors are read off.

        Args:
            x: The observations; only those of ``subset`` if that is given.
            subset: One of :attr:`subsets`, to run its nets alone.

        Returns:
            Parameters ``(S, B, 2Z)``, S = 1 if ``subset`` is given.
        """
        if subset is None:
            return self.finish(self.first({n: net(x[n]) for n, net in self.nets().items()}))
        return self.join(self.parts({n: x[n] for n in subset}, subset), subset)

    def parts(self, x: Mapping[str, Tensor], subset: Subset) -> dict[str, Tensor]:
        """Encodes some of a subset's members, each by itself.

        Args:
            x: Observations ``(B, *shape)`` of some members.
            subset: One of :attr:`subsets`.

        Returns:
            What each adds to the sum of projections, ``(B, out)``.
        """
        only, nets = self.subsets.index(subset), self.nets()
        copies = {n: self.members[n].index(only) for n in x}
        return {n: self.first.one(nets[n](x[n], [c])[0], n, c) for n, c in copies.items()}

    def join(self, parts: Mapping[str, Tensor], subset: Subset) -> Tensor:
        """Joins the parts of all of a subset's members to parameters ``(1, B, 2Z)``."""
        only = self.subsets.index(subset)
        total = self.first.bias[only]
        for n in subset:
            total = total + parts[n]
        return self.finish(total.unsqueeze(0), only)

    def finish(self, h: Tensor, only: int | None = None) -> Tensor:
        """Runs the layers after concatenation: ``(S, B, out)`` to parameters ``(S, B, 2Z)``."""
        for layer in self.rest:
            h = layer(h.relu(), only)
        return h


class SumOfProjections(nn.Module):
    """Concatenate-then-linear for every subset: the sum over its members of projections.

    linear(concat(h_1..h_K)) = Σ_k W_k h_k + b, so no subset pads or wastes anything.
    """

    def __init__(self, features: Mapping[str, int], subsets: Sequence[Subset], out: int) -> None:
        super().__init__()
        self.names = tuple(features)
        self.members = _members(self.names, subsets)
        bounds = [1 / math.sqrt(sum(features[n] for n in s)) for s in subsets]

        def uniform(rows: Sequence[int], *shape: int) -> nn.Parameter:
            # As nn.Linear starts: the bound depends on the width of the whole concatenation.
            draws = [torch.empty(shape).uniform_(-bounds[i], bounds[i]) for i in rows]
            return nn.Parameter(torch.stack(draws))

        self.weights = nn.ParameterList(
            uniform(self.members[n], features[n], out) for n in self.names
        )
        self.bias = uniform(range(len(subsets)), out)
        for k, n in enumerate(self.names):
            # Buffers, so that no step copies indices to the device.
            self.register_buffer(f"index_{k}", torch.tensor(self.members[n]), persistent=False)

    def forward(self, h: Mapping[str, Tensor]) -> Tensor:
        """Maps ``{name: (n_k, B, F_k)}`` to ``(S, B, out)``."""
        batch = h[self.names[0]].shape[1]
        total = self.bias.unsqueeze(1).expand(-1, batch, -1)
        for k, n in enumerate(self.names):
            projected = torch.bmm(h[n], self.weights[k])
            index = self.get_buffer(f"index_{k}")
            total = total.index_add(0, index, projected.to(total.dtype))
        return total

    def one(self, h: Tensor, name: str, copy: int) -> Tensor:
        """Projects the features ``(B, F_k)`` of one member's copy: ``(B, out)``."""
        weight: Tensor = self.weights[self.names.index(name)]
        return h @ weight[copy]


class BatchedLinear(nn.Module):
    """One linear layer a subset: ``(S, B, in) -> (S, B, out)``."""

    def __init__(self, copies: int, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features)
        self.weight = nn.Parameter(
            torch.empty(copies, in_features, out_features).uniform_(-bound, bound)
        )
        self.bias = nn.Parameter(torch.empty(copies, 1, out_features).uniform_(-bound, bound))

    def forward(self, h: Tensor, only: int | None = None) -> Tensor:
        """Maps ``(S, B, in)`` to ``(S, B, out)``, S = 1 for ``only`` one subset."""
        chosen = slice(None) if only is None else slice(only, only + 1)
        return torch.baddbmm(self.bias[chosen], h, self.weight[chosen])


def _members(names: Sequence[str], subsets: Sequence[Subset]) -> dict[str, list[int]]:
    """Numbers, for each modality, the subsets that contain it."""
    return {n: [i for i, s in enumerate(subsets) if n in s] for n in names}


def features(net: nn.Module, shape: Sequence[int]) -> int:
    """Returns the number of features of an encoder net, read off a dry run with one row."""
    parameter = next(net.parameters(), torch.empty(0))
    training = net.training
    net.eval()  # a dry run must not count in running statistics
    with torch.no_grad():
        out = net(torch.zeros(1, *shape, device=parameter.device, dtype=parameter.dtype))
    net.train(training)
    return int(out.shape[-1])
