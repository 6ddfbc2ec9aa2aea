"""MVAE: the posterior is a product of experts, and every subset's bound is part of the objective.

References:
    M. Wu, N. Goodman, "Multimodal Generative Models for Scalable Weakly-Supervised Learning",
    NeurIPS 2018 (arXiv:1802.05335).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, ClassVar

import torch
from pydantic import Field

from mmgen.batch import Batch
from mmgen.inference.bound import evidence_bound
from mmgen.inference.divergence import divergence
from mmgen.latent.gaussian import DiagonalGaussian
from mmgen.latent.product import product
from mmgen.modality import Modality
from mmgen.model import ModelSettings, log_likelihoods
from mmgen.objective import Objective, Term
from mmgen.seeding import decisions
from mmgen.subsets import Subset, ordered
from mmgen_experts.experts import Experts, Gaussians, present, speaking, total, weighed


class MVAE(Experts):
    """One latent z behind all modalities; of what is known of a row, each gives its opinion of z.

    The posterior q_S(z|x_S) ∝ p(z) Π_{k∈S} q̃_k(z|x_k) is a product of experts, one for each
    modality, and of the prior: an expert that is sure decides. Maximises

    L = Σ_S ( Σ_{k∈S} E_{q_S}[log p(x_k|z)] − β KL(q_S(z|x_S) ‖ p(z)) ),

    where S is all modalities, each alone, and in training some subsets at random: of a size
    between, drawn first, and then its members. Of these bounds the first alone is one on log p(x),
    by which the best weights are chosen; the others are bounds on parts of x.
    """

    kind: ClassVar[str] = "mvae"
    api_version: ClassVar[int] = 1
    equation: ClassVar[tuple[str, ...]] = (
        "Σ_S ( Σ_{k∈S} log p(x_k | z)",
        "− β KL( q(z | x_S) ‖ N(0, I) ) )",
        "q(z | x_S) ∝ p(z) Π_{k∈S} q(z | x_k)",
        "S: all, each alone, some at random",
    )

    class Settings(ModelSettings):
        """MVAE (Wu and Goodman, 2018): a product of experts.

        Attributes:
            latent: Z, the size of z: by how many numbers a row is described.
            random_subsets: How many random subsets of a batch have a bound of their own; there are
                none of fewer than 3 modalities.
        """

        random_subsets: Annotated[int, Field(ge=0, le=1000)] = 1

    def __init__(self, modalities: Mapping[str, Modality], settings: "MVAE.Settings") -> None:
        super().__init__(modalities, settings)
        self.random_subsets = settings.random_subsets if len(modalities) > 2 else 0

    def posterior(self, x: Batch) -> DiagonalGaussian | None:
        """Returns q_S(z|x_S), of any subset S."""
        experts = speaking(self.experts(x), x)
        return self._product(experts, self.prior(x), tuple(experts)) if experts else None

    def objective(self, x: Batch) -> Objective:
        """Returns the terms of −L."""
        experts, p = speaking(self.experts(x), x), self.prior(x)
        q = self._product(experts, p, self.names)
        terms = evidence_bound(self, x, q, q.rsample())
        for label, S, symbol in self._parts():
            q_S = self._product(experts, p, S)
            z = q_S.rsample()
            each = log_likelihoods(self, x, z, S)
            if len(S) > 1:  # of one alone, the term as a whole is weighed
                each = weighed(each, self.likelihood_weights)
            log_p, kl = total(each, x), divergence(q_S, p, z)
            has = present(x, S)
            rows = None if has is None else has.any(0)
            says, far = f"log p(x_S | z), z ~ {symbol}", f"KL of {symbol} to {p.symbol}"
            terms += [
                Term(label, log_p, -1.0, about=S, bound=False, present=rows, title=says),
                Term(f"{label}/kl", kl, 1.0, True, about=S, bound=False, present=rows, title=far),
            ]
        return Objective(terms)

    def _product(self, experts: Gaussians, p: DiagonalGaussian, S: Subset) -> DiagonalGaussian:
        return product([p, *(experts[n] for n in S)], self.symbol(S))

    def _parts(self) -> Iterator[tuple[str, Subset, str]]:
        """Yields the subsets that are not all, each with a term's name and its symbol."""
        yield from ((f"alone/{n}", (n,), self.symbol([n])) for n in self.names)
        for i in range(self.random_subsets if self.training else 0):
            yield f"random/{i + 1}", random_subset(self.names), "q(z | x_S), S random"


def random_subset(names: Sequence[str]) -> Subset:
    """Draws a subset of 2 to M − 1 of M ≥ 3 modalities: its size first, then its members."""
    # On the CPU, where the loop over subsets is: nothing waits for the device.
    drawn = decisions()
    size = int(torch.randint(2, len(names), (), generator=drawn, device="cpu"))
    members = torch.randperm(len(names), generator=drawn, device="cpu")[:size].tolist()
    return ordered(names, [names[i] for i in members])
