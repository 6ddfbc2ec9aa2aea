"""What is printed outlasts who reads it, and takes every letter."""

import codecs
import io
import json
import os
import pty
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import ROOT, small
from rich.table import Table
from test_kill import Server, all_readable

from mmgen.cli import streams
from mmgen.terminal import Plain

FULL = Path("/dev/full")
CONFIG = ROOT / "examples" / "glyphs.toml"


def lasting(descriptor: int, encoding: str = "utf-8") -> io.TextIOWrapper:
    codecs.register_error("mmgen", streams._replaced)
    return streams._Lasting(os.fdopen(descriptor, "wb", closefd=False), encoding)


@pytest.fixture
def pipe():
    ends = [*os.pipe()]
    yield ends
    for end in ends:
        os.close(end)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_every_letter_is_printed(pipe, encoding):
    reader, writer = pipe
    text = "".join([*streams.REPLACED, "é", "日本", "⠋", "\udcff", "plain"])
    print(text, file=lasting(writer, encoding))
    told = os.read(reader, 10_000).decode(encoding)
    assert told.endswith("plain\n")
    if encoding == "ascii":
        assert "\\u65e5" in told
        assert told.startswith("...")
    if encoding == "utf-8":
        assert "β" in told


def test_a_table_is_drawn_with_plain_letters_where_there_are_no_others(pipe):
    reader, writer = pipe
    plain = Plain(file=lasting(writer, "ascii"), width=40)
    table = Table("β", "±")
    table.add_row("α = 1", "∅ → image")
    plain.print(table)
    told = os.read(reader, 10_000).decode("ascii")
    assert "beta" in told
    assert "\\u" not in told


def test_a_reader_that_left_is_no_failure(pipe, monkeypatch):
    reader, writer = os.pipe()
    stream = lasting(writer)
    os.close(reader)
    for _ in range(3):
        print("word" * 10_000, file=stream, flush=True)
    monkeypatch.setattr(sys, "stdout", stream)
    assert streams.failure() is None
    os.close(writer)


@pytest.mark.skipif(not FULL.exists(), reason="needs /dev/full")
def test_a_full_disk_is_a_failure(monkeypatch):
    with FULL.open("wb") as full:
        stream = lasting(full.fileno())
        print("word", file=stream, flush=True)
        print("word", file=stream, flush=True)
        monkeypatch.setattr(sys, "stdout", stream)
        failed = streams.failure()
    assert failed is not None
    assert failed.strerror == "No space left on device"


def test_a_terminal_that_was_closed_is_no_failure(monkeypatch):
    controller, terminal = pty.openpty()
    stream = lasting(terminal)
    assert stream.isatty()
    os.close(controller)
    print("word", file=stream, flush=True)
    assert stream.failed is not None
    monkeypatch.setattr(sys, "stdout", stream)
    assert streams.failure() is None
    os.close(terminal)


def test_a_stop_in_the_midst_of_printing_prints_nothing_twice(pipe):
    reader, writer = pipe
    stream = lasting(writer)

    def stop(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.001)
    try:
        for number in range(300):
            with suppress(KeyboardInterrupt):
                print(number, file=stream)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    stream.flush()
    told = os.read(reader, 100_000).decode().split()
    assert len(told) == len({*told})
    assert len(told) > 0


def test_what_tests_collect_is_left_alone(capsys):
    before = sys.stdout, sys.stderr
    streams.outlast()
    assert before == (sys.stdout, sys.stderr)


# Whole processes.


def shell(words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs words of a shell in which ``mmgen`` is this one; ``$?`` is the exit code of it."""
    python = f'mmgen() {{ "{sys.executable}" -m mmgen "$@"; }}; set -o pipefail; '
    return subprocess.run(
        ["bash", "-c", python + words],
        capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "COLUMNS": "80", **environment},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("mmgen --help | head -1", 0, ""),
        ("mmgen --help | true", 0, ""),
        ("mmgen --help >&-", 0, ""),
        ("mmgen --help <&- >&- 2>&-", 0, ""),
        ("mmgen --help < /dev/null > /dev/null", 0, ""),
        ("mmgen --help > /dev/full", 2, "error: standard output: No space left on device\n"),
        ("mmgen --version > /dev/full", 2, "error: standard output: No space left on device\n"),
        ("mmgen --bogus 2> /dev/full", 2, ""),
        ("mmgen --bogus 2>&-", 2, ""),
        ("mmgen --bogus > /dev/full", 2, "error: No such option: --bogus"),
    ],
)
def test_streams_that_were_closed_or_are_full(words, code, said):
    done = shell(words)
    assert (done.returncode, done.stderr[: len(said) or 1]) == (code, said)


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"TERM": "dumb"},
        {"NO_COLOR": "1"},
    ],
)
def test_help_is_plain_where_it_has_to_be(environment):
    done = shell("mmgen train --help", **environment)
    assert done.returncode == 0, done.stderr
    assert "--resume" in done.stdout
    assert "\x1b" not in done.stdout
    if "TERM" not in environment and "NO_COLOR" not in environment:
        assert done.stdout.isascii()


def test_no_file_gets_the_number_of_a_stream_that_was_closed():
    code = (
        "import os\nfrom mmgen.cli import streams\nstreams.outlast()\n"
        "assert os.open('.', os.O_RDONLY) > 2\nprint('never seen')\ninput\n"
        "assert __import__('sys').stdin.read() == ''"
    )
    done = shell(f'"{sys.executable}" -c "{code}" <&- >&- 2>&-')
    assert done.returncode == 0


@pytest.mark.ci
@pytest.mark.parametrize("streams_", ["2>&1 | true", "> /dev/full 2> /dev/full", ">&- 2>&-"])
def test_no_training_is_lost_with_what_it_prints_to(small_glyphs, tmp_path, streams_):
    run = tmp_path / "run"
    overrides = " ".join(f'"{word}"' for word in small(small_glyphs, 2))
    done = shell(f'mmgen train {CONFIG} {overrides} --no-figures --out "{run}" {streams_}')
    assert done.returncode == (2 if "full" in streams_ else 0)
    all_readable(run)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_every_command_prints_in_ascii(small_glyphs, tmp_path):
    server = Server(tmp_path / "log.txt", PYTHONIOENCODING="ascii", COLUMNS="100")
    run, data = tmp_path / "run", tmp_path / "data"
    for words in (
        ["plugins"],
        ["plugins", "check", "label"],
        ["growth", "--modalities", "2", "--kind", "label"],
        ["data", "glyphs", "--out", data, "--train", 60, "--validation", 20, "--test", 20],
        ["data", "show", data],
        ["train", CONFIG, *small(small_glyphs), "--dry-run"],
        ["train", CONFIG, *small(small_glyphs), "--out", run],
        ["train", run, "--resume"],
        ["evaluate", run, "--rows", 8, "--importance", 3, "--samples", 2],
        ["coherence", run, "--rows", 8],
        ["generate", run, "--given", "label=A"],
        ["report", run],
    ):
        code = server.run(*words)
        told = server.log.read_bytes()
        assert code == 0, (words, told.decode())
        assert told.isascii()
        server.log.write_bytes(b"")
    server.close()


def test_the_letters_that_are_replaced_are_in_no_other_way():
    codecs.register_error("mmgen", streams._replaced)
    assert len({*streams.REPLACED}) == len(streams.REPLACED)
    for letter, words in streams.REPLACED.items():
        assert len(letter) == 1
        assert words.isascii()
        assert letter.encode("ascii", "mmgen").decode() == words
