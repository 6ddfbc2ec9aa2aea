"""Hierarchical JMVAE: L stochastic layers, so that a missing modality does not pull z away.

References:
    M. Suzuki, K. Nakayama, Y. Matsuo, "Deep generative models for bidirectional generation
    between different modalities", IPSJ Journal 59(3), 859–873, 2018, equations 7–9.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import kl_divergence

from mmgen.modality import Modality
from mmgen.models.base import Batch, Model, Objective, Proposal
from mmgen.nets.blocks import mlp
from mmgen.nets.posterior import Gaussian, GaussianHead, draw, features, standard_normal


class Hierarchical(Model):
    """Hierarchical JMVAE of K modalities and L ≥ 1 layers, K + L − 1 encoder nets.

    p(x, z) = p(z_L) Π_l p(z_{l−1}|z_l) Π_k p(x_k|z_1), q(z_1..z_L|x) = Π_l q(z_l|x), where each
    q(z_l|x) is read off the deterministic path h_1 → … → h_L. Maximises

    L = Σ_k E_q(z_1|x)[log p(x_k|z_1)] − β Σ_l E_q(z_{l+1}|x) KL(q(z_l|x) ‖ p(z_l|z_{l+1})),

    with p(z_L|z_{L+1}) := N(0, I). L = 1 is JMVAE.

    Args:
        modalities: The K modalities by name.
        latent: Z, the size of every z_l.
        layers: L ≥ 1.
        fusion: Widths of the layers between the concatenated features and h_1.
        widths: Widths of the nets h_l → h_{l+1} and z_{l+1} → z_l.
    """

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        *,
        latent: int,
        layers: int = 2,
        fusion: Sequence[int] = (),
        widths: Sequence[int] = (512, 512),
    ) -> None:
        super().__init__(modalities, latent)
        self.encoders = nn.ModuleList(m.encoder() for m in modalities.values())
        shapes = [m.shape for m in modalities.values()]
        joined = sum(features(e, s) for e, s in zip(self.encoders, shapes, strict=True))
        self.fusion = mlp(joined, fusion)
        # h_l = path_l(h_{l−1}) and q(z_l|x) = posterior_l(h_l)
        h = [[joined, *fusion][-1], *[widths[-1]] * (layers - 1)]
        self.paths = nn.ModuleList(mlp(before, widths) for before in h[:-1])
        self.posteriors = nn.ModuleList(GaussianHead(features_l, latent) for features_l in h)
        # p(z_l|z_{l+1}), from l = 1 upwards
        self.priors = nn.ModuleList(
            nn.Sequential(mlp(latent, widths), GaussianHead(widths[-1], latent)) for _ in h[:-1]
        )

    def posterior(self, x: Batch) -> list[Gaussian]:
        """Returns q(z_1|x) .. q(z_L|x), each of batch shape ``(B,)``."""
        return [head(h) for head, h in zip(self.posteriors, self.path(self.parts(x)), strict=True)]

    def parts(self, x: Batch) -> dict[str, Tensor]:
        """Encodes modalities each by itself, ``(B, features)`` each."""
        nets = zip(self.names, self.encoders, strict=True)
        return {n: net(x[n]) for n, net in nets if n in x}

    def path(self, parts: Mapping[str, Tensor]) -> list[Tensor]:
        """Returns the deterministic path h_1 → … → h_L of all modalities' parts."""
        path = [self.fusion(torch.cat([parts[n] for n in self.names], dim=-1))]
        for net in self.paths:
            path.append(net(path[-1]))
        return path

    def objective(self, x: Batch, beta: Tensor | float) -> Objective:
        """Returns −L and its terms for a batch."""
        q = self.posterior(x)
        z = [layer.rsample() for layer in q]
        p = [prior(above) for prior, above in zip(self.priors, z[1:], strict=True)]
        p.append(standard_normal(z[-1]))

        log_p = {n: value.mean() for n, value in self.log_likelihoods(x, z[0]).items()}
        kl = [kl_divergence(q_l, p_l).mean() for q_l, p_l in zip(q, p, strict=True)]

        loss = beta * torch.stack(kl).sum() - torch.stack(list(log_p.values())).sum()
        terms = {f"reconstruction/{n}": value for n, value in log_p.items()}
        terms |= {f"kl/z{level}": value for level, value in enumerate(kl, start=1)}
        return Objective({"model": loss}, terms)

    def descend(self, z: Tensor, *, temperature: float = 1.0) -> Tensor:
        """Draws z_{l−1} ~ p(z_{l−1}|z_l) from z_L ``(..., Z)`` down to z_1 ``(..., Z)``."""
        for prior in reversed(self.priors):
            z = draw(prior(z), temperature)
        return z

    def prior(self, samples: int, like: Tensor, *, temperature: float = 1.0) -> Tensor:
        """Draws z_L ~ N(0, I), then down to z_1: ``(samples, Z)``."""
        z = draw(standard_normal(like.new_zeros(samples, self.latent)), temperature)
        return self.descend(z, temperature=temperature)

    def encodes(self, given: Iterable[str]) -> bool:
        """Tells whether all modalities are given: there are no other encoders."""
        return set(given) == set(self.names)

    def infer(self, given: Batch, samples: int = 1, *, temperature: float = 1.0) -> Tensor:
        """Draws z_1 ~ q(z_1|x), for x that is wholly observed: ``(samples, B, Z)``."""
        q = self.posterior(given)[0]
        return draw(q, temperature, (samples,))

    def revise(
        self, parts: Mapping[str, Tensor], samples: int = 1, *, temperature: float = 1.0
    ) -> Tensor:
        """Draws z_L ~ q(z_L|x), then down to z_1: ``(samples, B, Z)``.

        The top layer is the one that missing values disturb least.
        """
        q = self.posteriors[-1](self.path(parts)[-1])
        z = draw(q, temperature, (samples,))
        return self.descend(z, temperature=temperature)

    def propose(self, x: Batch, given: Iterable[str], samples: int) -> Proposal:  # noqa: ARG002
        """Draws z_l ~ q(z_l|x) of all layers: weights p(z_L) Π p(z_{l−1}|z_l) / Π q(z_l|x)."""
        q = self.posterior(x)
        z = [layer.rsample((samples,)) for layer in q]
        p = [prior(above) for prior, above in zip(self.priors, z[1:], strict=True)]
        p.append(standard_normal(z[-1]))
        ratios = [
            p_l.log_prob(z_l) - q_l.log_prob(z_l) for p_l, q_l, z_l in zip(p, q, z, strict=True)
        ]
        return Proposal(z[0], torch.stack(ratios).sum(0))

    def encoder_nets(self) -> Sequence[tuple[int, nn.Module]]:
        """Lists the K modalities' nets and the L − 1 of the path."""
        return [(1, net) for net in (*self.encoders, *self.paths)]
