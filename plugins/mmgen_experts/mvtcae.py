"""MVTCAE: a product of experts, each of which is held to the product as a whole.

References:
    H. Hwang, G.-H. Kim, S. Hong, K.-E. Kim, "Multi-View Representation Learning via Total
    Correlation Objective", NeurIPS 2021.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from pydantic import Field

from mmgen.batch import Batch
from mmgen.inference.divergence import divergence
from mmgen.latent.gaussian import DiagonalGaussian
from mmgen.latent.product import product
from mmgen.modality import Modality
from mmgen.model import ModelSettings, log_likelihoods
from mmgen.objective import Objective, Term, prior_kl, reconstruction
from mmgen.settings import MOST
from mmgen_experts.experts import Experts, Gaussians, masks, speaking


class MVTCAE(Experts):
    """One latent z behind all modalities, which each must find alone as all find it together.

    The posterior q(z|x_S) ∝ Π_{k∈S} q̃_k(z|x_k) is a product of experts, one for each modality,
    without the prior. Maximises

    L = (M − α)/M Σ_k E_q(z|x)[log p(x_k|z)]
        − β (α/M Σ_k KL(q(z|x) ‖ q̃_k(z|x_k)) + (1 − α) KL(q(z|x) ‖ p(z))),

    a bound on the modalities' total correlation and what z holds of each. It is none on log p(x):
    its loss is not to be compared with another model's.
    """

    kind: ClassVar[str] = "mvtcae"
    api_version: ClassVar[int] = 1
    equation: ClassVar[tuple[str, ...]] = (
        "(M − α)/M Σ_k log p(x_k | z)",
        "− β α/M Σ_k KL( q(z | x) ‖ q(z | x_k) )",
        "− β (1 − α) KL( q(z | x) ‖ N(0, I) )",
        "q(z | x) ∝ Π_k q(z | x_k)",
    )

    class Settings(ModelSettings):
        """MVTCAE (Hwang et al., 2021): a product of experts, and a KL to each.

        Attributes:
            latent: Z, the size of z: by how many numbers a row is described.
            alpha: α, from 0, the KL to the prior alone, to 1, the KL to the experts alone.
            beta: β, the weight of all KLs, beside the warm-up's.
        """

        alpha: Annotated[float, Field(ge=0, le=1)] = 0.1
        beta: Annotated[float, Field(ge=0, le=MOST)] = 2.5

    def __init__(self, modalities: Mapping[str, Modality], settings: "MVTCAE.Settings") -> None:
        super().__init__(modalities, settings)
        self.alpha, self.beta = settings.alpha, settings.beta

    def posterior(self, x: Batch) -> DiagonalGaussian | None:
        """Returns q(z|x_S), of any subset S."""
        return self._product(self.experts(x), x) if x else None

    def objective(self, x: Batch) -> Objective:
        """Returns the terms of −L."""
        experts, p, M = self.experts(x), self.prior(x), len(self.names)
        q, has = self._product(experts, x), masks(x)
        z = q.rsample()
        share = self.alpha / M
        log_p = log_likelihoods(self, x, z)
        terms = [reconstruction(n, v, has.get(n), weight=share - 1) for n, v in log_p.items()]
        for n, q_k in experts.items():
            kl, to = divergence(q, q_k, z), f"KL to {q_k.symbol}"
            weight = self.beta * share
            terms.append(Term(f"subset/{n}", kl, weight, True, (n,), present=has.get(n), title=to))
        weight = self.beta * (1 - self.alpha)
        return Objective(
            [*terms, prior_kl(divergence(q, p, z), f"KL to {p.symbol}", weight=weight)]
        )

    def _product(self, experts: Gaussians, x: Batch) -> DiagonalGaussian:
        return product([*speaking(experts, x).values()], self.symbol(x))
