"""multivae in an environment of its own, asked through a pipe for one piece of work at a time."""

import json
import os
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

SCRIPT = Path(__file__).with_name("peer.py")

SPINNING = 0.3
"""Seconds for which threads of a process may go on turning after its work."""

PACKAGES = ("multivae==1.0.3",)
"""The version that figures are of."""


def environment() -> Path:
    """Returns the Python of an environment with the peer, which is made where it is not yet."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = cache / "mmgen" / "-".join(PACKAGES)
    python = folder / "bin" / "python"
    if not (folder / "made").exists():
        print(f"making an environment with {', '.join(PACKAGES)}: {folder}", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
        (folder / "made").touch()
    return python


class Peer:
    """A process of the peer, which works when it is asked to.

    Attributes:
        name: What it says that it is.
        found: What its last piece of work returned.
    """

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.name = self._read()
        self.found = ""

    def __call__(self) -> float:
        """Lets it work once, and returns the seconds that it took."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        seconds, _, self.found = self._read().partition(" ")
        time.sleep(SPINNING)
        return float(seconds)

    def _read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the peer ended with exit code {self.process.wait()}")
        return line.strip()


@contextmanager
def peer(python: Path, part: str, **options: Any) -> Iterator[Peer]:
    """Starts the peer for a part, and ends it."""
    told = json.dumps({**options, "threads": torch.get_num_threads()})
    with subprocess.Popen(
        [python, SCRIPT, part, told], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Peer(process)
        finally:
            process.kill()
