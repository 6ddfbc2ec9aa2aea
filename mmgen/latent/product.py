"""Products of Gaussian experts: each says where z is, and the sure ones count for more.

References:
    G. E. Hinton, "Training Products of Experts by Minimizing Contrastive Divergence", Neural
    Computation 14(8), 2002; Y. Cao, D. J. Fleet, "Generalized Product of Experts for Automatic and
    Principled Fusion of Gaussian Process Predictions", arXiv:1410.7827, 2014.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from mmgen.latent.gaussian import DiagonalGaussian
from mmgen.subsets import Subset


def product(experts: Sequence[DiagonalGaussian], symbol: str = "q(z)") -> DiagonalGaussian:
    """Returns the Gaussian ∝ Π_k q_k(z): precisions add up, and means weighted by them.

    A prior is one more expert. Where no expert says anything (see :func:`silenced`) it is N(0, I).

    Args:
        experts: Of batch shapes that broadcast.
        symbol: Of the result.
    """
    precisions = [q.scale**-2 for q in experts]
    weighted = [tau * q.loc for tau, q in zip(precisions, experts, strict=True)]
    return _normalised(_sum(precisions), _sum(weighted), symbol)


def products(experts: DiagonalGaussian, symbol: str = "q(z)") -> DiagonalGaussian:
    """Returns the product of every non-empty subset of M experts, 2^M − 1 of them at once.

    Args:
        experts: Of batch shape ``(M, *batch)``.
        symbol: Of the result.

    Returns:
        Of batch shape ``(2^M − 1, *batch)``, in the order of :func:`subset_sums`.
    """
    tau = experts.scale**-2
    return _normalised(subset_sums(tau), subset_sums(tau * experts.loc), symbol)


def products_of(
    experts: Mapping[str, DiagonalGaussian],
    prior: DiagonalGaussian,
    subsets: Sequence[Subset],
    symbol: str = "q(z)",
) -> DiagonalGaussian:
    """Returns q_S(z) ∝ p(z) Π_{k∈S} q_k(z) for some subsets S: the prior is counted once in each.

    Args:
        experts: By name, each of batch shape ``(B,)``.
        prior: p(z), of a batch shape that broadcasts with it.
        subsets: At least one.
        symbol: Of the result.

    Returns:
        Of batch shape ``(S, B)``.
    """
    precisions = {n: q.scale**-2 for n, q in experts.items()}
    weighted = {n: tau * experts[n].loc for n, tau in precisions.items()}
    tau = prior.scale**-2
    return _normalised(
        _sums(precisions, subsets) + tau, _sums(weighted, subsets) + tau * prior.loc, symbol
    )


def _sums(values: Mapping[str, Tensor], subsets: Sequence[Subset]) -> Tensor:
    """Sums over the members of each subset: one addition for each where all subsets are asked."""
    known: dict[Subset, Tensor] = {}

    def total(subset: Subset) -> Tensor:
        if subset not in known:
            *rest, last = subset
            known[subset] = total(tuple(rest)) + values[last] if rest else values[last]
        return known[subset]

    return torch.stack([total(subset) for subset in subsets])


def subset_sums(values: Tensor) -> Tensor:
    """Returns the sum over every non-empty subset of M values ``(M, ...)``: ``(2^M − 1, ...)``.

    The subsets count in binary, the first value being the lowest digit: all M are the last.

    Examples:
        >>> subset_sums(torch.tensor([1, 10, 100])).tolist()
        [1, 10, 11, 100, 101, 110, 111]
    """
    sums = torch.zeros_like(values[:1])
    for value in values:  # all subsets so far, without this value and with it
        sums = torch.cat([sums, sums + value])
    return sums[1:]


def silenced(q: DiagonalGaussian, where: Tensor) -> DiagonalGaussian:
    """Returns an expert that says nothing of some of its batch: its deviation there is infinite.

    Args:
        q: The expert.
        where: A mask, whose shape broadcasts with the batch shape.
    """
    scale = q.scale.masked_fill(where.unsqueeze(-1), torch.inf)
    return DiagonalGaussian(q.loc.expand_as(scale), scale, q.symbol)


def _sum(values: Sequence[Tensor]) -> Tensor:
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total


def _normalised(precision: Tensor, weighted: Tensor, symbol: str) -> DiagonalGaussian:
    precision = precision.masked_fill(precision == 0, 1)  # no expert: N(0, I)
    return DiagonalGaussian(weighted / precision, precision.rsqrt(), symbol)
