"""The hooks of a plugin, the marker for them, and the version of their contracts.

A plugin is a module that is named in the entry-point group ``mmgen``, or a file that is named with
``mmgen -p``. It has one or several of these functions, each marked ``@hookimpl``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pluggy

from mmgen.distribution import GROUP

if TYPE_CHECKING:
    from mmgen.command import Command
    from mmgen.modality import Modality
    from mmgen.model import Model
    from mmgen.source import Source

API_VERSION = 1
"""The version of the contracts in :mod:`mmgen.modality`, :mod:`mmgen.model` and
:mod:`mmgen.source`; it grows when plugins must change."""

hookspec = pluggy.HookspecMarker(GROUP)
hookimpl = pluggy.HookimplMarker(GROUP)


@hookspec
def mmgen_modalities() -> list[type[Modality]]:  # type: ignore[empty-body]
    """Returns the modality classes that this plugin provides."""


@hookspec
def mmgen_models() -> list[type[Model]]:  # type: ignore[empty-body]
    """Returns the model classes that this plugin provides."""


@hookspec
def mmgen_sources() -> list[type[Source]]:  # type: ignore[empty-body]
    """Returns the classes of data sources that this plugin provides: ``mmgen data KIND``."""


@hookspec
def mmgen_commands() -> list[Command]:  # type: ignore[empty-body]
    """Returns the commands that this plugin adds to the command line: ``mmgen VERB``."""
