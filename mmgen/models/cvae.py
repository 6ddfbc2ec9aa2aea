"""CVAE: the decoders read what is given beside z, and z has the prior N(0, I).

References:
    D. P. Kingma, D. J. Rezende, S. Mohamed, M. Welling, "Semi-supervised Learning with Deep
    Generative Models", NeurIPS 2014; K. Sohn, H. Lee, X. Yan, "Learning Structured Output
    Representation using Deep Conditional Generative Models", NeurIPS 2015; as the baseline of
    M. Suzuki, K. Nakayama, Y. Matsuo, IPSJ Journal 59(3), 2018, section 4.3, equation A.1.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from mmgen.batch import Batch
from mmgen.latent.gaussian import DiagonalGaussian, standard_normal
from mmgen.modality import Modality
from mmgen.models.conditional import Conditional, ConditionalSettings, resolved_directions
from mmgen.nets.by_modality import ByModality
from mmgen.nets.dry_run import features


class CVAE(Conditional):
    """One direction, p(x_T|x_C): the decoders read what is given beside z, which holds the rest.

    p(x_T|x_C) = ∫ Π_{k∈T} p(x_k|z, x_C) N(z; 0, I) dz. Maximises

    L = Σ_{k∈T} E_q(z|x_T,x_C)[log p(x_k|z, x_C)] − β KL(q(z|x_T, x_C) ‖ N(0, I)).

    The decoders read z and the features of an encoder net of each given modality.
    """

    kind: ClassVar[str] = "cvae"
    api_version: ClassVar[int] = 1
    equation: ClassVar[tuple[str, ...]] = (
        "Σ_{k∈T} log p(x_k | z, x_C)",
        "− β KL( q(z | x) ‖ N(0, I) )",
    )

    def __init__(self, modalities: Mapping[str, Modality], settings: ConditionalSettings) -> None:
        used, directions = resolved_directions(modalities, settings.targets, settings.given)
        nets = {n: used[n].encoder() for n in directions.given}
        condition = sum(features(net, used[n].shape) for n, net in nets.items())
        super().__init__(used, settings, directions, settings.latent + condition)
        self.decoder_given = directions.given
        self.conditions = ByModality(nets)

    def prior(self, given: Batch) -> DiagonalGaussian:  # noqa: ARG002
        """Returns N(0, I), whatever is given."""
        return standard_normal(self.latent, like=self.like)

    def decoder_input(self, z: Tensor, given: Batch | None = None) -> Tensor:
        """Puts the features of x_C beside z ``(..., B, Z)``."""
        assert given is not None, "the decoders of a CVAE read what is given"
        h = [net(given[n]) for n, net in self.conditions.items()]
        return torch.cat([z, torch.cat(h, dim=-1).expand(*z.shape[:-1], -1)], dim=-1)
