"""Files that are whole or not there, and folders that one process writes to."""

import errno
import json
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import ROOT, small
from safetensors.torch import load_file

from mmgen.errors import RunError, WriteError
from mmgen.files import atomic, locks
from mmgen.training import run_folder


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    atomic.write(tmp_path / "file", "first")
    atomic.write(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"second"
    assert names(tmp_path) == {"file"}


@pytest.mark.parametrize("broken", ["fsync", "open", "replace"])
def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path, monkeypatch, broken):
    atomic.write(tmp_path / "file", "old")

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, broken, full)
    with pytest.raises(WriteError, match="file: cannot be written: No space left on device"):
        atomic.write(tmp_path / "file", "new")
    monkeypatch.undo()
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == {"file"}


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(WriteError, match="cannot be written: No such file"):
        atomic.write(tmp_path / "nowhere" / "file", "text")


# Locks.


HOLD = """
import sys
from pathlib import Path
from mmgen.files.locks import writing
with writing(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds ``run``."""
    run = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(run)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield run, process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_and_told_who_writes(holder):
    run, process = holder
    refused = pytest.raises(RunError, match=rf"process {process.pid} on .* is writing to this run")
    with refused, locks.writing(run):
        pass


def test_a_link_to_the_folder_leads_to_the_same_lock(holder, tmp_path):
    run, process = holder
    (tmp_path / "link").symlink_to(run)
    refused = pytest.raises(RunError, match=f"process {process.pid}")
    with refused, locks.writing(tmp_path / "link"):
        pass


def test_the_lock_of_a_killed_process_is_free(holder):
    run, process = holder
    process.kill()
    process.wait()
    with locks.writing(run):
        assert str(os.getpid()) in (run / locks.WRITER).read_text()
    assert names(run) == {locks.LOCK}


def test_the_same_thread_may_write_within_writing(tmp_path):
    with locks.writing(tmp_path):
        with locks.writing(tmp_path):
            assert (tmp_path / locks.WRITER).exists()
        assert (tmp_path / locks.WRITER).exists()
    assert not (tmp_path / locks.WRITER).exists()


def test_another_thread_may_not(tmp_path):
    refused = []

    def enter():
        try:
            with locks.writing(tmp_path):
                pass
        except RunError as error:
            refused.append(str(error))

    with locks.writing(tmp_path):
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join()
    assert len(refused) == 1
    assert "is writing to this run" in refused[0]


def test_what_a_killed_writer_left_is_removed(tmp_path):
    (tmp_path / "figures").mkdir()
    left = [tmp_path / ".last.safetensors.17.tmp", tmp_path / "figures" / ".prior.png.17.tmp"]
    for path in left:
        path.write_text("half")
    with locks.writing(tmp_path):
        assert [path for path in left if path.exists()] == []


def test_training_into_a_run_that_is_being_written_is_refused(mmgen, small_glyphs, holder):
    run, process = holder
    command = ("train", ROOT / "examples" / "glyphs.toml", *small(small_glyphs), "--out", run)
    for option in ((), ("--force",), ("--resume",)):
        code, _, err = mmgen(*command, *option)
        assert code == 2
        assert f"process {process.pid}" in err
    assert names(run) == {locks.LOCK, locks.WRITER}


def test_a_run_in_training_can_be_read(mmgen, trained):
    with locks.writing(trained):
        code, out, err = mmgen("generate", trained, "--given", "label=A", "--targets", "attributes")
    assert code == 0, err
    assert "attributes" in out


def test_forcing_through_a_link_keeps_the_link_and_what_is_not_the_runs(trained, tmp_path):
    import shutil

    run, link = tmp_path / "run", tmp_path / "link"
    shutil.copytree(trained, run)
    (run / "notes.txt").write_text("mine")
    link.symlink_to(run)
    run_folder.create(link, run_folder.experiment(run), {}, force=True)
    assert link.is_symlink()
    assert (run / "notes.txt").read_text() == "mine"
    assert names(run) == {"notes.txt", "experiment.json", "environment.json", locks.LOCK}


# A disk that is full in truth: the system refuses files above a size.


def limited(limit: int):
    def set_limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return set_limit


def command(*words: object, limit: int | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mmgen", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=limited(limit) if limit else None,
        cwd=ROOT,
    )


@pytest.mark.ci
def test_a_full_disk_in_mid_training_loses_nothing_and_says_how_to_go_on(small_glyphs, tmp_path):
    train = ("train", "examples/glyphs.toml", *small(small_glyphs, 3), "--no-figures", "--out")
    whole = command(*train, tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    size = (tmp_path / "whole" / "last.safetensors").stat().st_size

    full = command(*train, tmp_path / "run", limit=size // 2)
    assert full.returncode == 2
    assert "Traceback" not in full.stderr
    assert "last.safetensors: cannot be written: File too large" in full.stderr
    assert f"mmgen train {tmp_path / 'run'} --resume" in full.stderr
    assert list((tmp_path / "run").glob(".*.tmp")) == []
    assert json.loads((tmp_path / "run" / "experiment.json").read_text())["name"] == "glyphs"

    again = command("train", tmp_path / "run", "--resume", "--no-figures")
    assert again.returncode == 0, again.stderr
    first, second = (load_file(tmp_path / r / "last.safetensors") for r in ("whole", "run"))
    assert [n for n in first if not first[n].equal(second[n])] == []


def test_a_full_disk_leaves_no_half_of_a_data_set(tmp_path):
    rows = ("--train", "300", "--validation", "20", "--test", "20")
    full = command("data", "glyphs", "--out", tmp_path / "glyphs", *rows, limit=10_000)
    assert full.returncode == 2
    assert "Traceback" not in full.stderr
    assert names(tmp_path) == set()
