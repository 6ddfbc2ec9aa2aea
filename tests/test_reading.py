"""Files from elsewhere: whatever is in them or in their place, one message and nothing else."""

import json
import os
import shutil
import signal
import socket
import struct
import time
import tomllib
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from toys import batches, differing, toy_modalities, training, write_run

from mmgen.data.index import INDEX, Index
from mmgen.data.store import read_dataset, write_dataset
from mmgen.data.tables.table import read_table
from mmgen.errors import ConfigError, DataError, MmgenError, RunError
from mmgen.files import locks
from mmgen.files.reading import HEADER, Reader, exists
from mmgen.files.tensors import open_tensors
from mmgen.training import records, run_folder
from mmgen.training.loop import Epoch, fit
from mmgen_suzuki2018 import measured

READER = Reader(RunError, "do this")
MODALITIES = toy_modalities(3)


@pytest.fixture(autouse=True)
def never_waits():
    """Ends a test that waits for a pipe, which would hang for ever."""

    def late(*_):
        raise TimeoutError("it waits")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


# What lies in place of a file.


def pipe(path):
    os.mkfifo(path)


def folder(path):
    path.mkdir()


def dangling(path):
    path.symlink_to(path.parent / "nowhere")


def loop(path):
    path.symlink_to(path)


def device(path):
    path.symlink_to("/dev/zero")


def bound(path):
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(str(path))


def huge(path):
    with path.open("wb") as file:
        file.truncate(3 * 2**30)  # a hole: it takes no room on the disk


def growing(path):
    """A file of the system that says it has no bytes, and has."""
    path.symlink_to("/proc/kallsyms" if Path("/proc/kallsyms").exists() else "/dev/zero")


NODES = [pipe, folder, dangling, loop, device, bound, huge]


def place(node, path):
    if path.is_symlink() or path.exists():
        path.unlink()
    try:
        node(path)
    except OSError as error:  # a socket's path may be too long here
        pytest.skip(str(error))


@pytest.mark.parametrize("read", ["content", "text", "json", "toml"])
@pytest.mark.parametrize("node", NODES, ids=lambda f: f.__name__)
def test_what_is_no_file_is_one_message(tmp_path, node, read):
    place(node, tmp_path / "file")
    with pytest.raises(RunError, match=r"file: .*; do this$"):
        getattr(READER, read)(tmp_path / "file")


@pytest.mark.parametrize("node", NODES, ids=lambda f: f.__name__)
def test_what_is_no_file_of_tensors_is_one_message(tmp_path, node):
    place(node, tmp_path / "file")
    with (
        pytest.raises(RunError, match=r"file: .*; do this$"),
        open_tensors(tmp_path / "file", READER),
    ):
        pass


@pytest.mark.skipif(not Path("/proc/kallsyms").exists(), reason="reads a file of Linux")
def test_a_file_that_grows_is_bounded_too(tmp_path):
    growing(tmp_path / "file")
    with pytest.raises(RunError, match="larger than 1000 B"):
        READER.content(tmp_path / "file", 1000)


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(5, "I/O")])
def test_a_file_that_cannot_be_opened_is_one_message(tmp_path, monkeypatch, error):
    def refuse(*_, **__):
        raise error

    (tmp_path / "file").write_text("{}")
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(RunError, match=r"file: cannot be read: (Permission|I/O)"):
        READER.json(tmp_path / "file")


@pytest.mark.parametrize("name", ["a\0b", "x" * 300, "\udcff"])
def test_a_name_that_cannot_be_is_one_message(tmp_path, name):
    with pytest.raises(RunError, match="; do this"):
        READER.text(tmp_path / name)
    assert exists(tmp_path / name) == (name != "\udcff")


def test_no_pipe_stays_open(tmp_path):
    before = len([*Path("/dev/fd").iterdir()])
    for node in (pipe, folder, huge):
        place(node, tmp_path / node.__name__)
        for _ in range(5):
            with pytest.raises(RunError):
                READER.text(tmp_path / node.__name__)
    assert len([*Path("/dev/fd").iterdir()]) == before


# What is in a file.

