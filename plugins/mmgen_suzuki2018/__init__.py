"""The experiments of Suzuki et al. (2018), from training to table and figures: ``mmgen reproduce``.

References:
    M. Suzuki, K. Nakayama, Y. Matsuo, "Deep generative models for bidirectional generation
    between different modalities", IPSJ Journal 59(3), 859–873, 2018.
"""

from mmgen.command import Command
from mmgen.hooks import hookimpl


@hookimpl
def mmgen_commands() -> list[Command]:
    """Provides ``mmgen reproduce``."""
    from mmgen_suzuki2018.cli import app

    return [Command("reproduce", "Reproduce the paper's tables and figures.", app)]
