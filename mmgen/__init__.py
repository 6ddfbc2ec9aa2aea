"""mmgen: deep generative models over K modalities, any subset generating any other.

``import mmgen`` does not import torch; that happens at the first use of a name below.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mmgen.distribution import warn_of_namesake

if TYPE_CHECKING:
    from mmgen.fitting import train as train
    from mmgen.hooks import hookimpl as hookimpl
    from mmgen.modality import Modality as Modality
    from mmgen.run import Run as Run
    from mmgen.run import load as load

__version__ = "0.1.0"

_HOMES = {
    "Modality": "mmgen.modality",
    "Run": "mmgen.run",
    "hookimpl": "mmgen.hooks",
    "load": "mmgen.run",
    "train": "mmgen.fitting",
}

__all__ = ["Modality", "Run", "__version__", "hookimpl", "load", "train"]

warn_of_namesake()


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'mmgen' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