WRONG = {
    "empty": b"",
    "broken": b'{"a": 1',
    "deep list": b"[" * 100_000,
    "deep table": b'{"a":' * 100_000,
    "40 levels": b'{"a":' + b"[" * 40 + b"]" * 40 + b"}",
    "list": b"[1, 2]",
    "null": b"null",
    "word": b'"x"',
    "number": b"1",
    "latin 1": b'{"a": "\xff"}',
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "zeros": b"\0\0\0",
    "long number": b'{"a": ' + b"9" * 5000 + b"}",
    "65 bits": b'{"a": 18446744073709551616}',
    "infinite": b'{"a": 1e999}',
    "Infinity": b'{"a": Infinity}',
    "NaN": b'{"a": [{"b": NaN}]}',
    "half a character": b'{"a": ["\\ud800"]}',
    "half a key": b'{"\\udfff": 1}',
    "twice": b'{"a": 1, "a": 2}',
    "many keys": json.dumps(dict.fromkeys(map(str, range(20_000)), 1)).encode(),
}


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG)
def test_json_that_cannot_be_is_one_short_message(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(RunError, match=r"file: .*; do this$") as error:
        READER.json(tmp_path / "file")
    assert len(str(error.value)) < len(str(tmp_path)) + 250


def test_json_that_can_be_is_read(tmp_path):
    values = {"a": [1, -(2**63), 0.5, None, True, "\u00e9\U0001f600"], "b": {"c": []}}
    (tmp_path / "file").write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8-sig")
    assert READER.json(tmp_path / "file") == values
    (tmp_path / "file").write_text('{"a": Infinity}')
    assert READER.json(tmp_path / "file", finite=False) == {"a": float("inf")}


TOML = {
    "broken": b"a = ",
    "deep": b"a = " + b"[" * 100_000,
    "deep tables": b"a = {a = " * 10_000,
    "key of 40,000 parts": b"a" + b".a" * 40_000 + b" = 1",
    "quoted key": b'"a"' + b' . "a"' * 40_000 + b" = 1",
    "heading of 40,000 parts": b"[a" + b".a" * 40_000 + b"]",
    "key in braces": b"x = {b" + b".'a'" * 40_000 + b" = 1}",
    "not a number": b"a = nan",
    "long number": b"a = 1" + b"0" * 5000,
    "65 bits": b"a = 18446744073709551616",
    "latin 1": b"a = '\xff'",
    "many keys": b"".join(b"k%d = 1\n" % i for i in range(20_000)),
}


@pytest.mark.parametrize("content", TOML.values(), ids=TOML)
def test_toml_that_cannot_be_is_one_message_soon(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    started = time.perf_counter()
    with pytest.raises(RunError, match=r"file: .*; do this$"):
        READER.toml(tmp_path / "file")
    assert time.perf_counter() - started < 5  # the parser alone takes 40 s for 40,000 parts


def test_toml_with_dots_is_read(tmp_path):
    text = f"a.b = '{'x.' * 100}'\n\"c.d\" = [{'0.5, ' * 1000}]\nt = 2020-01-01\n"
    (tmp_path / "file").write_text(text)
    assert READER.toml(tmp_path / "file") == tomllib.loads(text)


# Files of tensors.


def shard(path, header, body=b"", length=None):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + body)


def entry(shape, end, dtype="U8"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [0, end]}


TENSORS = {
    "empty": (b"",),
    "longer than the file": (b"{}", b"", 10_000),
    "2^63 bytes of header": (b"{}", b"", 2**63),
    "large header": (b"{}" + b" " * HEADER,),
    "10^12 elements in no byte": ({"a": entry([10**12], 10**12)},),
    "10^12 elements in one byte": ({"a": entry([10**12], 1)}, b"x"),
    "rows of nothing": ({"a": entry([0, 10**18, 10**18], 0)},),
    "strides of nothing": (
        {"a": entry([0, *[1000] * 7], 0), "b": entry([1000], 1000)},
        b"x" * 1000,
    ),
    "negative": ({"a": entry([-1], 1)}, b"x"),
    "a fraction": ({"a": entry([1.0], 1)}, b"x"),
    "twice": (b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},' * 2 + b'"b":1}', b"x"),
    "overlapping": ({"a": entry([1], 1), "b": entry([1], 1)}, b"x"),
    "a gap": ({"a": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}}, b"xy"),
    "unknown type": ({"a": entry([1], 1, "X9")}, b"x"),
    "no shape": ({"a": {"dtype": "U8"}}, b"x"),
    "no entry": ({"a": 3},),
    "deep": (b'{"__metadata__":' + b"[" * 100_000,),
    "deep words": ({"__metadata__": {"mmgen": "[" * 100_000}, "a": entry([1], 1)}, b"x"),
    "words that are a list": ({"__metadata__": {"mmgen": "[]"}, "a": entry([1], 1)}, b"x"),
}


