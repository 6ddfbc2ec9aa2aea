"""CMMA: the decoders read z alone, whose prior is given by the condition.

References:
    G. Pandey, A. Dukkipati, "Variational methods for conditional multimodal deep learning", IJCNN
    2017 (arXiv:1603.01801); as the baseline of M. Suzuki, K. Nakayama, Y. Matsuo, IPSJ Journal
    59(3), 2018, section 4.3.
"""

from collections.abc import Mapping
from typing import ClassVar

from mmgen.batch import Batch
from mmgen.latent.base import symbol
from mmgen.latent.encoder import SubsetEncoder
from mmgen.latent.gaussian import DiagonalGaussian, gaussian
from mmgen.modality import Modality
from mmgen.models.conditional import Conditional, ConditionalSettings, resolved_directions


class CMMA(Conditional):
    """One direction, p(x_T|x_C): what is given sets the prior of z, and the decoders read z alone.

    p(x_T|x_C) = ∫ Π p(x_k|z) p(z|x_C) dz. Maximises

    L = Σ_{k∈T} E_q(z|x_T,x_C)[log p(x_k|z)] − β KL(q(z|x_T, x_C) ‖ p(z|x_C)).
    """

    kind: ClassVar[str] = "cmma"
    api_version: ClassVar[int] = 1
    equation: ClassVar[tuple[str, ...]] = (
        "Σ_{k∈T} log p(x_k | z)",
        "− β KL( q(z | x) ‖ p(z | x_C) )",
    )

    def __init__(self, modalities: Mapping[str, Modality], settings: ConditionalSettings) -> None:
        used, directions = resolved_directions(modalities, settings.targets, settings.given)
        super().__init__(used, settings, directions)
        C = directions.given
        known = {n: used[n] for n in C}
        self.prior_encoder = SubsetEncoder(known, [C], 2 * self.latent, settings.fusion)

    def prior(self, given: Batch) -> DiagonalGaussian:
        """Returns p(z|x_C)."""
        return gaussian(self.prior_encoder(given)[0], symbol("p", self.directions.given))
