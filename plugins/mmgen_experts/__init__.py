"""Models whose posteriors are products or mixtures of one expert for each modality.

M encoder nets give the posteriors of all 2^M − 1 subsets.
"""

from mmgen.hooks import hookimpl
from mmgen.model import Model
from mmgen_experts.mmvae import MMVAE
from mmgen_experts.mopoe import MoPoE
from mmgen_experts.mvae import MVAE
from mmgen_experts.mvtcae import MVTCAE


@hookimpl
def mmgen_models() -> list[type[Model]]:
    """Provides ``mvae``, ``mmvae``, ``mopoe`` and ``mvtcae``."""
    return [MVAE, MMVAE, MoPoE, MVTCAE]
