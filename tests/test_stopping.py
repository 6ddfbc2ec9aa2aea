"""Signals that stop a command, and all else that ends one: one message, one exit code."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from conftest import ROOT

from mmgen import stopping

SIGNALS = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]
SCRIPT = "import sys; from mmgen.__main__ import main; sys.exit(main())"
WAYS = {"module": ["-m", "mmgen"], "script": ["-c", SCRIPT]}


def started(folder: Path, *words: str, **options) -> subprocess.Popen[str]:
    """Starts Python where modules of a folder come first, and waits for the first line."""
    path = os.pathsep.join([str(folder), str(ROOT), str(ROOT / "plugins")])
    process = subprocess.Popen(
        [sys.executable, *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": path}, **options,
    )  # fmt: skip
    assert process.stdout.readline() == "importing\n"
    return process


SLOW = "import time; print('importing', flush=True); time.sleep(60)"


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("way", WAYS)
def test_a_stop_while_libraries_are_imported_is_quiet(tmp_path, way, number):
    (tmp_path / "typer.py").write_text(SLOW)
    process = started(tmp_path, *WAYS[way], "plugins")
    process.send_signal(number)
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 130


@pytest.mark.parametrize("cut", ["pass", "raise ImportError('the core was cut')", "1 / 0"])
def test_a_stop_while_torch_is_imported_is_one_word(tmp_path, cut):
    (tmp_path / "torch.py").write_text(
        f"try:\n    {SLOW}\nexcept KeyboardInterrupt:\n    {cut}\n    raise\n"
    )
    process = started(tmp_path, *WAYS["module"], "generate", str(tmp_path))
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20) == ("", "stopped\n")
    assert process.returncode == 130


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_what_was_ignored_at_the_start_stays_ignored(tmp_path, number):
    (tmp_path / "torch.py").write_text(SLOW)
    process = started(
        tmp_path, *WAYS["module"], "generate", str(tmp_path),
        preexec_fn=lambda: signal.signal(number, signal.SIG_IGN),
    )  # fmt: skip
    process.send_signal(number)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    process.terminate()
    assert process.communicate(timeout=20)[1] == "stopped\n"
    assert process.returncode == 130


@pytest.mark.parametrize("number", SIGNALS)
def test_a_stop_leaves_nothing_half_and_puts_the_handlers_back(
    mmgen, tmp_path, monkeypatch, number
):
    def write(*_):
        assert [path.name[:6] for path in tmp_path.iterdir()] == [".data-"]
        os.kill(os.getpid(), number)
        pytest.fail("went on")

    monkeypatch.setattr("mmgen.data.store.write_split", write)
    before = [signal.getsignal(s) for s in SIGNALS]
    counts = ("--train", 20, "--validation", 5, "--test", 5)
    code, _, err = mmgen("data", "glyphs", "--out", tmp_path / "data", *counts)
    assert code == 130
    assert err.splitlines()[-1] == "stopped"
    assert [*tmp_path.iterdir()] == []
    assert [signal.getsignal(s) for s in SIGNALS] == before


def test_a_thread_may_run_the_command_line():
    told = []

    def ask():
        with stopping.handled(stopping.leave):
            told.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=ask)
    thread.start()
    thread.join()
    assert told == [signal.getsignal(signal.SIGINT)]


def test_processes_started_under_a_shield_do_not_see_ctrl_c():
    code = "import signal, sys; print('ready', flush=True); sys.stdin.read(); print('whole')"
    with stopping.shielded():
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == set()
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGHUP)
    assert process.communicate(timeout=20)[0] == "whole\n"


# All else.


class WordlessError(Exception):
    def __str__(self):
        raise KeyError("none")


class OutOfMemoryError(RuntimeError):
    pass


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ZeroDivisionError("by [red]0[/]"), 1, "internal error: ZeroDivisionError: by [red]0[/]."),
        (WordlessError(), 1, "internal error: WordlessError"),
        (AssertionError(), 1, "internal error: AssertionError"),
        (MemoryError(), 2, "not enough memory"),
        (OutOfMemoryError("CUDA out of memory. Tried\nto"), 2, "not enough memory: CUDA out of"),
        (RuntimeError("[enforce fail] . you can't allocate memory: 9 bytes"), 2, "not enough"),
        (RecursionError("maximum recursion depth"), 2, "nested too deeply"),
        (OSError(errno.ENOSPC, "No space left on device", "x\x1b[1m"), 2, "x␛[1m: No space left"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), 2, "Broken pipe"),
        (EOFError("cut"), 1, "internal error: EOFError: cut."),
        (SystemExit(3), 3, ""),
        (SystemExit("words"), 2, ""),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_whatever_is_raised_is_one_message(mmgen, monkeypatch, tmp_path, error, code, said):
    def ensure_absent(*_, **__):
        raise error

    monkeypatch.setattr("mmgen.data.store.ensure_absent", ensure_absent)
    monkeypatch.setattr("mmgen.cli.data_card.ensure_absent", ensure_absent, raising=False)
    words = ("data", "glyphs", "--out", tmp_path / "x", "--train", "2")
    ended, out, err = mmgen(*words)
    assert ended == code
    assert said in err
    assert "Traceback" not in err + out
    assert err.count("error:") <= 1
    debugged = mmgen("--debug", *words)[2]
    assert ("Traceback" in debugged) == bool(said)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--bogus\x1b[2J"], "No such option"),
        (["trian"], "train"),
        (["train"], "Missing argument"),
        (["train", "a", "--ou", "x"], "--out"),
        (["evaluate", "run", "--rows", "\x1b[31mabc"], "--rows"),
        (["evaluate", "run", "--rows", "0"], "--rows"),
        (["evaluate", "run", "--seed"], "--seed"),
        (["data", "glyphs", "extra", "--out", "x"], "extra"),
    ],
)
def test_words_that_are_no_command_get_one_message_and_point_to_help(mmgen, words, said):
    code, out, err = mmgen(*words)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert said in err
    assert "--help" in err.splitlines()[-1]
    assert "\x1b" not in err
