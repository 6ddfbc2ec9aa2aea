"""The package that ``mmgen plugins new`` writes: one plugin that works, to be made another's."""

import importlib.metadata
import importlib.resources
import keyword
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Literal

from mmgen.brief import OneLine
from mmgen.data.folder import appearing
from mmgen.distribution import FORMER, NAME
from mmgen.errors import PluginError, WriteError
from mmgen.registry import loading

Noun = Literal["modality", "model"]
"""What a package provides."""

FILES = {
    "$module/__init__.py": "$noun/module.py",
    "tests/test_$identifier.py": "$noun/test.py",
    "example.toml": "$noun/example.toml",
    "pyproject.toml": "pyproject.toml",
    "README.md": "$noun/README.md",
}
"""Each file of the package, and the template it is made of."""


@dataclass(frozen=True, repr=False)
class Scaffold(OneLine):
    """What a new package is called, in each place that names it.

    Attributes:
        name: The distribution: ``mmgen-audio``.
        kind: The kind of modality or model, and the entry point: ``audio``.
        noun: Which of the two.
    """

    name: str
    kind: str
    noun: Noun = "modality"

    @classmethod
    def named(cls, name: str, noun: Noun = "modality") -> "Scaffold":
        """Reads the kind off a distribution's name: all after ``mmgen-``, in lower case.

        Raises:
            PluginError: If no new distribution can have the name, or nothing the kind.

        Examples:
            >>> Scaffold.named("mmgen-audio").kind, Scaffold.named("Heart_Rate").kind
            ('audio', 'heart-rate')
        """
        if not re.fullmatch("[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", name):
            raise PluginError(
                f"{name!r} is no name for a package: use letters, digits, and - _ . between them, "
                "such as mmgen-audio"
            )
        normal = re.sub("[-_.]+", "-", name).lower()
        if normal in (NAME, FORMER):
            raise PluginError(
                f"{name!r} is taken: {NAME} is mmgen itself, and {FORMER} is another project; "
                "choose another name, such as mmgen-audio"
            )
        kind = normal.removeprefix("mmgen-")
        if not kind[0].isalpha():
            raise PluginError(
                f"{name!r} would provide the kind {kind!r}, but a kind starts with a letter: "
                "choose another name, such as mmgen-audio"
            )
        return cls(name, kind, noun)

    @property
    def identifier(self) -> str:
        """The kind as Python code can spell it: ``heart_rate``."""
        return self.kind.replace("-", "_")

    @property
    def module(self) -> str:
        """The module: ``mmgen_heart_rate``, which no module of another sort is called."""
        return f"mmgen_{self.identifier}"

    @property
    def class_name(self) -> str:
        """The class: ``HeartRate``, or ``TensorModality`` if the code uses ``Tensor`` already."""
        name = "".join(word.capitalize() for word in self.kind.split("-"))
        code = _template(f"{self.noun}/module.py")
        taken = keyword.iskeyword(name) or re.search(rf"\b{name}\b", code)
        return f"{name}{self.noun.capitalize()}" if taken else name

    def files(self) -> dict[str, str]:
        """Returns the text of each file by its path in the package."""
        words = {
            "name": self.name,
            "kind": self.kind,
            "identifier": self.identifier,
            "module": self.module,
            "class_name": self.class_name,
            "noun": self.noun,
        }

        def filled(text: str) -> str:
            return Template(text).substitute(words)

        return {filled(path): filled(_template(filled(file))) for path, file in FILES.items()}


def _template(file: str) -> str:
    templates = importlib.resources.files(__name__) / "templates"
    return (templates / f"{file}.template").read_text(encoding="utf-8")


def write_package(scaffold: Scaffold, out: Path, plugin_modules: Sequence[str] = ()) -> None:
    """Writes the package, complete or not at all.

    Args:
        scaffold: What it is called.
        out: Its folder, which must not be there yet.
        plugin_modules: One-file plugins, whose kinds are taken too.

    Raises:
        PluginError: If the kind, the plugin's or the distribution's name is taken already.
        WriteError: If the folder is there, or cannot be written.
    """
    _check_free(scaffold, plugin_modules)
    try:
        if out.exists() or out.is_symlink():
            raise WriteError(f"{out} exists; choose another folder with --out")
        with appearing(out.absolute()) as folder:
            for path, text in scaffold.files().items():
                file = folder / path
                file.parent.mkdir(exist_ok=True)
                file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise WriteError(f"{out}: cannot be written: {error.strerror or error}") from error


def _check_free(scaffold: Scaffold, plugin_modules: Sequence[str]) -> None:
    kind = scaffold.kind
    registry = loading.load(plugin_modules, environ={})  # those not listed in MMGEN_PLUGINS too
    for record in registry.records:
        if kind in (record.kinds if scaffold.noun == "modality" else record.models):
            raise PluginError(
                f"the kind {kind!r} exists already, from plugin {record}; choose another name"
            )
    for record in registry.records:
        if record.name == kind:
            raise PluginError(
                f"a plugin {record} is installed already, and is {record.status}: {record.cause}\n"
                "  fix or uninstall it, or choose another name"
            )
    try:
        version = importlib.metadata.version(scaffold.name)
    except importlib.metadata.PackageNotFoundError:
        return
    raise PluginError(
        f"a package {scaffold.name} {version} is installed already, and pip would replace it: "
        f"choose another name, such as mmgen-{kind}"
    )
