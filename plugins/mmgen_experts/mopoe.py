"""MoPoE: the posterior is a mixture, over all subsets, of products of experts.

References:
    T. M. Sutter, I. Daunhawer, J. E. Vogt, "Generalized Multimodal ELBO", ICLR 2021
    (arXiv:2105.02470).
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field

from mmgen.batch import Batch
from mmgen.errors import ConfigError
from mmgen.inference.divergence import divergence
from mmgen.latent.mixture import Mixture
from mmgen.latent.product import product, products, silenced, subset_sums
from mmgen.modality import Modality
from mmgen.model import ModelSettings, log_likelihoods
from mmgen.objective import Objective, prior_kl, reconstruction
from mmgen.settings import MOST
from mmgen_experts.experts import Experts, masks, present, speaking, stacked

MOST_MODALITIES = 14
"""2^M − 1 products are made of each row: of 14 modalities, 16,383."""


class MoPoE(Experts):
    """One latent z behind all modalities; of what is known of a row, any part may say where z is.

    The posterior q(z|x_S) = 1/|A| Σ_{T∈A} q_T(z|x_T), A = all ∅ ≠ T ⊆ S, is a mixture of products
    of experts, q_T ∝ Π_{k∈T} q̃_k(z|x_k): MVAE's and MMVAE's posteriors together. Maximises

    L = Σ_k E_q(z|x)[log p(x_k|z)] − β 1/|A| Σ_{T∈A} KL(q_T(z|x_T) ‖ p(z)),

    with a z of each row from one T, drawn for it; for β = 1 a bound on log p(x).
    """

    kind: ClassVar[str] = "mopoe"
    api_version: ClassVar[int] = 1
    equation: ClassVar[tuple[str, ...]] = (
        "Σ_k log p(x_k | z)",
        "− β mean_S KL( q_S(z | x_S) ‖ N(0, I) )",
        "q(z | x) = mean_S q_S(z | x_S)",
        "q_S(z | x_S) ∝ Π_{k∈S} q(z | x_k)",
    )

    class Settings(ModelSettings):
        """MoPoE (Sutter et al., 2021): a mixture of products of experts.

        Attributes:
            latent: Z, the size of z: by how many numbers a row is described.
            beta: β, the weight of the KL, beside the warm-up's.
            prior_expert: Which products the prior is an expert of too: full, that of all
                modalities alone, as in the authors' code; every; or none.
        """

        beta: Annotated[float, Field(ge=0, le=MOST)] = 1.0
        prior_expert: Literal["full", "every", "none"] = "full"

    def __init__(self, modalities: Mapping[str, Modality], settings: "MoPoE.Settings") -> None:
        if len(modalities) > MOST_MODALITIES:
            raise ConfigError(
                f"model.kind = mopoe: {len(modalities)} modalities have 2^{len(modalities)} − 1 "
                f"subsets; {MOST_MODALITIES} modalities are the most. Try model.kind=mvtcae or mvae"
            )
        super().__init__(modalities, settings)
        self.beta, self.prior_expert = settings.beta, settings.prior_expert

    def posterior(self, x: Batch) -> Mixture | None:
        """Returns q(z|x_S), of any subset S."""
        if not x:
            return None
        experts = self.experts(x)
        q = products(stacked(speaking(experts, x).values()))  # (2^|S| − 1, B), that of S last
        if self.prior_expert == "every":
            q = product([q, self.prior(x)])
        elif self.prior_expert == "full" and len(experts) == len(self.names):
            last = torch.arange(len(q.loc), device=q.loc.device) == len(q.loc) - 1
            q = product([q, silenced(self.prior(x), ~last.unsqueeze(-1))])
        has = present(x, experts)
        usable = None if has is None else subset_sums((~has).long()) == 0
        return Mixture(q, self.symbol(x), usable)

    def objective(self, x: Batch) -> Objective:
        """Returns the terms of −L."""
        q, p = self.posterior(x), self.prior(x)
        assert q is not None
        z = q.rsample()
        log_p = log_likelihoods(self, x, z)
        kl = q.average(divergence(q.components, p, z))
        title = f"Mean KL of q(z | x_S) to {p.symbol}"
        terms = [reconstruction(n, value, masks(x).get(n)) for n, value in log_p.items()]
        return Objective([*terms, prior_kl(kl, title, weight=self.beta)])
