"""One process writes to a run, whatever becomes of the run's name or of its lock meanwhile."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import ROOT, small
from test_kill import Server

from mmgen.data.folder import appearing
from mmgen.errors import RunError, WriteError
from mmgen.files import atomic, holding, locks

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs folders' descriptors")


def tree(folder: Path) -> set[str]:
    found = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    return {name for name in found if not name.endswith((".lock", ".writer"))}


def moved(run: Path) -> None:
    run.rename(run.with_name("elsewhere"))


def replaced(run: Path) -> None:
    moved(run)
    run.mkdir()


def replaced_by_a_file(run: Path) -> None:
    moved(run)
    run.write_text("")


def replaced_by_a_link(run: Path) -> None:
    replaced(run)
    run.rename(run.with_name("other"))
    run.symlink_to("other")


def parent_moved(run: Path) -> None:
    run.parent.rename(run.parent.with_name("parent"))


def lock_deleted(run: Path) -> None:
    (run / locks.LOCK).unlink()


def lock_replaced(run: Path) -> None:
    (run / locks.LOCK).rename(run / "kept.lock")
    (run / locks.LOCK).write_text("")


def lock_replaced_by_a_pipe(run: Path) -> None:
    lock_deleted(run)
    os.mkfifo(run / locks.LOCK)


def lock_replaced_by_a_folder(run: Path) -> None:
    lock_deleted(run)
    (run / locks.LOCK).mkdir()


def lock_replaced_by_a_link(run: Path) -> None:
    (run / locks.LOCK).rename(run / "kept.lock")
    (run / locks.LOCK).symlink_to("kept.lock")


EVENTS = {
    moved: "was moved to .*elsewhere",
    replaced: "was moved to .*elsewhere .*something else has its name",
    replaced_by_a_file: "was moved to .*elsewhere .*something else has its name",
    replaced_by_a_link: "was moved to .*elsewhere .*something else has its name",
    shutil.rmtree: "was deleted",
    parent_moved: "was moved to .*parent/run",
    lock_deleted: ".lock was deleted or replaced",
    lock_replaced: ".lock was deleted or replaced",
    lock_replaced_by_a_pipe: ".lock was deleted or replaced",
    lock_replaced_by_a_folder: ".lock was deleted or replaced",
    lock_replaced_by_a_link: ".lock was deleted or replaced",
}
linux = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks /proc for the place")


@linux
@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
def test_nothing_is_written_to_a_run_that_is_no_longer_its_own(tmp_path, event):
    run = tmp_path / "a" / "run"
    with locks.writing(run):
        atomic.write(run / "before", "")
        event(run)
        after = tree(tmp_path)
        for attempt in (
            lambda: atomic.write(run / "file", "text"),
            lambda: atomic.write(run / "figures" / "file", "text"),
            lambda: holding.make(run / "figures"),
            lambda: atomic.remove(run / "before"),
            lambda: holding.check(run),
            lambda: locks.writing(run).__enter__(),
        ):
            with pytest.raises(holding.LostError, match=EVENTS[event]):
                attempt()
        assert tree(tmp_path) == after
    assert tree(tmp_path) == after
    assert holding.HELD == []


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.__name__)
def test_a_write_that_takes_long_ends_nowhere_if_the_run_goes_meanwhile(tmp_path, event):
    run = tmp_path / "a" / "run"
    after = set()

    def content():
        yield b"first"
        event(run)
        after.update(tree(tmp_path))
        yield b"second"

    with locks.writing(run), pytest.raises(holding.LostError):
        atomic.write(run / "file", content())
    assert tree(tmp_path) == {name for name in after if not name.endswith(".tmp")}


def test_a_write_between_check_and_rename_stays_in_the_folder_that_was_locked(
    tmp_path, monkeypatch
):
    run, rename = tmp_path / "a" / "run", os.replace

    def late(*words, **options):
        replaced(run)
        rename(*words, **options)

    monkeypatch.setattr(os, "replace", late)
    with locks.writing(run):
        atomic.write(run / "file", "text")
    assert tree(tmp_path) == {"a", "a/run", "a/elsewhere", "a/elsewhere/file"}


def test_a_report_is_not_written_to_another_run_than_it_is_of(tmp_path):
    run = tmp_path / "a" / "run"
    run.mkdir(parents=True)
    with holding.pinned(run):
        atomic.write(run / "report.html", "")
        with locks.writing(run):  # not in the way of a training
            replaced(run)
        with pytest.raises(holding.LostError):
            atomic.write(run / "report.html", "new")
    assert tree(tmp_path) == {"a", "a/run", "a/elsewhere", "a/elsewhere/report.html"}


@pytest.mark.parametrize("make", [lambda run: None, Path.touch, os.mkfifo])
def test_what_is_no_folder_is_not_held(tmp_path, make):
    make(tmp_path / "run")
    with pytest.raises(RunError, match="holds no run"), holding.pinned(tmp_path / "run"):
        pass
    assert holding.HELD == []


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_cannot_be_locked_is_one_error(tmp_path, make):
    make(tmp_path / locks.LOCK)
    with suppress(WriteError), locks.writing(tmp_path):  # filelock locks a pipe, too
        atomic.write(tmp_path / "file", "")
    assert holding.HELD == []


def test_a_relative_name_leads_to_the_run_although_the_folder_above_is_renamed(
    tmp_path, monkeypatch
):
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    with locks.writing(Path("run")):
        (tmp_path / "a").rename(tmp_path / "b")
        atomic.write(Path("run/file"), "text")
        (tmp_path / "b").rename(tmp_path / "a")
        monkeypatch.chdir(tmp_path)
        atomic.write(Path("a/run/file"), "text")
    assert tree(tmp_path / "a") == {"run", "run/file"}


@pytest.mark.parametrize("name", ["link/file", "a/../run/file", "run/file"])
def test_a_folder_is_held_under_all_its_names(tmp_path, monkeypatch, name):
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path)
    with locks.writing(tmp_path / "run"):
        Path("link").symlink_to("run")
        atomic.write(Path(name), "text")
        moved(tmp_path / "run")
        with pytest.raises(holding.LostError):
            atomic.write(tmp_path / "run" / "file", "text")
    assert (tmp_path / "elsewhere" / "file").read_text() == "text"


def test_a_folder_in_a_held_one_is_made_with_those_above_it(tmp_path):
    with locks.writing(tmp_path / "run"):
        for folder in ("run", "run/a/b", "run/a/b"):
            holding.make(tmp_path / folder)
        (tmp_path / "run" / "file").touch()
        with pytest.raises(WriteError, match="folder cannot be made"):
            holding.make(tmp_path / "run" / "file" / "c")
    assert tree(tmp_path) == {"run", "run/a", "run/a/b", "run/file"}


# A second process.


TRY = """
import sys
from pathlib import Path
from mmgen.errors import RunError
from mmgen.files.locks import writing
for folder in sys.stdin:
    try:
        with writing(Path(folder.strip())):
            print("free", flush=True)
    except RunError as error:
        print(error, flush=True)
