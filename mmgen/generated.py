"""What was generated: a distribution for each target, and the z that they follow from."""

from collections.abc import Iterator, Mapping

from torch import Tensor
from torch.distributions import Distribution

from mmgen.brief import LONGEST, cut


class Generated(Mapping[str, Distribution]):
    """p(x_k | z) by target, and :attr:`z`.

    Attributes:
        z: ``(samples, Z)``, or ``(samples, rows, Z)`` if several rows were given; with several
            layers of latents ``(..., L, Z)``, of which decoders read the first. The distributions
            have the batch shape ``(samples,)`` or ``(samples, rows)``.
    """

    def __init__(self, distributions: Mapping[str, Distribution], z: Tensor) -> None:
        self._distributions = dict(distributions)
        self.z = z

    def __getitem__(self, name: str) -> Distribution:
        return self._distributions[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._distributions)

    def __len__(self) -> int:
        return len(self._distributions)

    def __repr__(self) -> str:
        shapes = {n: (*p.batch_shape, *p.event_shape) for n, p in self.items()}
        told = ", ".join(f"{n} {shape}" for n, shape in shapes.items())
        return f"Generated({cut(told, LONGEST - 60)}{', ' if told else ''}z {tuple(self.z.shape)})"
