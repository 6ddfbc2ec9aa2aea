"""What all four models are made of: an expert for each modality, and the prior N(0, I)."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from mmgen.batch import Batch
from mmgen.latent.base import symbol
from mmgen.latent.encoder import SubsetEncoder
from mmgen.latent.gaussian import DiagonalGaussian, gaussian, standard_normal
from mmgen.latent.product import silenced
from mmgen.modality import Modality
from mmgen.model import Model, ModelSettings
from mmgen.subsets import ordered

Gaussians = dict[str, DiagonalGaussian]


class Experts(Model):
    """p(z) = N(0, I), and experts q̃_k(z|x_k), Gaussians, which the subclass joins.

    M modalities need M encoder nets. Every subset has a posterior, made of its members' experts,
    so that nothing needs iterative sampling. Rows may lack modalities.
    """

    formula = "K"
    incomplete_rows = True

    def __init__(self, modalities: Mapping[str, Modality], settings: ModelSettings) -> None:
        super().__init__(modalities, settings)
        self.encoder = SubsetEncoder(modalities, [(n,) for n in self.names], 2 * self.latent)

    def prior(self, given: Batch) -> DiagonalGaussian:  # noqa: ARG002
        """Returns N(0, I)."""
        return standard_normal(self.latent, like=self.like)

    def experts(self, x: Batch) -> Gaussians:
        """Returns q̃_k(z|x_k) of what x holds, ``(B,)`` each; N(0, I) where a row lacks x_k."""
        S, seen = ordered(self.names, x), x.stood_in() if self.training else x
        q = {n: gaussian(self.encoder(seen, (n,))[0], symbol("q", [n])) for n in S}
        for n, has in masks(x).items():
            loc = torch.where(has.unsqueeze(-1), q[n].loc, 0)
            scale = torch.where(has.unsqueeze(-1), q[n].scale, 1)
            q[n] = DiagonalGaussian(loc, scale, q[n].symbol)
        return q

    def symbol(self, subset: Iterable[str]) -> str:
        """Writes the posterior given a subset: ``"q(z | x)"`` given all."""
        S = ordered(self.names, subset)
        return symbol("q", S) if len(S) < len(self.names) else "q(z | x)"

    @classmethod
    def encoder_count(cls, settings: ModelSettings, modalities: int) -> int:  # noqa: ARG003
        """Returns K."""
        return modalities


def masks(x: Batch) -> Mapping[str, Tensor]:
    """Returns which rows have it, ``(B,)``, of each modality that some rows lack."""
    return x.present or {}


def speaking(experts: Gaussians, x: Batch) -> Gaussians:
    """Returns experts for a product: each says nothing of the rows that lack its modality."""
    lacking = {n: ~has for n, has in masks(x).items()}
    return {n: silenced(q, lacking[n]) if n in lacking else q for n, q in experts.items()}


def weighed(log_p: Mapping[str, Tensor], weights: Mapping[str, float]) -> dict[str, Tensor]:
    """Returns log p(x_k|z), each times its weight, where it has one."""
    return {n: weights[n] * v if n in weights else v for n, v in log_p.items()}


def total(log_p: Mapping[str, Tensor], x: Batch) -> Tensor:
    """Returns Σ_k log p(x_k|z) ``(..., B)`` over the modalities that each row has."""
    has = masks(x)
    counted = [torch.where(has[n], v, 0) if n in has else v for n, v in log_p.items()]
    return torch.stack(counted).sum(0)


def stacked(experts: Iterable[DiagonalGaussian]) -> DiagonalGaussian:
    """Returns M experts of batch shape ``(B,)`` as one of ``(M, B)``."""
    q = list(experts)
    return DiagonalGaussian(torch.stack([e.loc for e in q]), torch.stack([e.scale for e in q]))


def present(x: Batch, names: Iterable[str]) -> Tensor | None:
    """Returns which rows have which of some modalities, ``(M, B)``; ``None`` if all have all."""
    S, has = list(names), masks(x)
    if not any(n in has for n in S):
        return None
    every = torch.ones_like(next(iter(has.values())))
    return torch.stack([has.get(n, every) for n in S])