@pytest.mark.parametrize("content", TENSORS.values(), ids=TENSORS)
def test_tensors_that_cannot_be_are_one_message(tmp_path, content):
    shard(tmp_path / "file", *content)
    with (
        pytest.raises(RunError, match=r"file: .*; do this$"),
        open_tensors(tmp_path / "file", READER) as tensors,
    ):
        list(tensors.values())


# A checkpoint, refused before it changes a training.


@pytest.fixture(scope="module")
def half_way(tmp_path_factory):
    """A run with a checkpoint in the middle of its second epoch of three batches."""
    path = tmp_path_factory.mktemp("runs") / "run"
    state = write_run(path, "jmvae", MODALITIES, {})
    for item in fit(state, batches(MODALITIES, 20)):
        if isinstance(item, Epoch):
            run_folder.append_metrics(path, item)
        elif item.epoch == 2:
            break
    run_folder.save_checkpoint(path, state)
    return path


def changed(path, tensors, counters):
    """Writes a checkpoint anew: tensors and counters replaced, or removed where they are None."""
    with safe_open(path, "pt") as file:
        old = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        header = json.loads(file.metadata()["mmgen"])
    for name, change in tensors.items():
        for full in [n for n in old if n == name or n.endswith(f"/{name}")] or [name]:
            value = change(old.get(full)) if callable(change) else change
            old.pop(full, None)
            if value is not None:
                old[full] = value.contiguous()
    header = {k: v for k, v in {**header, **counters}.items() if v != "removed"}
    path.unlink()
    save_file(old, path, {"mmgen": json.dumps(header)})


COUNTERS = [
    *({"epoch": value} for value in (-5, 1.5, "1", None, True, [1], 10**30, "removed")),
    *({"batch": value} for value in (99_999, 3, -1, 0, 0.5, "1", "removed")),
    *({"rows": value} for value in (-1, 7, 8.0, "8", "removed")),
    *({"best": value} for value in (float("nan"), -float("inf"), "low", None, "removed")),
    *({"format": value} for value in (0, -1, 99, "1", 1.0, None, "removed")),
    {"epoch": float("nan")},
    {"batch": 0, "rows": 0},  # there are sums
]


@pytest.mark.parametrize("counters", COUNTERS, ids=str)
def test_counters_that_cannot_be_are_refused(half_way, tmp_path, counters):
    refused(half_way, tmp_path, {}, counters)


SHAPES = {
    "empty moments": {"exp_avg": lambda t: t.new_zeros(0)},
    "one moment for all": {"exp_avg": lambda t: t.new_zeros(())},
    "transposed moments": {"exp_avg": lambda t: t.t() if t.dim() == 2 else t},
    "moments of a half": {"exp_avg": lambda t: t.half()},
    "whole moments": {"exp_avg_sq": lambda t: t.long()},
    "moments that are no number": {"exp_avg_sq": lambda t: t * float("nan")},
    "squares below 0": {"exp_avg_sq": lambda t: t - 1},
    "no squares": {"exp_avg_sq": None},
    "no count": {"step": None},
    "a count below 0": {"step": lambda t: t * 0 - 1},
    "several counts": {"step": lambda _: torch.zeros(3)},
    "no moments": {"step": None, "exp_avg": None, "exp_avg_sq": None},
    "a parameter more": {"optimiser/model/999/exp_avg": torch.zeros(3)},
    "a parameter of no number": {"optimiser/model/x/exp_avg": torch.zeros(3)},
    "a moment more": {"optimiser/model/0/max_exp_avg_sq": torch.zeros(3)},
    "a player more": {"optimiser/other/0/exp_avg": torch.zeros(3)},
    "something more": {"something": torch.zeros(3)},
    "a short random state": {"random/cpu": lambda t: t[:10]},
    "a random state of zeros": {"random/cpu": lambda t: t * 0},
    "a random state of 255": {"random/cpu": lambda t: t * 0 + 255},
    "a random state of megabytes": {"random/cpu": lambda t: t.repeat(1000)},
    "a random state of floats": {"random/cpu": lambda t: t.float()},
    "no random state": {"random/cpu": None},
    "no sums": {"sums": None},
    "sums of sums": {"sums": lambda t: t.unsqueeze(0)},
    "sums that are no number": {"sums": lambda t: t * float("nan")},
    "a weight more": {"model/extra": torch.zeros(3)},
    "no weights": {"bias": None},
    "empty weights": {"bias": lambda t: t.new_zeros(0) if t.dim() == 1 else t},
    "weights that are no number": {"bias": lambda t: t * float("nan")},
    "whole weights": {"bias": lambda t: t.long()},
    "complex weights": {"bias": lambda t: t.to(torch.complex64)},
    "weights of a byte": {"bias": lambda t: t.to(torch.float8_e4m3fn)},
}


