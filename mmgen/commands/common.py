"""What the verbs share: global options, and the options that several of them take."""

from dataclasses import dataclass, field
from typing import Annotated

import typer


@dataclass
class Settings:
    """The options that stand before the verb.

    Attributes:
        plugins: One-file plugins: module names or paths of ``.py`` files.
        debug: Whether errors show their traceback.
    """

    plugins: list[str] = field(default_factory=list)
    debug: bool = False


Device = Annotated[
    str | None,
    typer.Option(
        help="Where to compute: auto (CUDA, then MPS, then CPU), cpu, cuda, cuda:1 or mps.",
        show_default="auto",
    ),
]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
