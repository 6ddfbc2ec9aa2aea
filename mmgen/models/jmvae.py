"""JMVAE and JMVAE-kl: one z for all modalities, and an encoder for every subset.

References:
    M. Suzuki, K. Nakayama, Y. Matsuo, "Deep generative models for bidirectional generation
    between different modalities", IPSJ Journal 59(3), 859–873, 2018, equations 5 and 10;
    "Joint Multimodal Learning with Deep Generative Models", arXiv:1611.01891, 2016.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import Tensor

from mmgen.batch import Batch
from mmgen.inference.bound import evidence_bound
from mmgen.inference.divergence import divergence
from mmgen.latent.base import Latent, symbol
from mmgen.latent.encoder import SubsetEncoder
from mmgen.latent.family import Family, Gaussians
from mmgen.latent.flow import ConditionalFlow
from mmgen.latent.gaussian import DiagonalGaussian, gaussian, standard_normal
from mmgen.modality import Modality
from mmgen.model import Model, ModelSettings
from mmgen.objective import Objective, subset_kl
from mmgen.settings import MOST, Depth, Widths
from mmgen.subsets import Subset, chosen, ordered, subset_encoder_nets

JOINT = "q(z | x)"


class JointlyEncoded(Model):
    """One latent z ~ N(0, I), and q(z|x) by an encoder of all modalities together.

    Attributes:
        encoder: The encoders of the subsets that have one, all modalities among them.
    """

    encoder: SubsetEncoder

    def prior(self, given: Batch) -> DiagonalGaussian:  # noqa: ARG002
        """Returns N(0, I)."""
        return standard_normal(self.latent, like=self.like)

    def encode_each(self, x: Batch) -> dict[str, Tensor]:
        """Encodes modalities by the joint encoder's nets, ``(B, ·)`` each."""
        return self.encoder.encode_each(x, self.names)

    def join(self, encoded: Mapping[str, Tensor]) -> DiagonalGaussian:
        """Returns q(z|x) of modalities that are encoded."""
        return gaussian(self.encoder.join(encoded, self.names)[0], JOINT)

    def imputed_posterior(self, x: Batch) -> DiagonalGaussian:
        """Returns q(z|x), imputed or not."""
        return self.join(self.encode_each(x))


class JMVAE(JointlyEncoded):
    """One latent z behind all modalities: one encoder reads them together, one decoder each.

    Maximises, with the joint encoder q(z|x) (eq. 5),

    L = Σ_k E_q(z|x)[log p(x_k|z)] − β KL(q(z|x) ‖ N(0, I)).
    """

    kind: ClassVar[str] = "jmvae"
    api_version: ClassVar[int] = 1
    equation: ClassVar[tuple[str, ...]] = ("Σ_k log p(x_k | z)", "− β KL( q(z | x) ‖ N(0, I) )")
    formula: ClassVar[str] = "K"

    class Settings(ModelSettings):
        """JMVAE (eq. 5): one joint encoder.

        Attributes:
            latent: Z, the size of z: by how many numbers a row is described; 64 in the paper's
                MNIST.
            fusion: Widths of layers that join the encoders; in the paper none, and 1024 for CelebA.
        """

        fusion: Widths = ()

    def __init__(self, modalities: Mapping[str, Modality], settings: "JMVAE.Settings") -> None:
        super().__init__(modalities, settings)
        self.encoder = SubsetEncoder(modalities, [self.names], 2 * self.latent, settings.fusion)

    def posterior(self, x: Batch) -> DiagonalGaussian | None:
        """Returns q(z|x) of all modalities."""
        return gaussian(self.encoder(x)[0], JOINT) if {*x} == {*self.names} else None

    def objective(self, x: Batch) -> Objective:
        """Returns the terms of −L."""
        q = gaussian(self.encoder(x)[0], JOINT)
        return Objective(evidence_bound(self, x, q, q.rsample()))

    @classmethod
    def encoder_count(cls, settings: ModelSettings, modalities: int) -> int:  # noqa: ARG003
        """Returns K."""
        return modalities