@pytest.mark.parametrize("tensors", SHAPES.values(), ids=SHAPES)
def test_tensors_that_do_not_fit_are_refused(half_way, tmp_path, tensors):
    # Names of weights end in .bias: all of them.
    with safe_open(half_way / "last.safetensors", "pt") as file:
        biases = [n for n in file.keys() if n.endswith(".bias")]  # noqa: SIM118
    if "bias" in tensors:
        tensors = dict.fromkeys(biases, tensors["bias"])
    refused(half_way, tmp_path, tensors, {})


def refused(half_way, tmp_path, tensors, counters):
    shutil.copytree(half_way, tmp_path / "run")
    changed(tmp_path / "run" / "last.safetensors", tensors, counters)
    state = training("jmvae", MODALITIES)
    before = everything(state)
    with pytest.raises(RunError, match=r"last\.safetensors"):
        run_folder.resume(tmp_path / "run", state, batches=3)
    assert differing(before, everything(state)) == []


def everything(state):
    tensors = {n: t.clone() for n, t in state.model.state_dict().items()}
    moments = state.optimisers["model"].state_dict()["state"]
    counters = torch.tensor([state.epoch, state.batch, state.rows, state.best])
    more = {"moments": torch.tensor(len(moments)), "random": torch.get_rng_state()}
    return {**tensors, **more, "counters": counters}


def test_the_checkpoint_itself_is_taken(half_way):
    state = training("jmvae", MODALITIES)
    run_folder.resume(half_way, state, batches=3)
    assert (state.epoch, state.batch, state.rows) == (1, 1, 8)


def test_sums_of_other_terms_are_an_error_and_nothing_is_written(half_way, tmp_path):
    shutil.copytree(half_way, tmp_path / "run")
    changed(tmp_path / "run" / "last.safetensors", {"sums": torch.zeros(2)}, {})
    state = training("jmvae", MODALITIES)
    run_folder.resume(tmp_path / "run", state, batches=3)
    with pytest.raises(RunError, match="sums up 2 terms"):
        next(fit(state, batches(MODALITIES, 20)))


def test_weights_of_another_width_of_numbers_are_taken(half_way, tmp_path):
    shutil.copytree(half_way, tmp_path / "run")
    best = tmp_path / "run" / "best.safetensors"
    with safe_open(best, "pt") as file:
        doubled = {n: file.get_tensor(n).double() for n in file.keys()}  # noqa: SIM118
        header = file.metadata()
    best.unlink()
    save_file(doubled, best, header)
    run_folder.load_weights(tmp_path / "run", training("jmvae", MODALITIES).model)


# metrics.jsonl


LINE = {
    "epoch": 1,
    "beta": 1.0,
    "train": {"loss": 1.0},
    "validation": {},
    "seconds": 1.0,
    "examples_per_second": 5,
    "best": True,
}

LINES = {
    "a word for a number": {"epoch": "1"},
    "epoch 0": {"epoch": 0},
    "half an epoch": {"epoch": 1.5},
    "an epoch of 300 digits": {"epoch": 10**300},
    "no epoch": {"epoch": None},
    "beta of 2": {"beta": 2},
    "terms in a list": {"train": [1]},
    "no terms": {"train": {}},
    "terms without a loss": {"train": {"kl": 1.0}},
    "validation that is not": {"validation": None},
    "a loss in words": {"train": {"loss": "low"}},
    "no loss": {"train": {"loss": None}},
    "a loss with levels": {"validation": {"loss": {"a": [1]}}},
    "a loss of 400 digits": {"train": {"loss": 10**400}},
    "negative time": {"seconds": -1},
    "time in words": {"seconds": "1"},
    "endless time": {"seconds": float("inf")},
    "no rate": {"examples_per_second": None},
    "best in words": {"best": "no"},
}


