"""JMVAE and JMVAE-kl: one z for all modalities, and an encoder for every subset.

References:
    M. Suzuki, K. Nakayama, Y. Matsuo, "Deep generative models for bidirectional generation
    between different modalities", IPSJ Journal 59(3), 859–873, 2018, equations 5 and 10;
    "Joint Multimodal Learning with Deep Generative Models", arXiv:1611.01891, 2016.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from mmgen.modality import Modality
from mmgen.models.base import Batch, Model, Objective, Proposal
from mmgen.nets.flow import FlowPosterior, SubsetFlow
from mmgen.nets.posterior import (
    Gaussian,
    SubsetEncoder,
    draw,
    gaussian,
    normal,
    standard_normal,
)
from mmgen.subsets import Subset, chosen, name, ordered


class JMVAE(Model):
    """JMVAE(-kl).

    Maximises, with the joint encoder q(z|x) and a weight α for every subset S that has an encoder,

    L = Σ_k E_q(z|x)[log p(x_k|z)] − β KL(q(z|x) ‖ N(0, I)) − α Σ_S KL(q(z|x) ‖ q(z|x_S)).

    Without subsets, or with α = 0, this is JMVAE (eq. 5); with all 2^K − 2 it is JMVAE-kl (eq. 10).

    Args:
        modalities: The K modalities by name.
        latent: Z, the size of z.
        fusion: Widths of the layers between the concatenated features and the Gaussian.
        subsets: Which subsets get an encoder, see :func:`mmgen.subsets.chosen`.
        alpha: α, the weight of each subset's KL.
        subset_posterior: What q(z|x_S) is: ``"gaussian"``, or a normalising ``"flow"``, whose KL is
            estimated by the z that is drawn.
        subset_gradient: Whether the gradient of the subsets' KL reaches the joint posterior.
        flow_transforms: Transformations of the flow.
        flow_widths: Widths of the nets in them.
    """

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        *,
        latent: int,
        fusion: Sequence[int] = (),
        subsets: str | Sequence[str] = "none",
        alpha: float = 1.0,
        subset_posterior: str = "gaussian",
        subset_gradient: bool = True,
        flow_transforms: int = 3,
        flow_widths: Sequence[int] = (128, 128),
    ) -> None:
        super().__init__(modalities, latent)
        self.alpha = alpha
        self.subset_gradient = subset_gradient
        self.subsets = chosen(self.names, subsets)
        self.encoder = SubsetEncoder(modalities, [*self.subsets, self.names], latent, fusion)
        flows = subset_posterior == "flow" and self.subsets
        self.flow = SubsetFlow(latent, flow_transforms, flow_widths) if flows else None

    def posterior(self, x: Batch, subset: Subset) -> Gaussian | FlowPosterior:
        """Returns q(z|x_S) of a subset that has an encoder, of batch shape ``(B,)``."""
        h = self.encoder.encode({n: x[n] for n in subset}, subset)[0]
        return gaussian(h) if subset == self.names else self.subset_posterior(h)

    def subset_posterior(self, h: Tensor) -> Gaussian | FlowPosterior:
        """Reads q(z|x_S) of proper subsets off ``(..., 2Z)``."""
        if self.flow is None:
            return gaussian(h)
        q: FlowPosterior = self.flow(h)
        return q

    def divergences(self, q: Gaussian, z: Tensor, h: Tensor) -> Tensor:
        """Returns KL(q(z|x) ‖ q(z|x_S)) of each subset, ``(S, B)``: closed, or by z ~ q(z|x)."""
        q_subsets = self.subset_posterior(h)
        if not self.subset_gradient:
            q, z = normal(q.base_dist.loc.detach(), q.base_dist.scale.detach()), z.detach()
        if self.flow is None:
            return kl_divergence(q, q_subsets)
        sampled: Tensor = q.log_prob(z) - q_subsets.log_prob(z)
        return sampled

    def objective(self, x: Batch, beta: Tensor | float) -> Objective:
        """Returns −L and its terms for a batch."""
        h = self.encoder.encode(x)
        q = gaussian(h[-1])
        z = q.rsample()

        log_p = {n: value.mean() for n, value in self.log_likelihoods(x, z).items()}
        kl_prior = kl_divergence(q, standard_normal(z)).mean()
        loss = beta * kl_prior - torch.stack(list(log_p.values())).sum()
        terms = {f"reconstruction/{n}": value for n, value in log_p.items()}
        terms["kl/prior"] = kl_prior
        if self.subsets:
            kl_subsets = self.divergences(q, z, h[:-1]).mean(-1)  # (S,)
            loss = loss + self.alpha * kl_subsets.sum()
            terms |= {f"kl/{name(s)}": kl_subsets[i] for i, s in enumerate(self.subsets)}
        return Objective({"model": loss}, terms)

    def prior(self, samples: int, like: Tensor, *, temperature: float = 1.0) -> Tensor:
        """Draws z ~ N(0, I): ``(samples, Z)``."""
        return draw(standard_normal(like.new_zeros(samples, self.latent)), temperature)

    def encodes(self, given: Iterable[str]) -> bool:
        """Tells whether q(z|x_S) was built for this subset; the joint one always is."""
        return ordered(self.names, given) in self.encoder.subsets

    def infer(self, given: Batch, samples: int = 1, *, temperature: float = 1.0) -> Tensor:
        """Draws z ~ q(z|x_S): ``(samples, B, Z)``."""
        q = self.posterior(given, ordered(self.names, given))
        return draw(q, temperature, (samples,))

    def parts(self, x: Batch) -> dict[str, Tensor]:
        """Encodes modalities by the joint encoder's nets, ``(B, ·)`` each."""
        return self.encoder.parts(x, self.names)

    def revise(
        self, parts: Mapping[str, Tensor], samples: int = 1, *, temperature: float = 1.0
    ) -> Tensor:
        """Draws z ~ q(z|x), imputed or not: ``(samples, B, Z)``."""
        q = gaussian(self.encoder.join(parts, self.names)[0])
        return draw(q, temperature, (samples,))

    def propose(self, x: Batch, given: Iterable[str], samples: int) -> Proposal:
        """Draws z ~ q(z|x_S), or q(z|x): weights N(z; 0, I) / q(z)."""
        subset = ordered(self.names, given) if self.encodes(given) else self.names
        q = self.posterior(x, subset)
        z = q.rsample((samples,))
        return Proposal(z, standard_normal(z).log_prob(z) - q.log_prob(z))

    def encoder_nets(self) -> Sequence[tuple[int, nn.Module]]:
        """Lists 2^(K−1) copies of each modality's net if all subsets have encoders."""
        return [(len(self.encoder.members[n]), net) for n, net in self.encoder.nets().items()]
