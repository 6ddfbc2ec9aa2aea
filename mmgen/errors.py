"""Every error a user can meet, with one base class.

A message says what happened, where (file, key, plugin and its version) and what to do about it.
The command line prints it without a traceback and exits with 2.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class MmgenError(Exception):
    """Base of all errors that a user can cause and fix."""


class ConfigError(MmgenError):
    """A configuration that cannot be: unknown key, wrong type, impossible value."""


class PluginError(MmgenError):
    """A kind that no healthy plugin provides, or a plugin that breaks the contract."""


class DataError(MmgenError):
    """A data set that is missing, damaged, or not what the experiment asks for."""


class RunError(MmgenError):
    """A run folder that is missing, damaged, foreign, or in the way."""


class WriteError(MmgenError):
    """A file or folder that cannot be written: a full disk, a folder without permission."""


class GenerationError(MmgenError):
    """Given values or targets that this run cannot serve."""


class ElsewhereError(MmgenError):
    """Of several processes, another one says what happened: this one ends without a word."""


def nearest(word: str, known: Iterable[str]) -> str:
    """Returns ``"; did you mean 'label'?"`` if a known word is close to ``word``, else ``""``.

    Examples:
        >>> nearest("lable", ["image", "label"])
        "; did you mean 'label'?"
    """
    close = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def listed(words: Iterable[str]) -> str:
    """Returns the words as one readable list: ``"image, label"``, or ``"none"``."""
    return ", ".join(words) or "none"