@pytest.mark.parametrize("change", LINES.values(), ids=LINES)
def test_metrics_that_cannot_be_name_their_line(tmp_path, change):
    lines = [json.dumps(LINE), json.dumps({**LINE, "epoch": 2, **change})]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    with pytest.raises(RunError, match=r"metrics\.jsonl, line 2: "):
        run_folder.read_metrics(tmp_path)


@pytest.mark.parametrize(
    ("epochs", "good"),
    [([1, 2, 3], True), ([4, 5], True), ([1, 3], False), ([1, 1], False), ([2, 1], False)],
)
def test_epochs_follow_one_another(tmp_path, epochs, good):
    text = "".join(json.dumps({**LINE, "epoch": epoch}) + "\n" for epoch in epochs)
    (tmp_path / "metrics.jsonl").write_text(text)
    if good:
        assert [line["epoch"] for line in run_folder.read_metrics(tmp_path)] == epochs
    else:
        with pytest.raises(RunError, match="after"):
            run_folder.read_metrics(tmp_path)


def test_terms_that_are_not_finite_are_read(tmp_path):
    for loss in (float("nan"), float("inf"), 1e308, -5):
        line = {**LINE, "train": {"loss": loss}, "later": "a key of a later version"}
        (tmp_path / "metrics.jsonl").write_text(json.dumps(line))
        assert len(run_folder.read_metrics(tmp_path)) == 1


