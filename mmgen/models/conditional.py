"""What CVAE and CMMA share: one direction, from some modalities to some others.

References:
    M. Suzuki, K. Nakayama, Y. Matsuo, "Deep generative models for bidirectional generation
    between different modalities", IPSJ Journal 59(3), 859–873, 2018, section 4.3.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from mmgen.batch import Batch
from mmgen.errors import ConfigError, listed, nearest
from mmgen.inference.bound import evidence_bound
from mmgen.latent.encoder import SubsetEncoder
from mmgen.latent.gaussian import DiagonalGaussian, gaussian
from mmgen.modality import Modality
from mmgen.model import Directions, Model, ModelSettings
from mmgen.objective import Objective
from mmgen.settings import Widths
from mmgen.subsets import Subset, ordered


class ConditionalSettings(ModelSettings):
    """A model of one direction.

    Attributes:
        latent: Z, the size of z: by how many numbers a row is described.
        fusion: Widths of layers that join the encoders of the modalities.
        targets: What is generated.
        given: What it is generated from; all other modalities if left out.
    """

    fusion: Widths = ()
    targets: Annotated[tuple[str, ...], Field(min_length=1)]
    given: tuple[str, ...] = ()


class Conditional(Model):
    """p(x_T|x_C) for disjoint sets of modalities: targets T and given C.

    Maximises L = Σ_{k∈T} E_q(z|x_T,x_C)[log p(x_k|z, ·)] − β KL(q(z|x_T, x_C) ‖ p(z|·)), where the
    subclass says what the decoders read beside z, and which prior z has.

    Args:
        modalities: The modalities of T and C by name.
        settings: The settings.
        directions: T and C, see :func:`resolved_directions`.
        inputs: The number of features that decoders read.
    """

    Settings = ConditionalSettings

    def __init__(
        self,
        modalities: Mapping[str, Modality],
        settings: ConditionalSettings,
        directions: Directions,
        inputs: int | None = None,
    ) -> None:
        super().__init__(modalities, settings, targets=directions.targets, inputs=inputs)
        self.directions: Directions = directions
        self.encoder = SubsetEncoder(modalities, [self.names], 2 * self.latent, settings.fusion)

    def posterior(self, x: Batch) -> DiagonalGaussian | None:
        """Returns q(z|x_T, x_C)."""
        return gaussian(self.encoder(x)[0], "q(z | x)") if {*x} == {*self.names} else None

    def objective(self, x: Batch) -> Objective:
        """Returns the terms of −L."""
        q = gaussian(self.encoder(x)[0], "q(z | x)")
        return Objective(evidence_bound(self, x, q, q.rsample()))

    @classmethod
    def example_settings(cls, names: Subset) -> dict[str, Any]:
        """Generates the first modality from the others."""
        return {"targets": names[:1]}


def resolved_directions(
    modalities: Mapping[str, Modality], targets: Sequence[str], given: Sequence[str]
) -> tuple[dict[str, Modality], Directions]:
    """Checks T and C, and returns their modalities, and T and C in the experiment's order.

    Args:
        modalities: All K, by name.
        targets: T.
        given: C; all that are not targets if it is empty.

    Raises:
        ConfigError: If a name is unknown or on both sides, or a side is empty.
    """
    for key, names in (("targets", targets), ("given", given)):
        for wrong in (n for n in names if n not in modalities):
            raise ConfigError(
                f"model.{key}: no modality {wrong!r}; this experiment has "
                f"{listed(modalities)}{nearest(wrong, modalities)}"
            )
    known = tuple(modalities)
    T = ordered(known, targets)
    C = ordered(known, given or [n for n in known if n not in T])
    if both := [n for n in T if n in C]:
        raise ConfigError(f"model: {listed(both)} is both given and a target")
    if not C:
        raise ConfigError("model.targets: all modalities; leave one out, to generate them from")
    used = ordered(known, [*T, *C])
    return {n: modalities[n] for n in used}, Directions(given=C, targets=T)
