"""Commands from the start of the process to its end."""

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.measuring import OURS, Measured, Options, Section, Way, alternate, timed

CONFIGURATION = """
[data]
source = "synthetic"
rows = 200

[modalities.image]
kind = "image"

[modalities.label]
kind = "label"
classes = ["A", "B", "C"]

[model]
kind = "jmvae-kl"

[train]
epochs = 1
"""


def measure(options: Options) -> Section:
    with tempfile.TemporaryDirectory() as folder:
        run, picture = Path(folder) / "run", Path(folder) / "pictures.png"
        configuration = Path(folder) / "run.toml"
        configuration.write_text(CONFIGURATION)
        _mmgen("train", configuration, "--out", run, "--no-figures")()
        generate = ("generate", run, "--given", "label=A", "--targets", "image", "-o", picture)
        torch, python = _python("import torch"), _python("pass")
        lines = (
            Measured(
                "mmgen --help",
                alternate({OURS: _mmgen("--help"), "python -c pass": python}, options.rounds),
            ),
            Measured(
                "mmgen generate, 16 pictures",
                alternate({OURS: _mmgen(*generate), "import torch": torch}, options.rounds),
            ),
        )
    return Section(
        "Start-up",
        "Whole commands, from the start of the process to its end, against the least there is.",
        lines,
    )


def _mmgen(*words: object) -> Way:
    return _process(sys.executable, "-m", "mmgen", *words)


def _python(code: str) -> Way:
    return _process(sys.executable, "-c", code)


def _process(*words: object) -> Way:
    command = [str(word) for word in words]

    def run() -> object:
        return subprocess.run(
            command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    return timed(run)