def test_metrics_that_lack_epochs_of_the_checkpoint_stop_a_run_that_goes_on(half_way, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(half_way, run)
    changed(run / "last.safetensors", {}, {"epoch": 7})
    with pytest.raises(RunError, match=r"ends with epoch 1, but .* epoch 7"):
        run_folder.resume(run, training("jmvae", MODALITIES))
    (run / "metrics.jsonl").unlink()
    run_folder.resume(run, training("jmvae", MODALITIES))


# environment.json


ENVIRONMENTS = {
    "format in words": {"format": "1"},
    "half a format": {"format": 1.5},
    "format that is true": {"format": True},
    "plugins in pairs": {"plugins": [["a", "b"]]},
    "plugins that are numbers": {"plugins": {"a": 1}},
    "data in words": {"dataset": "x"},
    "hash that is a number": {"dataset": {"hash": 3}},
    "name that is a list": {"dataset": {"name": ["x"]}},
    "versions in a list": {"versions": [1]},
    "commands that are a number": {"continued": 5},
    "commands that are numbers": {"continued": [1]},
    "no command": {"command": None},
}


@pytest.mark.parametrize("change", ENVIRONMENTS.values(), ids=ENVIRONMENTS)
def test_an_environment_that_cannot_be_is_refused(tmp_path, change):
    text = json.dumps({"format": 1, "dataset": {"name": "x", "hash": "y"}, **change})
    (tmp_path / "environment.json").write_text(text)
    with pytest.raises(RunError, match=r"environment\.json: "):
        run_folder.environment(tmp_path)


def test_an_environment_keeps_what_a_later_version_adds(tmp_path):
    values = {"format": 1, "later": {"a": [1]}, "command": "x"}
    (tmp_path / "environment.json").write_text(json.dumps(values))
    assert run_folder.environment(tmp_path) == values
    run_folder.add_command(tmp_path, "y")
    assert run_folder.environment(tmp_path) == {**values, "continued": ["y"]}


# A data set that was sealed with what cannot be.


@pytest.fixture
def data(tmp_path):
    values = {"a": torch.arange(6, dtype=torch.uint8).view(6, 1), "b": torch.rand(6, 2)}
    modalities = {"a": {"kind": "x", "n": 1}, "b": {"kind": "y"}}
    splits = {"train": values, "test": {n: v[:2] for n, v in values.items()}}
    return write_dataset(
        tmp_path / "data", name="n", about="a", modalities=modalities, splits=splits, shard_rows=3
    ).path


def sealed(folder, change):
    raw = json.loads((folder / INDEX).read_text())
    change(raw, raw["splits"]["train"], raw["modalities"])
    try:
        loose = Index.model_construct(**{k: raw[k] for k in ("format_version", "modalities")})
        raw["hash"] = Index.content_hash(loose.model_copy(update={"splits": raw["splits"]}))
    except Exception:
        raw["hash"] = "0" * 64
    (folder / INDEX).write_text(json.dumps(raw))


def renamed(table, old, new):
    table[new] = table.pop(old)


SEALED = {
    "count below 0": lambda _, s, m: s.update(count=-3),
    "count in words": lambda _, s, m: s.update(count="6"),
    "count of a float": lambda _, s, m: s.update(count=6.0),
    "count that is true": lambda _, s, m: s["shards"][0].update(count=True),
    "count of 30 digits": lambda _, s, m: s.update(count=10**30),
    "count of other shards": lambda _, s, m: s.update(count=7),
    "shard twice": lambda _, s, m: s.update(count=9, shards=[*s["shards"], s["shards"][0]]),
    "shard of another split": lambda r, s, m: r["splits"].update(test=s),
    "5,000 shards": lambda _, s, m: s.update(shards=s["shards"][:1] * 5000, count=15_000),
    "no shards": lambda _, s, m: s.update(shards=[]),
    "shard elsewhere": lambda _, s, m: s["shards"][0].update(file="../x.safetensors"),
    "long file": lambda _, s, m: s["shards"][0].update(file="a" * 5000 + ".safetensors"),
    "no hash": lambda _, s, m: s["shards"][0].update(sha256=""),
    "kind that is a number": lambda _, s, m: m["a"].update(kind=3),
    "kind that is a list": lambda _, s, m: m["a"].update(kind=["x"]),
    "no kind": lambda _, s, m: m["a"].pop("kind"),
    "nameless modality": lambda _, s, m: renamed(m, "a", ""),
    "modality elsewhere": lambda _, s, m: renamed(m, "a", "../a"),
    "modality of a zero": lambda _, s, m: renamed(m, "a", "a\0b"),
    "half a modality": lambda _, s, m: renamed(m, "a", "\ud800"),
    "modality of 5,000 letters": lambda _, s, m: renamed(m, "a", "a" * 5000),
    "20,000 modalities": lambda _, s, m: m.update({f"m{i}": {"kind": "x"} for i in range(20_000)}),
    "deep setting": lambda _, s, m: m["a"].update(n=deep(100)),
    "endless setting": lambda _, s, m: m["a"].update(n=float("inf")),
    "split elsewhere": lambda r, s, m: renamed(r["splits"], "train", "../x"),
    "nameless split": lambda r, s, m: renamed(r["splits"], "train", ""),
    "version that is true": lambda r, s, m: r.update(format_version=True),
    "version in words": lambda r, s, m: r.update(format_version="1"),
    "name that is a number": lambda r, s, m: r.update(name=3),
}


def deep(levels):
    return [deep(levels - 1)] if levels else 1


@pytest.mark.parametrize("change", SEALED.values(), ids=SEALED)
def test_a_data_set_that_cannot_be_is_refused(data, change):
    sealed(data, change)
    with pytest.raises(DataError, match=r"dataset\.json") as error:
        read_dataset(data)
    assert len(str(error.value)) < len(str(data)) + 500
    assert "its hash does not match" not in str(error.value)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (torch.zeros(3, 0), "stores 'a' as"),
        (torch.zeros(2), "should have 3 rows"),
        (None, "no a"),
    ],
)
def test_rows_that_cannot_be_are_refused(data, rows, words):
    file = data / "train-00000.safetensors"
    values = load_file(file)
    file.unlink()
    save_file({"b": values["b"]} if rows is None else {**values, "a": rows}, file)
    with pytest.raises(DataError, match=words):
        read_dataset(data)


# The rest: where a pipe, a deep or an endless file was read by a reader of its own.


def hostile(path):
    """Yields what a file is replaced with, one after the other."""
    for content in (b"[" * 100_000, b"\xff\xfe", b""):
        path.write_bytes(content)
        yield
    for node in (pipe, folder, loop, huge):
        if path.is_dir():
            path.rmdir()
        place(node, path)
        yield


def test_tables_and_their_configuration(mmgen, tmp_path):
    table = tmp_path / "t.csv"
    for _ in hostile(table):
        with pytest.raises(DataError, match=r"t\.csv"):
            read_table(table)
    table.unlink()
    table.write_text("name,colour\na,red\nb,blue\n")
    for _ in hostile(tmp_path / "c.toml"):
        code, _, err = mmgen("data", "table", table, "--config", tmp_path / "c.toml", "--show")
        assert (code, "c.toml" in err) == (2, True)


