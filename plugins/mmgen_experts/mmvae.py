"""MMVAE: the posterior is a mixture of experts, and the objective an importance-weighted bound.

References:
    Y. Shi, N. Siddharth, B. Paige, P. Torr, "Variational Mixture-of-Experts Autoencoders for
    Multi-Modal Deep Generative Models", NeurIPS 2019 (arXiv:1911.03393);
    G. Tucker, D. Lawson, S. Gu, C. Maddison, "Doubly Reparameterized Gradient Estimators for Monte
    Carlo Objectives", ICLR 2019.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from mmgen.batch import Batch
from mmgen.latent.mixture import Mixture
from mmgen.modality import Modality
from mmgen.model import ModelSettings, log_likelihoods
from mmgen.objective import Objective, Term, reconstruction
from mmgen_experts.experts import Experts, masks, present, stacked, total, weighed


class MMVAE(Experts):
    """One latent z behind all modalities; of what is known of a row, any one may say where z is.

    The posterior q(z|x_S) = 1/|S| Σ_{m∈S} q̃_m(z|x_m) is a mixture of experts, one for each
    modality, so that each must find a z that explains the others too. Maximises

    L = 1/M Σ_m E[log 1/K Σ_k p(x, z_mk) / q(z_mk|x)], z_m1 … z_mK ~ q̃_m(z|x_m),

    a bound on log p(x) that rises with K. It is no sum of reconstructions and a KL: there is no β
    to warm up, and what z says of each modality is shown but not part of the loss.
    """

    kind: ClassVar[str] = "mmvae"
    api_version: ClassVar[int] = 1
    weighs_likelihoods: ClassVar[bool] = True
    equation: ClassVar[tuple[str, ...]] = (
        "1/M Σ_m log 1/K Σ_k p(x, z_{mk}) / q(z_{mk} | x)",
        "z_{mk} ~ q(z | x_m)",
        "q(z | x) = 1/M Σ_m q(z | x_m)",
    )

    class Settings(ModelSettings):
        """MMVAE (Shi et al., 2019): a mixture of experts.

        Attributes:
            latent: Z, the size of z: by how many numbers a row is described.
            samples: K, how many z are drawn from each modality's expert; each is decoded to all.
            gradient: How the experts learn: dreg, doubly reparameterised as in the paper, which
                varies less but is biased for K > 1; or iwae, the bound's own gradient.
        """

        samples: Annotated[int, Field(ge=1, le=1000)] = 10
        gradient: Literal["dreg", "iwae"] = "dreg"

    def __init__(self, modalities: Mapping[str, Modality], settings: "MMVAE.Settings") -> None:
        super().__init__(modalities, settings)
        self.samples, self.doubly = settings.samples, settings.gradient == "dreg"

    def posterior(self, x: Batch) -> Mixture | None:
        """Returns q(z|x_S), of any subset S."""
        if not x:
            return None
        experts = self.experts(x)
        return Mixture(stacked(experts.values()), self.symbol(x), present(x, experts))

    def objective(self, x: Batch) -> Objective:
        """Returns −L as one term, and of each modality E_q(z|x)[log p(x_k|z)], to be seen."""
        q = self.posterior(x)
        assert q is not None
        z = q.stratified(self.samples)  # (K, M, B, Z)
        log_p = log_likelihoods(self, x, z)
        density = q.detach() if self.doubly else q
        log_ratio = self.prior(x).log_prob(z) - density.log_prob(z)  # (K, M, B)
        log_w = total(weighed(log_p, self.likelihood_weights), x) + log_ratio
        if self.doubly and z.requires_grad:
            # The gradient by way of z is weighted twice, and that of q(z|x) at z left out: the same
            # in expectation where z is drawn from q(z|x) itself, not from one expert of it.
            w = log_w.detach().softmax(0).unsqueeze(-1)
            z.register_hook(lambda gradient: w * gradient)
        trained = q.average(log_w.logsumexp(0) - math.log(self.samples))
        bound = Term("bound", trained, -1.0, title="Importance-weighted bound on log p(x)")
        terms = [bound]
        if self.likelihood_weights:  # then what is trained is another number than the bound
            true = (total(log_p, x) + log_ratio).detach()
            value = q.average(true.logsumexp(0) - math.log(self.samples))
            title = "What is trained: the bound with weighted likelihoods"
            terms = [
                replace(bound, value=value, trains=()),
                replace(bound, name="weighted", bound=False, title=title),
            ]
        seen = {n: q.average(value.detach().mean(0)) for n, value in log_p.items()}
        terms += [reconstruction(n, v, masks(x).get(n), weight=0.0) for n, v in seen.items()]
        return Objective(terms)
