"""CMMA: the decoders read z alone, whose prior is given by the condition.

References:
    G. Pandey, A. Dukkipati, "Variational methods for conditional multimodal deep learning", IJCNN
    2017 (arXiv:1603.01801); as the baseline of M. Suzuki, K. Nakayama, Y. Matsuo, IPSJ Journal
    59(3), 2018, section 4.3.
"""

from collections.abc import Mapping, Sequence

from torch import Tensor

from mmgen.modality import Modality
from mmgen.models.base import Batch
from mmgen.models.conditional import Conditional, members
from mmgen.nets.posterior import Gaussian, SubsetEncoder, rows


class CMMA(Conditional):
    """Conditional multimodal autoencoder, one direction: p(x_T|x_C) = ∫ Π p(x_k|z) p(z|x_C) dz.

    Maximises L = Σ_{k∈T} E_q(z|x_T,x_C)[log p(x_k|z)] − β KL(q(z|x_T, x_C) ‖ p(z|x_C)).

    Args:
        modalities: The K modalities by name; only those of T and C take part.
        latent: Z, the size of z.
        fusion: Widths of the layers between concatenation and Gaussian, of posterior and prior.
        targets: T, what is generated.
        given: C, what it is generated from; all that are not targets by default.
    """

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        *,
        latent: int,
        fusion: Sequence[int] = (),
        targets: Sequence[str],
        given: Sequence[str] = (),
    ) -> None:
        used, T, C = members(modalities, targets, given)
        super().__init__(used, latent, fusion, T, C)
        self.prior_encoder = SubsetEncoder({n: used[n] for n in C}, [C], latent, fusion)

    def conditional_prior(self, x: Batch, like: Tensor) -> Gaussian:  # noqa: ARG002
        """Returns p(z|x_C)."""
        return rows(self.prior_encoder({n: x[n] for n in self.given or ()}), 0)

    def read(self, z: Tensor, x: Batch) -> Tensor:  # noqa: ARG002
        """Returns z alone."""
        return z