def test_configurations_of_a_training(mmgen, tmp_path):
    for _ in hostile(tmp_path / "c.toml"):
        code, _, err = mmgen("train", tmp_path / "c.toml", "--out", tmp_path / "run")
        # A folder is taken for a run that is to go on.
        assert (code, "c.toml" in err) == (2, True)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "name",
    ["experiment.json", "environment.json", "best.safetensors", "metrics.jsonl"],
)
def test_files_of_a_run(mmgen, half_way, tmp_path, name):
    run = tmp_path / "run"
    shutil.copytree(half_way, run)
    for _ in hostile(run / name):
        if name == "metrics.jsonl":
            if (run / name).is_file() and not (run / name).stat().st_size:
                continue  # no epoch was done
            with pytest.raises(RunError, match=name):
                run_folder.read_metrics(run)
        elif name == "best.safetensors":
            with pytest.raises(RunError, match=name):
                run_folder.load_weights(run, training("jmvae", MODALITIES).model)
        else:
            code, _, err = mmgen("generate", run, "--given", "colour=red")
            assert (code, name in err) == (2, True)


def test_files_of_a_data_set(mmgen, data):
    pipe(data / "README.md")  # a courtesy: without it, the card is made anew
    assert mmgen("data", "show", data)[0] == 0
    for name in ("train-00000.safetensors", INDEX):
        kept = (data / name).read_bytes()
        for _ in hostile(data / name):
            with pytest.raises(DataError, match=name):
                read_dataset(data)
        (data / name).unlink()
        (data / name).write_bytes(kept)


def test_files_of_a_reproduction(tmp_path):
    file = tmp_path / "file"
    readers = (
        measured.likelihoods,
        measured.recognised,
        measured.manifest,
        lambda path: measured.latents_of(path, ["a"], ["b"], 3),
        lambda path: measured.pictures_of(path, {"a": (1,)}),
    )
    for read in readers:
        for _ in hostile(file):
            assert not measured.same_text(file, "text")
            with pytest.raises(RunError, match=str(file)):
                read(file)
        file.unlink()


MEASURED = {
    "likelihoods": '{"likelihoods": [{"targets": "x"}]}',
    "recognised": '{"rows": []}',
    "recognized in words": '{"rows": [{"z": "mean", "value": "high", "ceiling": 1}]}',
}


@pytest.mark.parametrize("content", MEASURED.values(), ids=MEASURED)
def test_measurements_that_cannot_be_are_named(tmp_path, content):
    (tmp_path / "file").write_text(content)
    for read in (measured.likelihoods, measured.recognised):
        with pytest.raises(RunError, match="file: "):
            read(tmp_path / "file")


@pytest.mark.parametrize(
    "rows",
    ["a,b,x,1,2", "a,b,1,nan,2", "a,b,1,2", "a,b,3,1,2", 'a,"b', "a,c,1,1,1"],
)
def test_latents_that_cannot_be_are_named(tmp_path, rows):
    file = tmp_path / "figure-5.csv"
    file.write_text(f"model,given,class,z1,z2\n{rows}\n")
    with pytest.raises(RunError, match=r"figure-5\.csv"):
        measured.latents_of(file, ["a"], ["b"], 3)


def test_latents_are_read_back(tmp_path):
    file = tmp_path / "figure-5.csv"
    file.write_text("model,given,class,z1,z2\na,b,1,0.5,-2\na,b,0,1,1\n")
    spaces, classes = measured.latents_of(file, ["a"], ["b"], 3)
    assert spaces["a"]["b"].tolist() == [[0.5, -2], [1, 1]]
    assert classes.tolist() == [1, 0]


def test_who_writes_is_not_asked_of_a_pipe(tmp_path):
    os.mkfifo(tmp_path / locks.WRITER)
    assert locks._writer(tmp_path) == "another process"


def test_many_wrong_keys_are_counted(mmgen, tmp_path):
    (tmp_path / "c.toml").write_text("".join(f"key{i} = {'9' * 15}\n" for i in range(5000)))
    code, _, err = mmgen("train", tmp_path / "c.toml", "--dry-run")
    assert code == 2
    assert "more" in err
    assert len(err) < 5000


def test_a_record_names_the_key_and_how_many_more():
    with pytest.raises(ConfigError, match=r"^here: train: .*\(and 6 more\)$|missing"):
        Reader(ConfigError).check(records.EpochLine, {}, "here")
    with pytest.raises(MmgenError, match=r"epoch: .*, not -3"):
        Reader(ConfigError).check(records.EpochLine, {**LINE, "epoch": -3}, "here")