class JMVAEKL(JointlyEncoded):
    """One latent z behind all modalities, which an encoder for each subset of them learns to find.

    Maximises, with a weight α for every subset S that has an encoder (eq. 10),

    L = Σ_k E_q(z|x)[log p(x_k|z)] − β KL(q(z|x) ‖ N(0, I)) − α Σ_S KL(q(z|x) ‖ q(z|x_S)).

    With α = 0 this is JMVAE.
    """

    kind: ClassVar[str] = "jmvae-kl"
    api_version: ClassVar[int] = 1
    equation: ClassVar[tuple[str, ...]] = (*JMVAE.equation, "− α Σ_S KL( q(z | x) ‖ q(z | x_S) )")
    formula: ClassVar[str] = "2^(K−1)·K"

    class Settings(JMVAE.Settings):
        """JMVAE-kl (eq. 10): an encoder for every subset of modalities.

        Attributes:
            latent: Z, the size of z: by how many numbers a row is described.
            fusion: Widths of layers that join the encoders of the modalities.
            subsets: Which subsets of the modalities get an encoder: all, 2^K − 2 of them; single,
                each modality; none; or a list such as ["image", "image+label"].
            alpha: α, the weight of each subset's KL; 1 in the paper, which sums them (eq. 10). The
                authors' published code weighs their mean: its α is α / (2^K − 2) here, 0.5 for two
                modalities.
            subset_posterior: What q(z|x_S) is: gaussian, as in the paper, or flow, a normalising
                flow (extra ``flow``).
            subset_gradient: Whether the subsets' KL moves the joint posterior too, as in the paper.
            flow_transforms: Of subset_posterior = flow: how many transformations.
            flow_widths: Of subset_posterior = flow: widths of the nets in each.
        """

        subsets: Literal["none", "single", "all"] | tuple[str, ...] = "all"
        alpha: Annotated[float, Field(ge=0, le=MOST)] = 1.0
        subset_posterior: Literal["gaussian", "flow"] = "gaussian"
        subset_gradient: bool = True
        flow_transforms: Depth = 3
        flow_widths: Widths = (128, 128)

    def __init__(self, modalities: Mapping[str, Modality], settings: "JMVAEKL.Settings") -> None:
        super().__init__(modalities, settings)
        self.alpha, self.subset_gradient = settings.alpha, settings.subset_gradient
        self.subsets = chosen(self.names, settings.subsets)
        subsets = [*self.subsets, self.names]
        self.encoder = SubsetEncoder(modalities, subsets, 2 * self.latent, settings.fusion)
        transforms, widths = settings.flow_transforms, settings.flow_widths
        flows = bool(self.subsets) and settings.subset_posterior == "flow"
        self.flow = ConditionalFlow(self.latent, transforms, widths) if flows else None

    @property
    def family(self) -> Family:
        """What the posteriors given proper subsets are."""
        return self.flow or Gaussians(self.latent)

    def posterior(self, x: Batch) -> Latent | None:
        """Returns q(z|x_S) of a subset that has an encoder; the full one always has."""
        subset = ordered(self.names, x)
        if subset not in self.encoder.subsets:
            return None
        h = self.encoder(x, subset)[0]
        return gaussian(h, JOINT) if subset == self.names else self.family(h, symbol("q", subset))

    def objective(self, x: Batch) -> Objective:
        """Returns the terms of −L."""
        h = self.encoder(x)  # (S + 1, B, 2Z), the joint one last
        q = gaussian(h[-1], JOINT)
        z = q.rsample()
        terms = evidence_bound(self, x, q, z)
        if self.subsets:
            if not self.subset_gradient:
                q, z = q.detach(), z.detach()
            kl = divergence(q, self.family(h[:-1], "q(z | x_S)"), z)  # (S, B)
            each = zip(self.subsets, kl, strict=True)
            terms += [subset_kl(S, value, self._title(S), self.alpha) for S, value in each]
        return Objective(terms)

    @staticmethod
    def _title(subset: Subset) -> str:
        return f"KL to {symbol('q', subset)}"

    @classmethod
    def encoder_count(cls, settings: ModelSettings, modalities: int) -> int | None:
        """Returns 2^(K−1)·K if all subsets have encoders."""
        every = getattr(settings, "subsets", None) == "all"
        return subset_encoder_nets(modalities) if every else None
