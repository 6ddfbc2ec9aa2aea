"""The models, each a file that reads like its equations, and the closed table of their names."""

from mmgen.models.base import Batch, Model, Objective, Proposal
from mmgen.models.cmma import CMMA
from mmgen.models.cvae import CVAE
from mmgen.models.hierarchical import Hierarchical
from mmgen.models.jmvae import JMVAE

MODELS: dict[str, type[Model]] = {
    "jmvae": JMVAE,
    "jmvae-kl": JMVAE,
    "hierarchical": Hierarchical,
    "cvae": CVAE,
    "cmma": CMMA,
}
"""What ``model.kind`` may be. The settings of each are in :mod:`mmgen.experiment`."""

__all__ = ["MODELS", "Batch", "Model", "Objective", "Proposal"]