"""


@pytest.fixture
def second():
    """Another process, which says whether it may write to a folder."""
    process = subprocess.Popen(
        [sys.executable, "-c", TRY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def ask(folder: Path) -> str:
        process.stdin.write(f"{folder}\n")
        process.stdin.flush()
        return process.stdout.readline()

    yield ask
    process.communicate()


def test_the_lock_goes_with_the_folder_and_not_with_its_name(tmp_path, second):
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    with locks.writing(run):
        assert f"process {os.getpid()} " in second(run)
        moved(run)
        assert f"process {os.getpid()} " in second(elsewhere)
        assert second(run) == "free\n"  # another folder
        elsewhere.joinpath(locks.LOCK).unlink()
        assert f"process {os.getpid()} " in second(elsewhere)
        assert not elsewhere.joinpath(locks.LOCK).exists()
    assert second(elsewhere) == "free\n"


def test_where_folders_cannot_be_locked_a_second_writer_stops_the_first(
    tmp_path, second, monkeypatch
):
    monkeypatch.setattr(locks.Locked, "_lock_folder", lambda self: None)
    with locks.writing(tmp_path):
        assert f"process {os.getpid()} " in second(tmp_path)
        lock_deleted(tmp_path)
        assert second(tmp_path) == "free\n"
        with pytest.raises(holding.LostError):
            atomic.write(tmp_path / "file", "text")


def test_a_fork_neither_holds_nor_lets_go_what_its_parent_holds(tmp_path, second):
    answers, end = os.pipe()
    with locks.writing(tmp_path):
        child = os.fork()
        if child == 0:
            told = b"no"
            with suppress(RunError), locks.writing(tmp_path):
                told = b"yes"
            os.write(end, told)
            time.sleep(30)
            os._exit(0)
        assert os.read(answers, 3) == b"no"
        assert f"process {os.getpid()} " in second(tmp_path)
    assert second(tmp_path) == "free\n"  # although the child lives
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)

    with locks.writing(tmp_path):
        (held,) = holding.HELD
        child = os.fork()
        if child == 0:
            held.let_go()  # as a with block does that the child leaves
            os._exit(0)
        os.waitpid(child, 0)
        assert f"process {os.getpid()} " in second(tmp_path)
    for descriptor in (answers, end):
        os.close(descriptor)


def test_what_another_process_is_writing_is_not_cleaned_away(tmp_path):
    half = tmp_path / "runs" / "one" / ".last.safetensors.17.tmp"
    with locks.writing(half.parent):
        half.write_text("half")
        with locks.writing(tmp_path):
            assert half.exists()
    half.with_name(locks.LOCK).unlink()
    with locks.writing(tmp_path):
        assert not half.exists()


# Folders that appear at once.


def test_what_appeared_while_a_data_set_was_written_is_not_replaced(tmp_path):
    path = tmp_path / "data"

    def write() -> None:
        with appearing(path):
            path.mkdir()
            (path / "mine").touch()

    with pytest.raises(FileExistsError):
        write()
    assert tree(tmp_path) == {"data", "data/mine"}


def test_only_the_folder_that_was_there_is_replaced(tmp_path):
    path = tmp_path / "data"
    path.mkdir()

    def write() -> None:
        with appearing(path):
            path.rename(tmp_path / "old")
            path.mkdir()
            (path / "mine").touch()

    with pytest.raises(FileExistsError):
        write()
    assert tree(tmp_path) == {"data", "data/mine", "old"}
    with appearing(path) as folder:
        (folder / "new").touch()
    assert tree(tmp_path) == {"data", "data/new", "old"}


@pytest.mark.parametrize("event", [parent_moved, lambda path: shutil.rmtree(path.parent)])
def test_a_data_set_does_not_make_the_folder_above_it_again(tmp_path, event):
    path = tmp_path / "a" / "data"

    def write() -> None:
        with appearing(path) as folder:
            event(path)
            (folder / "new").touch()

    with pytest.raises(FileNotFoundError):
        write()
    assert not path.parent.exists()


# Jobs.


def test_jobs_stop_when_their_folder_goes(tmp_path):
    from mmgen_suzuki2018.jobs import Job, run

    out = tmp_path / "out"
    jobs = [Job(name, ("--help",), out / "logs" / f"{name}.log") for name in ("one", "two")]
    with locks.writing(out):
        looks = run(jobs, 1)
        next(looks)
        moved(out)
        with pytest.raises(holding.LostError):
            list(looks)
    assert not out.exists()


# A training.


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = Server(tmp_path_factory.mktemp("server") / "log.txt")
    yield made
    made.close()


def training(server: Server, data: Path, run: Path, *words: object) -> int:
    """Starts a training that does not end by itself, and waits for its first checkpoint."""
    server.log.write_text("")
    overrides = [*small(data, 100_000), "train.batch_size=16"]
    config = ROOT / "examples" / "glyphs.toml"
    child = server.start("train", config, *overrides, "--out", run, "--no-figures", *words)
    while not (run / "last.safetensors").exists():
        time.sleep(0.02)
    return child


@pytest.mark.ci
@linux
@pytest.mark.parametrize(
    ("event", "said", "left"),
    [
        (moved, "elsewhere --resume", {"elsewhere"}),
        (replaced, "elsewhere --resume", {"elsewhere", "run"}),
        (shutil.rmtree, "went with it", set()),
        (lock_deleted, "run --resume", {"run"}),
        (lock_replaced_by_a_pipe, "run --resume", {"run"}),
    ],
)
def test_a_training_whose_run_goes_stops_with_one_message(
    server, small_glyphs, tmp_path, event, said, left
):
    run = tmp_path / "run"
    training(server, small_glyphs, run)
    event(run)
    assert server.end() == 2
    log = server.log.read_text()
    assert log.count("error:") == 1
    assert log.rindex("error:") > log.rindex("epoch ")
    assert said in log
    assert "Traceback" not in log
    assert {path.name for path in tmp_path.iterdir()} == left
    for folder in tmp_path.iterdir():
        assert not [*folder.glob("*.tmp")]
        assert bool([*folder.iterdir()]) == (event is not replaced or folder.name != "run")


def test_a_second_process_is_refused_wherever_the_run_is_moved(
    server, second, small_glyphs, tmp_path
):
    run = tmp_path / "run"
    child = training(server, small_glyphs, run)
    assert f"process {child} " in second(run)
    lock_deleted(run)
    moved(run)
    told = second(run.with_name("elsewhere"))
    assert server.end() == 2
    assert f"process {child} " in told or told == "free\n"  # it may have stopped just before
    assert second(run.with_name("elsewhere")) == "free\n"


@pytest.mark.slow
def test_curves_for_tensorboard_do_not_make_the_run_again(server, small_glyphs, tmp_path):
    run = tmp_path / "run"
    training(server, small_glyphs, run, "train.tensorboard=true")
    replaced(run)
    assert server.end() == 2
    assert [*run.iterdir()] == []


def test_threads_write_to_a_folder_that_another_thread_holds(tmp_path):
    with locks.writing(tmp_path):
        thread = threading.Thread(target=atomic.write, args=(tmp_path / "file", "text"))
        thread.start()
        thread.join()
    assert (tmp_path / "file").read_text() == "text"
