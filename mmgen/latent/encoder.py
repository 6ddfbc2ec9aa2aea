"""One encoder per subset: parameters of q(z | x_S) for every subset S, as one tensor.

References:
    M. Suzuki, K. Nakayama, Y. Matsuo, "Deep generative models for bidirectional generation
    between different modalities", IPSJ Journal 59(3), 2018, equations 5 and 10.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from mmgen.modality import Modality
from mmgen.nets.blocks import features
from mmgen.nets.by_modality import ByModality
from mmgen.nets.replicate import replicate
from mmgen.subsets import Subset


class SubsetEncoder(nn.Module):
    """What q(z | x_S) is read off, for S in a list of subsets: parameters ``(S, B, P)``.

    Each subset has its own copy of its members' encoder nets, as many as subsets contain the
    modality: 2^(K−1)·K nets for all subsets. Their features are concatenated and go through the
    fusion layers and a linear layer. Which family the parameters mean is not its concern.

    Args:
        modalities: The K modalities by name.
        subsets: The subsets that get an encoder, in the order of the output.
        out: P, how many parameters a posterior has: 2Z of a diagonal Gaussian.
        fusion: The widths of the layers between concatenation and output, each with a ReLU.
    """

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        subsets: Sequence[Subset],
        out: int,
        fusion: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.subsets = tuple(subsets)
        self.names = tuple(n for n in modalities if any(n in s for s in subsets))
        self.members = _members(self.names, subsets)
        self.encoders = ByModality(
            {n: replicate(modalities[n].encoder, len(self.members[n])) for n in self.names}
        )
        widths = [*fusion, out]
        inputs = {n: features(net, modalities[n].shape) for n, net in self.encoders.items()}
        self.first = SumOfProjections(inputs, subsets, widths[0])
        self.rest = nn.ModuleList(
            BatchedLinear(len(subsets), before, after) for before, after in pairwise(widths)
        )

    def forward(self, x: Mapping[str, Tensor], subset: Subset | None = None) -> Tensor:
        """Maps observations ``{name: (B, *shape)}`` to what posteriors are read off.

        Args:
            x: The observations; only those of ``subset`` if that is given.
            subset: One of :attr:`subsets`, to run its nets alone.

        Returns:
            Parameters ``(S, B, P)``, S = 1 if ``subset`` is given.
        """
        if subset is None:
            return self.finish(self.first({n: net(x[n]) for n, net in self.encoders.items()}))
        return self.join(self.encode_each({n: x[n] for n in subset}, subset), subset)

    def encode_each(self, x: Mapping[str, Tensor], subset: Subset) -> dict[str, Tensor]:
        """Encodes some of a subset's members, each by itself.

        Args:
            x: Observations ``(B, *shape)`` of some members.
            subset: One of :attr:`subsets`.

        Returns:
            What each adds to the sum of projections, ``(B, out)``.
        """
        only, nets = self.subsets.index(subset), self.encoders
        copies = {n: self.members[n].index(only) for n in x}
        return {n: self.first.one(nets[n](x[n], [c])[0], n, c) for n, c in copies.items()}

    def join(self, encoded: Mapping[str, Tensor], subset: Subset) -> Tensor:
        """Joins what each of a subset's members adds to parameters ``(1, B, P)``."""
        only = self.subsets.index(subset)
        total = self.first.bias[only]
        for n in subset:
            total = total + encoded[n]
        return self.finish(total.unsqueeze(0), only)

    def finish(self, h: Tensor, only: int | None = None) -> Tensor:
        """Runs the layers after concatenation: ``(S, B, out)`` to parameters ``(S, B, P)``."""
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

        self.weights = ByModality(
            {n: uniform(self.members[n], features[n], out) for n in self.names}
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
            projected = torch.bmm(h[n], self.weights[n])
            index = self.get_buffer(f"index_{k}")
            total = total.index_add(0, index, projected.to(total.dtype))
        return total

    def one(self, h: Tensor, name: str, copy: int) -> Tensor:
        """Projects the features ``(B, F_k)`` of one member's copy: ``(B, out)``."""
        return h @ self.weights[name][copy]


class BatchedLinear(nn.Module):
    """One linear layer per subset: ``(S, B, in) -> (S, B, out)``."""

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
