"""Training in several processes: as one, but for rounding and noise, and ended as one."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from safetensors import safe_open
from safetensors.torch import load_file
from shared_training import CASES, TABLE, gradients, train

from mmgen import seeding
from mmgen.data.batches import Part
from mmgen.errors import ConfigError
from mmgen.settings import TrainConfig
from mmgen.training import restoring, run_folder
from mmgen.training import watch as watch_module
from mmgen.training.launch import Launch, launched
from mmgen.training.ranks import ALONE, Several
from mmgen.training.watch import Watch

SIZE = 3
PATH = os.pathsep.join(map(str, (ROOT, ROOT / "plugins", ROOT / "tests")))


@pytest.fixture
def joined():
    """Gives this process the streams of one of several, whose decisions are those of all."""
    yield seeding.join
    seeding.join(None)


# What needs no second process.


def test_the_rows_of_a_batch_are_shared_out_once_each():
    for size in (1, 2, 3, 7):
        for rows in (0, 1, 2, 6, 7, 100):
            parts = [Part(rank, size).of(rows) for rank in range(size)]
            assert [row for part in parts for row in part] == [*range(rows)]
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_which_process_this_is_is_told_by_the_environment(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    assert launched() is None
    values = {"RANK": "5", "WORLD_SIZE": "8", "MASTER_ADDR": "a", "MASTER_PORT": "1"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert launched() == Launch(5, 8, 5, 8)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert launched() == Launch(5, 8, 1, 4)
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert launched() is None
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(ConfigError, match="WORLD_SIZE"):
        launched()


def test_processes_decide_alike_and_have_noise_of_their_own(joined):
    streams = {}
    for rank in range(2):
        joined(rank)
        seeding.begin(7)
        noise = torch.randn(4)
        with seeding.random_state(torch.device("cpu"), 1):
            told = torch.rand(2, generator=seeding.decisions())
            fixed = torch.randn(4)
        streams[rank] = noise, fixed, told, torch.rand(2, generator=seeding.decisions())
    first, second = streams.values()
    assert [a.equal(b) for a, b in zip(first, second, strict=True)] == [False, False, True, True]
    assert not first[2].equal(first[3])


def test_in_one_process_decisions_follow_torchs_own_state():
    assert seeding.decisions() is None
    torch.manual_seed(3)
    drawn = torch.rand(2, generator=seeding.decisions())
    torch.manual_seed(3)
    assert torch.rand(2).equal(drawn)


def several(size: int) -> Several:
    """One of several processes that never met."""
    ranks = Several.__new__(Several)
    ranks.part, ranks.launch = Part(0, size, size), Launch(0, size, 0, size)
    return ranks


def test_a_batch_with_fewer_rows_than_processes_is_refused():
    several(4).check(TrainConfig(batch_size=4))
    with pytest.raises(ConfigError, match=r"train.batch_size = 3: .* 4 processes"):
        several(4).check(TrainConfig(batch_size=3))
    ALONE.check(TrainConfig(batch_size=1))


def test_several_losses_are_not_sharded():
    several(2).check(TrainConfig(parallel="fsdp"), losses=1)
    several(2).check(TrainConfig(parallel="ddp"), losses=3)
    with pytest.raises(ConfigError, match="several losses"):
        several(2).check(TrainConfig(parallel="fsdp"), losses=3)


def test_a_device_without_a_place_for_each_process_is_refused(monkeypatch):
    assert several(2).device(torch.device("cpu")) == torch.device("cpu")
    with pytest.raises(ConfigError, match="mps"):
        several(2).device(torch.device("mps"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(ConfigError, match="2 processes on this machine, but 1 CUDA"):
        several(2).device(torch.device("cuda", 0))


class Shelf(dict):
    """A store in memory."""

    def clone(self):
        return self

    def set(self, key, value):
        self[key] = value.encode()

    def check(self, keys):
        return all(key in self for key in keys)

    def add(self, key, number):
        self[key] = self.get(key, 0) + number
        return self[key]

    def compare_set(self, key, _expected, value):
        return self.setdefault(key, value.encode())


def test_of_all_that_ask_one_says_why_they_end():
    store = Shelf()
    watches = [Watch(store, rank, 3, lambda *_: None) for rank in range(3)]
    assert [watch.claimed() for watch in watches] == [None, None, None]
    assert [watch.claim(2) for watch in watches] == [True, False, False]
    assert [watch.claimed() for watch in watches] == [None, 2, 2]
    assert watches[0].claim(2)


def test_a_process_that_ended_without_a_word_is_found():
    store = Shelf()
    watch = Watch(store, 0, 2, lambda *_: None)
    assert watch.gone() is None
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    here = store["where/0"].decode().partition(" ")[2]
    store.set("where/1", f"{ended.pid} {here}")
    assert watch.gone() == 1
    store.set("where/1", f"{ended.pid} elsewhere")
    assert watch.gone() is None
    watch.missed = 100
    assert watch.gone() == 1


@pytest.mark.parametrize("how", ["it fell silent", "it told why", "the store is gone"])
def test_a_process_that_waits_for_one_that_ended_is_ended(monkeypatch, how):
    monkeypatch.setattr(watch_module, "PERIOD", 0.01)
    monkeypatch.setattr(watch_module, "GRACE", 0.05)
    store, ended = Shelf(), []
    first = Watch(store, 0, 2, lambda *words: ended.append(words) or first.stop())
    second = Watch(store, 1, 2, lambda *words: ended.append(words) or second.stop())
    first.start()
    second.start()
    time.sleep(0.2)
    assert ended == []
    if how == "it told why":
        second.claim(2)
    if how == "the store is gone":
        store.add = None
    second.stop()
    first._thread.join(timeout=10)
    gone = {"it fell silent": (None, 1), "it told why": (2, 1), "the store is gone": (None, -1)}
    assert ended == [gone[how]]


def test_what_a_checkpoint_holds_of_other_processes_is_checked():
    whole = ["ranks/1/random/cpu", "ranks/1/sums", "ranks/2/random/cpu", "random/cpu", "sums"]
    assert restoring.processes(dict.fromkeys(whole)) == 3
    assert restoring.processes({"random/cpu": None}) == 1
    for wrong in ("ranks/4/sums", "ranks/", "ranks/0/sums", "ranks/x/sums", "ranks/1/other/cpu"):
        with pytest.raises(ValueError, match=r"ranks|process"):
            restoring.processes(dict.fromkeys([*whole, wrong]))


# What several processes did, side by side.


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The folder in which three processes wrote what they found."""
    folder = tmp_path_factory.mktemp("ranks")
    train(folder / "begun-alone", ALONE, items=7)
    usual = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(SIZE)}
    environment = {**os.environ, **usual, "PYTHONPATH": PATH, "OMP_NUM_THREADS": "1"}
    script = [sys.executable, str(ROOT / "tests" / "shared_training.py"), str(folder)]
    processes = [
        subprocess.Popen(
            script, env={**environment, "RANK": str(rank)}, stderr=subprocess.PIPE, text=True
        )
        for rank in range(SIZE)
    ]
    words = [process.communicate(timeout=500)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * SIZE, "\n".join(words)
    assert words[1:] == [""] * (SIZE - 1)  # nor did torch say anything
    return folder


@pytest.mark.ci
@pytest.mark.parametrize("case", CASES)
def test_gradients_and_terms_are_those_of_one_process(done, case, joined):
    joined(0)  # draws the subsets that all drew
    expected = gradients(case, ALONE)
    for rank in range(SIZE):
        found = load_file(done / f"rank{rank}" / f"{case}.safetensors")
        assert found.keys() == expected.keys()
        for name, value in found.items():
            # Adam makes steps of a gradient that is rounding alone: a bias before a normalisation.
            torch.testing.assert_close(value, expected[name], rtol=1e-7, atol=1e-8, msg=name)


@pytest.mark.ci
def test_all_train_the_same_subsets_with_different_noise(done):
    told = [json.loads((done / f"rank{r}" / "decided.json").read_text()) for r in range(SIZE)]
    assert all(each["drawn"] == told[0]["drawn"] for each in told)
    assert len({str(step) for step in told[0]["drawn"]}) > 2
    for noise in ("noise", "validation"):
        assert len({str(each[noise]) for each in told}) == SIZE


def contents(run: Path) -> tuple[dict, dict, list]:
    with safe_open(run / "last.safetensors", "pt") as file:
        header = json.loads(file.metadata()["mmgen"])
    lines = run_folder.read_metrics(run)
    told = [{split: line[split] for split in ("train", "validation")} for line in lines]
    return load_file(run / "last.safetensors"), header, told


@pytest.mark.ci
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_a_run_that_was_stopped_ends_as_one_that_was_not(done, parallel):
    whole, stopped = (contents(done / f"{parallel}-{name}") for name in ("whole", "stopped"))
    assert whole[0].keys() == stopped[0].keys()
    assert [n for n in whole[0] if not whole[0][n].equal(stopped[0][n])] == []
    assert whole[1:] == stopped[1:]


@pytest.mark.ci
def test_a_sharded_checkpoint_is_laid_out_as_any(done):
    plain, sharded = (contents(done / f"{name}-whole") for name in ("ddp", "fsdp"))
    assert {n: t.shape for n, t in plain[0].items()} == {n: t.shape for n, t in sharded[0].items()}
    for name, tensor in plain[0].items():
        if name.startswith("model/"):
            torch.testing.assert_close(sharded[0][name], tensor, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.ci
def test_the_checkpoint_holds_the_random_state_of_each(done):
    tensors, _, _ = contents(done / "ddp-whole")
    states = [tensors["random/cpu"], *(tensors[f"ranks/{r}/random/cpu"] for r in (1, 2))]
    assert not states[0].equal(states[1])
    assert not states[1].equal(states[2])
    assert tensors["random/decisions"].equal(tensors["ranks/1/random/decisions"])


@pytest.mark.ci
def test_a_run_goes_on_with_another_number_of_processes(done):
    fewer = train(done / "left", ALONE)
    assert [epoch.epoch for epoch in fewer] == [2, 3]
    more = run_folder.read_metrics(done / "begun-alone")
    assert [line["epoch"] for line in more] == [1, 2, 3]
    usual = run_folder.read_metrics(done / "ddp-whole")
    for run in (more, run_folder.read_metrics(done / "left")):
        # The noise is another, the training is the same.
        for line, other in zip(run, usual, strict=True):
            assert line["train"]["loss"] == pytest.approx(other["train"]["loss"], rel=0.05)
            assert {*line["train"]} == {*other["train"]}
    tensors, _, _ = contents(done / "left")
    assert [name for name in tensors if name.startswith("ranks/")] == []


# The command line.


def toml(table: dict) -> str:
    def value(x):
        return json.dumps(x)

    lines = []
    for section, settings in table.items():
        if section == "modalities":
            for name, own in settings.items():
                lines += [f"[modalities.{name}]", *(f"{k} = {value(v)}" for k, v in own.items())]
        else:
            lines += [f"[{section}]", *(f"{k} = {value(v)}" for k, v in settings.items())]
    return "\n".join(lines) + "\n"


SLOW = '''
import os, time
import torch
from mmgen import hookimpl
from mmgen_label import Label

class Slow(Label):
    """A label that takes its time, and fails where it is told to."""
    kind = "slow"
    api_version = 1

    def observe(self, stored, generator=None):
        time.sleep(0.02)
        if os.path.exists("fail") and os.environ.get("RANK") == open("fail").read().strip():
            raise ValueError("these rows are bad")
        return super().observe(stored, generator)

@hookimpl
def mmgen_modalities():
    return [Slow]
'''


@pytest.fixture
def place(tmp_path):
    """A folder with a configuration that trains for long, and a plugin that can fail."""
    (tmp_path / "slow.py").write_text(SLOW)
    table = json.loads(json.dumps(TABLE))
    table["modalities"]["b"]["kind"] = "slow"
    table["train"]["epochs"] = 100_000
    (tmp_path / "toys.toml").write_text(toml(table))
    return tmp_path


class Launched:
    """Processes started by torchrun."""

    def __init__(self, place: Path, *words: str, size: int = 2) -> None:
        environment = {**os.environ, "PYTHONPATH": PATH, "OMP_NUM_THREADS": "1"}
        command = ["-m", "torch.distributed.run", "--nproc-per-node", str(size), "--master-port"]
        self.process = subprocess.Popen(
            [sys.executable, *command, str(free_port()), "-m", "mmgen", "-p", "slow.py", *words],
            cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def ranks(self) -> dict[int, int]:
        """The process's number of each rank."""
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                status = (folder / "status").read_text()
                if f"PPid:\t{self.process.pid}\n" in status:
                    words = (folder / "environ").read_bytes().split(b"\0")
                    values = dict(w.partition(b"=")[::2] for w in words)
                    found[int(values[b"RANK"])] = int(folder.name)
            except (OSError, KeyError):
                continue
        return found

    def end(self, timeout: float = 60) -> tuple[int, list[str]]:
        """The exit code, and what mmgen said, without torchrun's own words."""
        out, err = self.process.communicate(timeout=timeout)
        said = [
            line
            for line in (out + err).splitlines()
            if re.match(r"(internal )?error|stopped|note", line)
        ]
        return self.process.returncode, said


def wait_for(condition, process: Launched, seconds: float = 120):
    until = time.monotonic() + seconds
    while not condition():
        assert process.process.poll() is None, process.process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)


def training_in(place: Path, *words: str) -> Launched:
    """Starts processes, and waits until an epoch is done."""
    process = Launched(place, "train", "toys.toml", "--out", "run", "--no-figures", *words)
    wait_for((place / "run" / "last.safetensors").exists, process)
    return process


pytestmark_linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")


@pytest.mark.ci
@pytestmark_linux
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_killed_ends_all(place, rank):
    process = training_in(place)
    os.kill(process.ranks()[rank], signal.SIGKILL)
    started = time.monotonic()
    code, said = process.end()
    assert time.monotonic() - started < 30
    assert code != 0
    assert len(said) == 1, said
    assert said[0].startswith(f"error: process {rank} of 2")
    assert run_folder.epochs_done(place / "run") >= 1


@pytest.mark.ci
@pytestmark_linux
@pytest.mark.parametrize("rank", [0, 1])
def test_an_error_of_one_process_ends_all_with_its_message(place, rank):
    process = training_in(place)
    (place / "fail").write_text(str(rank))
    started = time.monotonic()
    code, said = process.end()
    assert time.monotonic() - started < 30
    assert code != 0
    assert len(said) == 1, said
    assert said[0] == "internal error: ValueError: these rows are bad."


@pytest.mark.ci
@pytestmark_linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("who", ["0", "1", "torchrun"])
def test_a_stop_saves_once_and_stops_all(place, who, number):
    process = training_in(place)
    goal = process.process.pid if who == "torchrun" else process.ranks()[int(who)]
    os.kill(goal, number)
    code, said = process.end()
    assert code != 0
    assert len(said) == 1, said
    assert said[0].startswith("stopped in epoch")
    assert "nothing is lost" in said[0]
    epoch = int(re.search(r"epoch (\d+)", said[0])[1])
    with safe_open(place / "run" / "last.safetensors", "pt") as file:
        header = json.loads(file.metadata()["mmgen"])
    assert header["epoch"] == epoch - 1


@pytest.mark.ci
@pytestmark_linux
def test_numbers_that_are_not_finite_are_told_once_with_their_cause(place):
    process = Launched(
        place, "train", "toys.toml", "--out", "run", "--no-figures", "train.learning_rate=1e30"
    )
    code, said = process.end(200)
    assert code != 0
    assert len(said) == 1, said
    assert re.match(r"error: epoch 1, batch \d: .* is not finite", said[0]), said


WRONG = {
    "setting": ("train.batchsize=3",),
    "rows": ("train.batch_size=1",),
    "option": ("--nothing",),
    "value": ("train.epochs=-1",),
}


@pytest.mark.ci
@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_with_a_command_is_said_once(place, what):
    process = Launched(place, "train", "toys.toml", "--out", "run", *WRONG[what])
    _, err = process.process.communicate(timeout=120)
    assert len([line for line in err.splitlines() if line.startswith("error:")]) == 1, err
    assert re.search(r"exitcode\s*: 2", err), err
    assert process.process.returncode != 0
    assert not (place / "run").exists()
