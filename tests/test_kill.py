"""A run that is killed at any moment goes on where it was, and ends bit for bit the same."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import ROOT, small
from safetensors import safe_open
from safetensors.torch import load_file

KILLS = 30

# One process imports torch and then forks: a child starts training at once. The parent runs no
# operation of torch's, so that no thread is lost in the fork. Each line read is a list of words
# for the command line; each line written, the child's process and then how it ended.
SERVER = """
import json, os, sys
import torch
torch.set_num_threads(1)
import mmgen.training.session, mmgen.run, mmgen.gallery, mmgen.cli.train, mmgen.training.plan
from mmgen.cli.app import main
import torch._dynamo
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        sys.stdin.close()
        log = os.open(os.environ["LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.argv = ["mmgen", *json.loads(line)]
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
        os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Server:
    """Runs the command line in children that can be killed."""

    def __init__(self, log: Path, **environment: str) -> None:
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "LOG": str(log), "OMP_NUM_THREADS": "1", **environment},
            cwd=ROOT,
        )

    def start(self, *words: object) -> int:
        """Starts a command, and returns its process."""
        self.process.stdin.write(json.dumps([*map(str, words)]) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def end(self) -> int:
        """Waits for the command, and returns its exit code, or minus the signal that ended it."""
        return int(self.process.stdout.readline())

    def run(self, *words: object, kill_after: float | None = None) -> int:
        """Returns the exit code, or minus the signal that ended it."""
        child = self.start(*words)
        if kill_after is not None:
            time.sleep(kill_after)
            with suppress(ProcessLookupError):  # it may have ended well before
                os.kill(child, signal.SIGKILL)
        return self.end()

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()


@pytest.fixture
def server(tmp_path):
    made = Server(tmp_path / "log.txt")
    yield made
    made.close()


def all_readable(run: Path) -> None:
    """Reads every file of a run that has its final name."""
    for file in run.rglob("*"):
        if file.name.startswith("."):
            continue
        if file.suffix == ".json":
            assert json.loads(file.read_text())
        elif file.suffix == ".jsonl":
            lines = [json.loads(line) for line in file.read_text().splitlines()]
            assert [line["epoch"] for line in lines] == list(range(1, len(lines) + 1))
        elif file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as tensors:
                assert all(tensors.get_tensor(name) is not None for name in tensors.keys())  # noqa: SIM118
        elif file.suffix == ".png":
            assert file.read_bytes().endswith(b"IEND\xaeB`\x82")
        elif file.suffix == ".html":
            assert file.read_text().rstrip().endswith("</html>")


def words(data: Path, run: Path, epochs: int) -> list[str]:
    """Returns the command of a small training that does not say where it stops by itself."""
    config = ROOT / "examples" / "glyphs.toml"
    return ["train", str(config), *small(data, epochs), "--out", str(run)]


@pytest.mark.ci
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_a_run_killed_at_30_random_moments_ends_as_one_that_was_not(server, small_glyphs, tmp_path):
    epochs = 20
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    started = time.perf_counter()
    assert server.run(*words(small_glyphs, whole, epochs)) == 0, server.log.read_text()
    duration = time.perf_counter() - started

    moments = random.Random(0)
    kills = 0
    while kills < KILLS:
        # Mostly short lives, so that it is killed while it starts, trains, saves and draws.
        life = moments.uniform(0, 1) * max(duration / 6, 0.3)
        command = [*words(small_glyphs, killed, epochs), "--resume"]
        ended = server.run(*command, kill_after=life)
        assert ended in (-signal.SIGKILL, 0), server.log.read_text()
        kills += 1
        if killed.exists():
            all_readable(killed)
    assert server.run(*words(small_glyphs, killed, epochs), "--resume") == 0, server.log.read_text()

    all_readable(killed)
    for weights in ("last", "best"):
        first, second = (load_file(run / f"{weights}.safetensors") for run in (whole, killed))
        assert first.keys() == second.keys()
        assert [n for n in first if not first[n].equal(second[n])] == []
    losses = [
        [
            json.loads(line)["validation"]
            for line in (run / "metrics.jsonl").read_text().splitlines()
        ]
        for run in (whole, killed)
    ]
    assert losses[0] == losses[1]
    assert list(killed.rglob("*.tmp")) == []
