"""CVAE: the decoders read what is given beside z, and z has the prior N(0, I).

References:
    D. P. Kingma, D. J. Rezende, S. Mohamed, M. Welling, "Semi-supervised Learning with Deep
    Generative Models", NeurIPS 2014; K. Sohn, H. Lee, X. Yan, "Learning Structured Output
    Representation using Deep Conditional Generative Models", NeurIPS 2015; as the baseline of
    M. Suzuki, K. Nakayama, Y. Matsuo, IPSJ Journal 59(3), 2018, section 4.3, equation A.1.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mmgen.modality import Modality
from mmgen.models.base import Batch
from mmgen.models.conditional import Conditional, members
from mmgen.nets.posterior import Gaussian, features, standard_normal


class CVAE(Conditional):
    """Conditional VAE, one direction: p(x_T|x_C) = ∫ Π_{k∈T} p(x_k|z, x_C) N(z; 0, I) dz.

    Maximises L = Σ_{k∈T} E_q(z|x_T,x_C)[log p(x_k|z, x_C)] − β KL(q(z|x_T, x_C) ‖ N(0, I)).
    The decoders read z and the features of an encoder net of each given modality.

    Args:
        modalities: The K modalities by name; only those of T and C take part.
        latent: Z, the size of z.
        fusion: Widths of the posterior's layers between concatenation and Gaussian.
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
        nets = [used[n].encoder() for n in C]
        sizes = [features(net, used[n].shape) for n, net in zip(C, nets, strict=True)]
        super().__init__(used, latent, fusion, T, C, condition=sum(sizes))
        self.conditions = nn.ModuleList(nets)

    def conditional_prior(self, x: Batch, like: Tensor) -> Gaussian:  # noqa: ARG002
        """Returns N(0, I), whatever is given."""
        return standard_normal(like)

    def read(self, z: Tensor, x: Batch) -> Tensor:
        """Puts the features of x_C beside z ``(..., B, Z)``."""
        C = self.given or ()
        h = torch.cat([net(x[n]) for n, net in zip(C, self.conditions, strict=True)], dim=-1)
        return torch.cat([z, h.expand(*z.shape[:-1], -1)], dim=-1)
