"""Hierarchical JMVAE: L stochastic layers, so that a missing modality does not pull z away.

References:
    M. Suzuki, K. Nakayama, Y. Matsuo, "Deep generative models for bidirectional generation
    between different modalities", IPSJ Journal 59(3), 859–873, 2018, equations 7–9.
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mmgen.batch import Batch
from mmgen.inference.divergence import divergence
from mmgen.latent.chain import Ascent, Chain, Layers
from mmgen.latent.gaussian import GaussianHead, standard_normal
from mmgen.modality import Modality
from mmgen.model import Model, ModelSettings, log_likelihoods
from mmgen.nets.blocks import mlp
from mmgen.nets.by_modality import ByModality
from mmgen.nets.dry_run import features
from mmgen.objective import Objective, prior_kl, reconstruction
from mmgen.settings import Depth, Widths
from mmgen.subsets import hierarchical_nets


class Hierarchical(Model):
    """Layers of latents, so that a missing modality does not pull away what decoders read.

    The topmost holds what all modalities share; decoders read the lowest.

    p(x, z) = p(z_L) Π_l p(z_{l−1}|z_l) Π_k p(x_k|z_1), q(z_1..z_L|x) = Π_l q(z_l|x), where each
    q(z_l|x) is read off h_l = path_l(h_{l−1}), the features of a deterministic path h_1 → … → h_L;
    with ``bottom_up`` = mean, h_l = path_l(E_q[z_{l−1}]). Maximises

    L = Σ_k E_q(z_1|x)[log p(x_k|z_1)] − β Σ_l E_q(z_{l+1}|x) KL(q(z_l|x) ‖ p(z_l|z_{l+1})),

    with p(z_L|z_{L+1}) := N(0, I). With ``bottom_up`` = sample, h_l = path_l(z_{l−1}): then q is
    q(z_1|x) Π_l q(z_l|z_{l−1}), and below L the KL is log q(z_l|·) − log p(z_l|z_{l+1}) at the
    draws. L = 1 is JMVAE.
    """

    kind: ClassVar[str] = "hierarchical"
    api_version: ClassVar[int] = 1
    equation: ClassVar[tuple[str, ...]] = (
        "Σ_k log p(x_k | z_1)",
        "− β Σ_l KL( q(z_l | x) ‖ p(z_l | z_{l+1}) )",
        "with p(z_L | z_{L+1}) = N(0, I)",
    )
    formula: ClassVar[str] = "K + L − 1"

    class Settings(ModelSettings):
        """Hierarchical JMVAE (eq. 7–9).

        Attributes:
            latent: Z, the size of every z_l.
            layers: L, the stochastic layers; 2 in the paper.
            fusion: Widths of layers that join the encoders of the modalities.
            bottom_up: What q(z_l|·) reads of the layer below: features, which q(z_{l−1}|·) is read
                off too; mean, that of z_{l−1}, as in the authors' code; or sample, a draw of
                z_{l−1}.
            widths: Widths of the nets between layers, of the posterior's path and of the prior;
                D512R-D512R in the paper.
        """

        layers: Depth = 2
        bottom_up: Literal["features", "mean", "sample"] = "features"
        fusion: Widths = ()
        widths: Annotated[Widths, Field(min_length=1)] = (512, 512)

    def __init__(
        self, modalities: Mapping[str, Modality], settings: "Hierarchical.Settings"
    ) -> None:
        super().__init__(modalities, settings)
        Z, fusion, widths = self.latent, settings.fusion, settings.widths
        self.encoders = ByModality({n: m.encoder() for n, m in modalities.items()})
        joined = sum(features(net, modalities[n].shape) for n, net in self.encoders.items())
        self.fusion = mlp(joined, fusion)
        self.bottom_up = settings.bottom_up
        if self.bottom_up == "sample":
            self.equation = (  # type: ignore[misc]
                "Σ_k log p(x_k | z_1)",
                "− β Σ_l KL( q(z_l | z_{l−1}) ‖ p(z_l | z_{l+1}) )",
                "with z_0 = x, p(z_L | z_{L+1}) = N(0, I)",
            )
        # q(z_l|·) = posterior_l(h_l), h_l = path_l of h_{l−1} or z_{l−1}
        h = [[joined, *fusion][-1], *[widths[-1]] * (settings.layers - 1)]
        reads = h[:-1] if self.bottom_up == "features" else [Z] * (settings.layers - 1)
        self.paths = nn.ModuleList(mlp(before, widths) for before in reads)
        self.posteriors = nn.ModuleList(GaussianHead(size, Z) for size in h)
        # p(z_l|z_{l+1}), from l = 1 upwards
        self.priors = nn.ModuleList(
            nn.Sequential(mlp(Z, widths), GaussianHead(widths[-1], Z)) for _ in h[:-1]
        )

    def prior(self, given: Batch) -> Chain:  # noqa: ARG002
        """Returns p(z_L) Π_l p(z_{l−1}|z_l)."""
        top = standard_normal(self.latent, like=self.like)
        return Chain(top, list(self.priors), "p(z)")

    def posterior(self, x: Batch) -> Layers | Ascent | None:
        """Returns q(z_1..z_L|x) of all modalities: there are no other encoders."""
        return self._climb(self.encode_each(x)) if {*x} == {*self.names} else None

    def objective(self, x: Batch) -> Objective:
        """Returns the terms of −L."""
        q = self._climb(self.encode_each(x))
        z = q.rsample()
        p = self.prior(x).given(z)

        decoded = log_likelihoods(self, x, z)
        masks = x.present or {}
        terms = [reconstruction(n, log_p, masks.get(n)) for n, log_p in decoded.items()]
        L = len(self.posteriors)
        for level, (q_l, p_l) in enumerate(zip(q.given(z), p, strict=True), start=1):
            z_l = z[..., level - 1, :]
            if self.bottom_up == "sample" and level < L:
                # z_{l+1} was read off this z_l: given z_{l+1}, z_l is no draw of q_l.
                kl = q_l.log_prob(z_l) - p_l.log_prob(z_l)
            else:
                kl = divergence(q_l, p_l, z_l)
            terms.append(prior_kl(kl, f"KL of z{level} to its prior", f"z{level}"))
        return Objective(terms)

    def decoder_input(self, z: Tensor, given: Batch | None = None) -> Tensor:  # noqa: ARG002
        """Returns z_1 of z ``(..., L, Z)``."""
        return z[..., 0, :]

    def encode_each(self, x: Batch) -> dict[str, Tensor]:
        """Encodes modalities each by itself, ``(B, features)`` each."""
        return {n: net(x[n]) for n, net in self.encoders.items() if n in x}

    def join(self, encoded: Mapping[str, Tensor]) -> Chain:
        """Returns q(z_L|x), then down to z_1: missing values disturb the top layer least."""
        top, L = self._climb(encoded).highest, len(self.posteriors)
        return Chain(top, list(self.priors), f"q(z{L} | x), down to z1" if L > 1 else "q(z | x)")

    def imputed_posterior(self, x: Batch) -> Chain:
        """Returns q(z_L|x), imputed or not, then down to z_1."""
        return self.join(self.encode_each(x))

    def encoder_nets(self) -> Iterator[tuple[int, nn.Module]]:
        """Yields the K modalities' nets and the L − 1 of the path."""
        yield from super().encoder_nets()
        yield from ((1, net) for net in self.paths)

    @classmethod
    def encoder_count(cls, settings: ModelSettings, modalities: int) -> int:
        """Returns K + L − 1."""
        return hierarchical_nets(modalities, getattr(settings, "layers", 1))

    def _climb(self, encoded: Mapping[str, Tensor]) -> Layers | Ascent:
        """Returns q(z_1..z_L|x), each layer reading the one below as ``bottom_up`` says."""
        h = self.fusion(torch.cat([encoded[n] for n in self.names], dim=-1))
        q = [self.posteriors[0](h)]
        above = list(zip(self.paths, self.posteriors[1:], strict=True))
        if self.bottom_up == "sample":
            return Ascent(q[0], [nn.Sequential(*both) for both in above], "q(z | x)")
        for path, posterior in above:
            h = path(h if self.bottom_up == "features" else q[-1].mean)
            q.append(posterior(h))
        return Layers(q, "q(z | x)")
