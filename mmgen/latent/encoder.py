"""One encoder per subset: parameters of q(z | x_S) for every subset S, as one tensor.

Three ways, by what subsets share: nothing; one net, the trunk, of each modality; or all but what is
read off single modalities, whose product q(z | x_S) then is (:mod:`mmgen.latent.product`).

References:
    M. Suzuki, K. Nakayama, Y. Matsuo, "Deep generative models for bidirectional generation
    between different modalities", IPSJ Journal 59(3), 2018, equations 5 and 10.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from mmgen.errors import ConfigError
from mmgen.latent.trunk import Trunk
from mmgen.modality import Modality
from mmgen.nets.by_modality import ByModality
from mmgen.nets.dry_run import features
from mmgen.nets.replicate import Looped, replicate
from mmgen.nets.wide import stack
from mmgen.subsets import Subset

MOST_APART = 30_000
"""Weights that are tensors of their own: the header of a checkpoint names each, and its moments."""

Weights = nn.Parameter | nn.ParameterList
"""Those of several copies: one tensor ``(copies, ...)``, or a list of one for each."""


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
        shared: Whether a modality has one net for all subsets, the trunk, instead of a copy for
            each: K nets. All layers after it are each subset's own.
        last_teaches: Whether the last subset alone trains shared trunks.
        last_out: How many parameters the last subset has, if not P.
        apart: Whether the weights of each subset are tensors of their own, not a part of one tensor
            of all. A step that runs :meth:`some` subsets then gives gradients to those alone, and
            an optimiser leaves a tensor without a gradient as it is; of one tensor of all it would
            move each row, by its momentum, at the cost of all of them.

    Raises:
        ConfigError: If weights apart are too many.
    """

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        subsets: Sequence[Subset],
        out: int,
        fusion: Sequence[int] = (),
        *,
        shared: bool = False,
        last_teaches: bool = False,
        last_out: int | None = None,
        apart: bool = False,
    ) -> None:
        super().__init__()
        self.subsets, self.apart = tuple(subsets), apart
        self.names = tuple(n for n in modalities if any(n in s for s in subsets))
        self.members = _members(self.names, subsets)
        self._number = {s: i for i, s in enumerate(self.subsets)}
        self._copy = {n: {i: c for c, i in enumerate(rows)} for n, rows in self.members.items()}
        if apart:
            _check_apart(modalities, self.subsets, shared, len(fusion))

        def nets(n: str) -> nn.Module:
            make, copies = modalities[n].encoder, len(self.members[n])
            if shared:
                return Trunk(make(), copies, last_teaches=last_teaches)
            return Looped([make() for _ in range(copies)]) if apart else replicate(make, copies)

        self.encoders = ByModality({n: nets(n) for n in self.names})
        one = {
            n: net.nets[0] if isinstance(net, Looped) else net for n, net in self.encoders.items()
        }
        inputs = {n: features(net, modalities[n].shape) for n, net in one.items()}
        alike = self.subsets if last_out is None else self.subsets[:-1]
        head = Head(inputs, alike, [*fusion, out], apart=apart)
        self.first, self.rest = head.first, head.rest
        self.last = None
        if last_out is not None:
            self.last = Head(inputs, self.subsets[-1:], [*fusion, last_out], apart=apart)

    def forward(self, x: Mapping[str, Tensor], subset: Subset | None = None) -> Tensor:
        """Maps observations ``{name: (B, *shape)}`` to what posteriors are read off.

        Args:
            x: The observations; only those of ``subset`` if that is given.
            subset: One of :attr:`subsets`, to run its nets alone.

        Returns:
            Parameters ``(S, B, P)``, S = 1 if ``subset`` is given; of all, where all have P.
        """
        if subset is not None:
            return self.join(self.encode_each({n: x[n] for n in subset}, subset), subset)
        if self.apart:
            return self.some(x, self.subsets)
        assert self.last is None, "of two widths there is no one tensor"
        return self._finish({n: net(x[n]) for n, net in self.encoders.items()})

    def split(
        self, x: Mapping[str, Tensor], subsets: Sequence[Subset] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Runs the nets of all subsets, those of the last apart from the others.

        Args:
            x: The observations.
            subsets: Which run beside the last; all others if left out.

        Returns:
            Parameters ``(S, B, P)``, and those of the last subset.
        """
        *others, last = self.subsets
        if self.apart or subsets is not None:
            *parts, of_last = self._each(x, [*(others if subsets is None else subsets), last])
            return torch.cat(parts), of_last[0]
        if self.last is None:
            h = self.forward(x)
            return h[:-1], h[-1]
        features = {n: net(x[n]) for n, net in self.encoders.items()}
        of_last = self.last({n: features[n][-1:] for n in last})[0]  # its copies are the last
        counts = {n: len(rows) for n, rows in self.first.members.items()}
        return self._finish({n: features[n][:count] for n, count in counts.items()}), of_last

    def some(self, x: Mapping[str, Tensor], subsets: Sequence[Subset]) -> Tensor:
        """Runs the nets of some of :attr:`subsets`, one subset after the other: ``(S, B, P)``."""
        return torch.cat(self._each(x, subsets))

    def _each(self, x: Mapping[str, Tensor], subsets: Sequence[Subset]) -> list[Tensor]:
        """Runs the nets of some subsets, one subset after the other: ``(1, B, P)`` of each."""
        numbers = [self._number[s] for s in subsets]
        copies = {n: [copy[i] for i in numbers if i in copy] for n, copy in self._copy.items()}
        h = {n: iter(self.encoders[n](x[n], each)) for n, each in copies.items() if each}
        return [
            self.join({n: self._project(next(h[n]), n, i) for n in s}, s)
            for i, s in zip(numbers, subsets, strict=True)
        ]

    def encode_each(self, x: Mapping[str, Tensor], subset: Subset) -> dict[str, Tensor]:
        """Encodes some of a subset's members, each by itself.

        Args:
            x: Observations ``(B, *shape)`` of some members.
            subset: One of :attr:`subsets`.

        Returns:
            What each adds to the sum of projections, ``(B, out)``.
        """
        only, nets = self._number[subset], self.encoders
        copies = {n: self._copy[n][only] for n in x}
        return {n: self._project(nets[n](x[n], [c])[0], n, only) for n, c in copies.items()}

    def join(self, encoded: Mapping[str, Tensor], subset: Subset) -> Tensor:
        """Joins what each of a subset's members adds to parameters ``(1, B, P)``."""
        head, row = self._head(self._number[subset])
        total = head.first.bias[row]
        for n in subset:
            total = total + encoded[n]
        return finish(head.rest, total.unsqueeze(0), row)

    def _project(self, h: Tensor, name: str, number: int) -> Tensor:
        """Returns what features ``(B, F_k)`` of a member add to those of a subset by its number."""
        head, row = self._head(number)
        return head.first.one(h, name, self._copy[name][number] if head is self else row)

    def _head(self, number: int) -> "tuple[SubsetEncoder | Head, int]":
        """Returns where the layers of a subset are that come after its nets, and its row there."""
        if self.last is not None and number == len(self.subsets) - 1:
            return self.last, 0
        return self, number

    def _finish(self, h: Mapping[str, Tensor]) -> Tensor:
        return finish(self.rest, self.first(h))


class Head(nn.Module):
    """What comes after the nets of some subsets: concatenation, fusion layers and a linear layer.

    Args:
        features: The features of each modality, those of others than the subsets' among them.
        subsets: The subsets.
        widths: The widths of all layers, the last of them P.
        apart: Whether each weight is a tensor of its own.
    """

    def __init__(
        self,
        features: Mapping[str, int],
        subsets: Sequence[Subset],
        widths: Sequence[int],
        *,
        apart: bool = False,
    ) -> None:
        super().__init__()
        inputs = {n: size for n, size in features.items() if any(n in s for s in subsets)}
        self.first = SumOfProjections(inputs, subsets, widths[0], apart=apart)
        self.rest = nn.ModuleList(
            BatchedLinear(len(subsets), before, after, apart=apart)
            for before, after in pairwise(widths)
        )

    def forward(self, h: Mapping[str, Tensor]) -> Tensor:
        """Maps features ``{name: (n_k, B, F_k)}`` to parameters ``(S, B, P)``."""
        return finish(self.rest, self.first(h))


def finish(layers: nn.ModuleList, h: Tensor, only: int | None = None) -> Tensor:
    """Runs the layers after concatenation: ``(S, B, out)`` to parameters ``(S, B, P)``."""
    for layer in layers:
        h = layer(h.relu(), only)
    return h


class SumOfProjections(nn.Module):
    """Concatenate-then-linear for every subset: the sum over its members of projections.

    linear(concat(h_1..h_K)) = Σ_k W_k h_k + b, so no subset pads or wastes anything.

    Args:
        features: The features of each modality.
        subsets: The subsets.
        out: The width of the sum.
        apart: Whether each weight is a tensor of its own; then :meth:`one` alone can be called.
    """

    def __init__(
        self,
        features: Mapping[str, int],
        subsets: Sequence[Subset],
        out: int,
        *,
        apart: bool = False,
    ) -> None:
        super().__init__()
        self.names = tuple(features)
        self.members = _members(self.names, subsets)
        bounds = [1 / math.sqrt(sum(features[n] for n in s)) for s in subsets]

        def uniform(rows: Sequence[int], *shape: int) -> Weights:
            # As nn.Linear starts: the bound depends on the width of the whole concatenation.
            draws = [torch.empty(shape).uniform_(-bounds[i], bounds[i]) for i in rows]
            return _weights(draws, apart)

        weights = {n: uniform(self.members[n], features[n], out) for n in self.names}
        self.weights: ByModality[Any] = ByModality(weights)
        self.bias = uniform(range(len(subsets)), out)
        for k, n in enumerate(self.names):
            # Buffers, so that no step copies indices to the device.
            self.register_buffer(f"index_{k}", torch.tensor(self.members[n]), persistent=False)

    def forward(self, h: Mapping[str, Tensor]) -> Tensor:
        """Maps ``{name: (n_k, B, F_k)}`` to ``(S, B, out)``."""
        assert isinstance(self.bias, Tensor), "weights apart are not multiplied at once"
        batch = h[self.names[0]].shape[1]
        total = self.bias.unsqueeze(1).expand(-1, batch, -1)
        for k, n in enumerate(self.names):
            projected = torch.bmm(h[n], self.weights[n])
            index = self.get_buffer(f"index_{k}")
            total = total.index_add(0, index, projected.to(total.dtype))
        return total

    def one(self, h: Tensor, name: str, copy: int) -> Tensor:
        """Projects the features ``(B, F_k)`` of one member's copy: ``(B, out)``."""
        projected: Tensor = h @ self.weights[name][copy]
        return projected


class BatchedLinear(nn.Module):
    """One linear layer per subset: ``(S, B, in) -> (S, B, out)``.

    Args:
        copies: How many.
        in_features: The width of what it reads.
        out_features: The width of what it gives.
        apart: Whether each weight is a tensor of its own; then one subset is run at a time.
    """

    def __init__(
        self, copies: int, in_features: int, out_features: int, *, apart: bool = False
    ) -> None:
        super().__init__()
        bound = 1 / math.sqrt(in_features)
        weight = torch.empty(copies, in_features, out_features).uniform_(-bound, bound)
        bias = torch.empty(copies, 1, out_features).uniform_(-bound, bound)
        self.weight, self.bias = (_weights(each, apart) for each in (weight, bias))

    def forward(self, h: Tensor, only: int | None = None) -> Tensor:
        """Maps ``(S, B, in)`` to ``(S, B, out)``, S = 1 for ``only`` one subset."""
        if only is not None:
            bias, weight = self.bias[only], self.weight[only]
            return torch.baddbmm(bias.unsqueeze(0), h, weight.unsqueeze(0))
        assert isinstance(self.weight, Tensor), "weights apart are not multiplied at once"
        assert isinstance(self.bias, Tensor)
        return torch.baddbmm(self.bias, h, self.weight)


def _weights(each: Sequence[Tensor] | Tensor, apart: bool) -> Weights:
    if apart:  # copies: parts of one tensor would be stored as all of it
        return nn.ParameterList(nn.Parameter(one.clone()) for one in each)
    return nn.Parameter(each if isinstance(each, Tensor) else stack(each))


def _check_apart(
    modalities: Mapping[str, Modality], subsets: Sequence[Subset], shared: bool, fusion: int
) -> None:
    """Checks that weights apart are not too many, before any of them is made.

    Raises:
        ConfigError: If they are.
    """
    count = len(subsets) * (1 + 2 * fusion)
    with torch.device("meta"):
        for n, modality in modalities.items():
            each = 0 if shared else len(list(modality.encoder().parameters()))
            count += sum(n in s for s in subsets) * (each + 1)
    if count > MOST_APART:
        less = "" if shared else ', model.subset_encoder="shared"'
        raise ConfigError(
            f"model.subsets_per_step: each subset's encoder has weights of its own, {count:,} of "
            f"all; {MOST_APART:,} are the most."
            f'\n  Try model.subset_encoder="product"{less}, or fewer model.subsets'
        )


def _members(names: Sequence[str], subsets: Sequence[Subset]) -> dict[str, list[int]]:
    """Numbers, for each modality, the subsets that contain it."""
    return {n: [i for i, s in enumerate(subsets) if n in s] for n in names}
