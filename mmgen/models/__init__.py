"""The models of the paper, each in a file that reads like its equations, and their hook."""

from mmgen.hooks import hookimpl
from mmgen.model import Model
from mmgen.models.cmma import CMMA
from mmgen.models.cvae import CVAE
from mmgen.models.hierarchical import Hierarchical
from mmgen.models.jmvae import JMVAE, JMVAEKL


@hookimpl
def mmgen_models() -> list[type[Model]]:
    """Provides ``jmvae``, ``jmvae-kl``, ``hierarchical``, ``cvae`` and ``cmma``."""
    return [JMVAE, JMVAEKL, Hierarchical, CVAE, CMMA]
