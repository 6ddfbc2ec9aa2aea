"""An environment of its own beside this one: packages installed there are seen there alone."""

import os
import shlex
import site
import subprocess
import venv
from pathlib import Path

MARK = "-- end of a command --"
DRIVER = f"""
import ast, sys
from mmgen.cli.app import main
for words in ast.literal_eval(sys.argv[1]):
    sys.argv = ["mmgen", *words]
    try:
        main()
    except SystemExit as stop:
        if stop.code:
            raise
    print({MARK!r}, flush=True)
"""


class Environment:
    """A virtual environment with torch, mmgen and pip of this one, and nothing downloaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder, with_pip=False)
        self.python = folder / "bin" / "python"
        [packages] = folder.glob("lib/python3*/site-packages")
        # Unlike a path, addsitedir reads the .pth files there too: mmgen may be editable.
        lines = [f"import site; site.addsitedir({path!r})\n" for path in site.getsitepackages()]
        (packages / "outer.pth").write_text("".join(lines))

    def run(self, *words: object, cwd: Path) -> str:
        """Runs ``python ...``, and returns what it printed; fails unless its exit code is 0."""
        offline = {
            "PIP_NO_INDEX": "1",
            "PIP_NO_DEPS": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # as --no-build-isolation: pip sets isolation to this
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "OMP_NUM_THREADS": "1",
            "PYTEST_ADDOPTS": "-p no:cacheprovider",
        }
        left_out = ("PYTHONPATH", "MMGEN_PLUGINS", "VIRTUAL_ENV")
        inherited = {name: value for name, value in os.environ.items() if name not in left_out}
        done = subprocess.run(
            [self.python, *map(str, words)],
            cwd=cwd,
            env=inherited | offline,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{words} gave {done.returncode}:\n{done.stdout}"
        return done.stdout

    def mmgen(self, *commands: str, cwd: Path) -> list[str]:
        """Runs several command lines of mmgen in one process, which imports torch once.

        Returns:
            What each printed; fails if one does not end with exit code 0.
        """
        lines = [shlex.split(command) for command in commands]
        printed = self.run("-c", DRIVER, repr(lines), cwd=cwd).split(MARK)
        assert len(printed) == len(lines) + 1
        return printed[:-1]

    def sh(self, script: str, cwd: Path) -> str:
        """Runs the lines of a shell script that call mmgen, pip and python, and returns the output.

        Lines of mmgen that follow each other share a process.
        """
        printed, waiting = [], []
        for line in [*script.splitlines(), ""]:
            words = shlex.split(line, comments=True)
            if words[:1] == ["mmgen"]:
                waiting.append(shlex.join(words[1:]))
                continue
            if waiting and (words or line == ""):
                printed += self.mmgen(*waiting, cwd=cwd)
                waiting = []
            if words:
                module = ["-m", "pip"] if words[0] == "pip" else []
                assert words[0] in ("pip", "python"), f"cannot run {line!r}"
                printed.append(self.run(*module, *words[1:], cwd=cwd))
        return "".join(printed)
