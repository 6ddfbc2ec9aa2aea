"""What is too large, nonsense or somewhere else is refused in one message, before it costs."""

import inspect
import json
import os
import re
import resource
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import pytest
import torch
import typer
from conftest import ROOT, small
from toys import (
    FIVE,
    KINDS,
    ONE_WAY,
    PLUGIN,
    REGISTRY,
    Numbers,
    experiment,
    toy_modalities,
    toy_model,
    write_run,
)

import mmgen.memory
from mmgen import build
from mmgen.cli import app, common, data
from mmgen.data.sources.synthetic import synthetic
from mmgen.data.tables.table import read_table
from mmgen.errors import ConfigError, DataError, GenerationError, RunError, WriteError
from mmgen.evaluation import growth as counting
from mmgen.evaluation.directions import all_directions
from mmgen.experiment import Experiment
from mmgen.files import atomic
from mmgen.gallery import groups
from mmgen.modality import Modality
from mmgen.run import load
from mmgen.subsets import chosen, proper
from mmgen.training import memory

META = torch.device("meta")
GIBIBYTE = 2**30


def commands(app: typer.Typer, path: tuple[str, ...] = ()):
    """Yields every command of the line, with the function behind it."""
    for command in app.registered_commands:
        yield (*path, command.name or command.callback.__name__), command.callback
    for group in app.registered_groups:
        yield from commands(group.typer_instance, (*path, group.name))


def added():
    """Yields the commands of mmgen's own plugins, likewise."""
    registry = build.registry()
    for kind, cls in registry.sources.items():
        yield ("data", kind), data.command(cls, registry)
    for name, command in registry.commands.items():
        yield from commands(command.app, (name,))


def options():
    """Yields every option and argument: command, name, type and typer's description."""
    for path, function in (*commands(app.app), *added()):
        hints = get_type_hints(function, include_extras=True)
        for name in inspect.signature(function).parameters:
            if get_origin(hint := hints[name]) is Annotated:
                kind, info, *_ = get_args(hint)
                kinds = {*get_args(kind)} - {type(None)} or {kind}
                yield " ".join(path), name, kinds, info


def test_every_option_is_walked():
    found = {(command, name) for command, name, _, _ in options()}
    assert {("generate", "seed"), ("data glyphs", "train"), ("reproduce mnist", "jobs")} <= found
    assert len(found) > 60


def test_every_whole_number_on_the_command_line_has_bounds():
    numbers = [(c, n, info) for c, n, kinds, info in options() if int in kinds]
    assert [f"{c} {n}" for c, n, info in numbers if info.min is None or info.max is None] == []
    assert max(info.max for _, _, info in numbers) < 2**63


def test_every_fraction_on_the_command_line_has_a_least_value():
    fractions = [(c, n, info) for c, n, kinds, info in options() if float in kinds]
    assert len(fractions) > 3
    assert [f"{c} {n}" for c, n, info in fractions if info.min is None] == []


def test_every_path_on_the_command_line_is_looked_at_first():
    paths = [(c, n, info) for c, n, kinds, info in options() if Path in kinds]
    assert len(paths) > 15
    assert [
        f"{c} {n}"
        for c, n, info in paths
        if info.callback not in (common.reachable, common.all_reachable, common.storable)
    ] == []


TOO_MUCH = str(2**63), str(2**64), str(10**30), "9" * 5000


@pytest.mark.parametrize("number", ["-1", *TOO_MUCH], ids=lambda n: n[:24])
@pytest.mark.parametrize(
    "words",
    [
        ("generate", "RUN", "--seed"),
        ("generate", "RUN", "--samples"),
        ("generate", "RUN", "--iterations"),
        ("evaluate", "RUN", "--seed"),
        ("evaluate", "RUN", "--chunk"),
        ("evaluate", "RUN", "--jobs"),
        ("data", "glyphs", "--out", "DATA", "--train"),
        ("reproduce", "mnist", "--data", "RUN", "--out", "OUT", "--epochs"),
        ("growth", "--modalities"),
        ("growth", "--layers"),
    ],
    ids=" ".join,
)
def test_numbers_out_of_bounds_are_refused_by_name(mmgen, tmp_path, monkeypatch, words, number):
    monkeypatch.chdir(tmp_path)
    code, out, err = mmgen(*words, number)
    assert code == 2
    assert words[-1] in err
    assert "Traceback" not in out + err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("ranges", "message"),
    [
        (("2-20", "1"), "50,000 nets"),
        (("13", "1"), "from K = 13 on"),
        (("64", "1"), "50,000 nets"),
        (("2-1000000000000", "1"), "from 2 to 64"),
        (("2", "1-1000000000"), "from 1 to 32"),
        (("²", "1"), "--modalities"),
        (("", "1"), "--modalities"),
    ],
)
def test_growth_refuses_what_would_take_forever(mmgen, ranges, message):
    before = time.perf_counter()
    code, _, err = mmgen("growth", "--modalities", ranges[0], "--layers", ranges[1])
    assert code == 2
    assert message in err
    assert time.perf_counter() - before < 5


def test_growth_knows_how_many_nets_it_builds():
    told: list[int] = []
    rows = counting.growth(REGISTRY.models, Numbers(), (2, 4), (1, 3), done=told.append)
    built = counting.candidates(REGISTRY.models, (2, 4), (1, 3))
    assert told == [one.expected for one in built]  # progress ends at the whole
    for one, row in zip(built, rows, strict=True):
        assert one.nets in (None, row.nets)


@pytest.mark.parametrize(
    "name", ["hpu", "meta", "xla", "cuda:9999", "cpu:7", "🦊", "\udcff", " ", "a" * 300, "cpu\n"]
)
def test_a_device_that_cannot_compute_is_refused_under_the_name_it_was_given(name):
    with pytest.raises(ConfigError, match=r"^device: .* cannot be used here: "):
        build.device(name)
    with pytest.raises(ConfigError, match=r"^train\.device: "):
        build.device(name, "train.device")


def test_every_command_names_the_device_that_was_wrong(mmgen, trained, small_glyphs, tmp_path):
    config = ROOT / "examples" / "glyphs.toml"
    words = [*small(small_glyphs), "--device", "meta"]
    assert "train.device: 'meta'" in mmgen("train", config, *words, "--out", tmp_path / "run")[2]
    for verb in ("generate", "report", "evaluate"):
        code, _, err = mmgen(verb, trained, "--device", "meta")
        assert code == 2
        assert "error: device: 'meta'" in err
    assert not (tmp_path / "run").exists()


@pytest.fixture
def places(tmp_path: Path) -> dict[str, Path]:
    """Where no file can be written."""
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    return {
        "the root": Path("/"),
        "nothing": Path(),
        "above": Path(".."),
        "a folder": tmp_path / "folder",
        "below a file": tmp_path / "file" / "x",
        "a pipe": tmp_path / "pipe",
        "a long name": tmp_path / ("a" * 300),
        "a long name in a folder to be made": tmp_path / "new" / ("a" * 300),
        "a null character": tmp_path / "\0",
    }


PLACES = (
    *("the root", "nothing", "above", "a folder", "below a file", "a pipe", "a long name"),
    *("a long name in a folder to be made", "a null character"),
)


@pytest.mark.parametrize("place", PLACES)
def test_where_no_file_can_be_written_nothing_is(places, tmp_path, place):
    before = sorted(tmp_path.rglob("*"))
    path = places[place]
    if place == "a null character":
        with pytest.raises(ConfigError, match="cannot be reached"):
            common.reachable(path)
        return
    for attempt in (atomic.check_writable, lambda p: atomic.deliver(p, "text")):
        with pytest.raises(WriteError):
            attempt(path)
    with pytest.raises(WriteError):
        atomic.write(path, "text")
    assert sorted(p for p in tmp_path.rglob("*") if p.name != "new") == before
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "file").read_text() == "kept"


def test_a_file_in_a_folder_to_be_made_is_checked_without_making_it(tmp_path):
    atomic.check_writable(tmp_path / "new" / "folder" / "x.png")
    assert not any(tmp_path.iterdir())
    atomic.deliver(tmp_path / "new" / "folder" / "x.png", b"x")
    assert (tmp_path / "new" / "folder" / "x.png").read_bytes() == b"x"


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is barred to root")
def test_a_barred_folder_is_refused(tmp_path):
    (tmp_path / "barred").mkdir(mode=0o500)
    with pytest.raises(WriteError, match="Permission denied"):
        atomic.check_writable(tmp_path / "barred" / "x.png")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "words",
    [
        ("generate", "RUN", "--targets", "image", "--out"),
        ("report", "RUN", "--out"),
        ("growth", "--modalities", "2", "--layers", "1", "--kind", "label", "--out"),
        ("evaluate", "RUN", "--rows", "1", "--out"),
    ],
    ids=lambda words: words[0],
)
def test_commands_refuse_such_a_file_before_their_work(
    mmgen, places, monkeypatch, tmp_path, words, place
):
    monkeypatch.setattr("mmgen.run.load", None)
    monkeypatch.setattr(counting, "growth", None)
    before = sorted(tmp_path.rglob("*"))
    code, out, err = mmgen(*words, places[place])
    assert code == 2
    assert "error" in err.lower()
    assert "Traceback" not in out + err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("place", ["below a file", "a long name", "a null character", "a pipe"])
@pytest.mark.parametrize(
    "words",
    [
        ("generate", "PATH"),
        ("evaluate", "PATH"),
        ("report", "PATH"),
        ("train", "examples/glyphs.toml", "--out", "PATH"),
        ("train", "examples/glyphs.toml", "--out", "RUN", "--data", "PATH"),
        ("data", "glyphs", "--out", "PATH"),
        ("data", "show", "PATH"),
        ("data", "mnist", "PATH", "--out", "DATA"),
        ("data", "folder", "PATH", "--out", "DATA"),
        ("plugins", "new", "mmgen-audio", "--out", "PATH"),
        ("reproduce", "mnist", "--data", "PATH", "--out", "OUT"),
        ("reproduce", "mnist", "--data", "examples", "--out", "PATH"),
    ],
    ids=" ".join,
)
def test_commands_refuse_a_folder_that_cannot_be(mmgen, places, tmp_path, words, place):
    before = sorted(tmp_path.rglob("*"))
    elsewhere = {"PATH": places[place], "examples": ROOT / "examples"}
    elsewhere |= {name: tmp_path / name for name in ("RUN", "DATA", "OUT")}
    elsewhere["examples/glyphs.toml"] = ROOT / "examples" / "glyphs.toml"
    code, out, err = mmgen(*(elsewhere.get(word, word) for word in words))
    assert code == 2
    assert "error" in err.lower()
    assert "Traceback" not in out + err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_name_that_is_not_utf8_is_a_name(mmgen, trained, tmp_path):
    file = tmp_path / os.fsdecode(b"\xff.png")
    code, out, err = mmgen("generate", trained, "--targets", "image", "-n", "1", "--out", file)
    assert (code, err) == (0, "")
    assert "?.png" in out
    assert file.read_bytes().startswith(b"\x89PNG")


def free(monkeypatch: pytest.MonkeyPatch, count: float) -> None:
    monkeypatch.setattr(mmgen.memory, "free_memory", lambda _: float(count))


def test_what_does_not_fit_says_what_is_needed_what_is_free_and_what_to_try(monkeypatch):
    free(monkeypatch, 2 * GIBIBYTE)
    mmgen.memory.check_fits("work", 2 * GIBIBYTE, "less of it")
    message = r"work needs about 3.0 GiB on cpu, where 2.0 GiB are free\.\n  Try less of it"
    with pytest.raises(DataError, match=message):
        mmgen.memory.check_fits("work", 3 * GIBIBYTE, "less of it", error=DataError)


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_sample_takes_is_measured_without_taking_it(kind):
    modalities = toy_modalities(4)
    settings: dict[str, Any] = {"targets": ("picture",)} if kind in ONE_WAY else {}
    named = experiment(kind, modalities, settings)
    told = memory.sample_memory(build.sketch(named, modalities, REGISTRY), modalities)
    model, count = toy_model(kind, modalities, **settings).eval(), 200
    x = model.blank(model.names, count)
    with torch.no_grad(), memory._Live() as live:
        z = model.imputed_posterior(x).rsample()
        kept = [(p, p.mean, p.sample()) for p in model.decode(z, x).values()]
    assert live.peak <= 1.1 * count * told
    assert count * told < 4 * live.peak
    del kept


def test_a_net_that_cannot_run_on_the_meta_device_is_not_measured():
    class Reading(Numbers):
        def decoder(self, in_features):
            net = super().decoder(in_features)
            net.register_forward_pre_hook(lambda _, args: args[0].sum().item() and None)
            return net

    modalities = {"a": Numbers(), "b": Reading()}
    model = build.sketch(experiment("jmvae", toy_modalities(2)), modalities, REGISTRY)
    assert memory.sample_memory(model, modalities) == 0


def test_more_samples_than_fit_are_refused_with_the_numbers(mmgen, trained):
    code, out, err = mmgen("generate", trained, "-n", 100_000_000)
    assert code == 2
    assert "generating 100,000,000 samples needs about" in err
    assert "are free" in err
    assert out == ""


def test_a_grid_too_large_to_draw_is_refused(mmgen, trained, tmp_path):
    file = tmp_path / "grid.png"
    code, _, err = mmgen("generate", trained, "--targets", "image", "-n", 9000, "--out", file)
    assert code == 2
    assert "a grid of 9,000 pictures would have" in err
    assert not file.exists()


def test_many_samples_in_words_are_told_in_parts(mmgen, trained, monkeypatch):
    words = ("generate", trained, "--targets", "label", "-n", "100", "--seed", "1")
    whole = mmgen(*words)
    monkeypatch.setattr("mmgen.cli.generate.TOLD", 7)
    assert mmgen(*words) == whole


@pytest.fixture
def forged(tmp_path: Path):
    """Makes a run of a toy model whose experiment.json says something else."""

    def forge(**model: Any) -> Path:
        run = tmp_path / "run"
        write_run(run, "jmvae", toy_modalities(2), {})
        table = json.loads((run / "experiment.json").read_text())
        table["modalities"]["point"]["widths"] = model.pop("point", [8])
        table["model"] |= model
        (run / "experiment.json").write_text(json.dumps(table))
        return run

    return forge


@pytest.mark.parametrize(
    "model",
    [
        {"latent": 2**30},
        {"fusion": [2**30]},
        {"point": [2**30]},
        {"point": [2**30, 2**30]},
        {"kind": "jmvae-kl", "subset_posterior": "flow", "flow_widths": [2**30]},
    ],
    ids=str,
)
def test_a_forged_run_takes_no_memory_that_its_weights_do_not_have(forged, monkeypatch, model):
    if "subset_posterior" in model and find_spec("zuko") is None:  # its import changes torch
        pytest.skip("zuko is not installed")
    devices: list[torch.device] = []
    real = build.model

    def watched(experiment, modalities, device, registry):
        devices.append(device)
        return real(experiment, modalities, device, registry)

    run = forged(**model)
    monkeypatch.setattr(build, "model", watched)
    with pytest.raises((RunError, ConfigError)):
        load(run, device="cpu", plugin_modules=[PLUGIN])
    assert set(devices) == {META}


@pytest.mark.ci
def test_a_forged_run_is_refused_within_a_gibibyte(forged):
    """The same from outside: a limit on all addresses that the process may have."""
    run = forged(latent=2**31 - 1)
    code = (
        "import resource, sys, torch, mmgen.run\n"
        "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        f"resource.setrlimit(resource.RLIMIT_AS, (size + {GIBIBYTE},) * 2)\n"
        "from mmgen.cli.app import main\n"
        "sys.argv = ['mmgen', *sys.argv[1:]]\n"
        "main()\n"
    )
    if not Path("/proc/self/statm").exists():
        pytest.skip("needs /proc")
    assert resource.RLIMIT_AS
    done = subprocess.run(
        [sys.executable, "-c", code, "-p", PLUGIN, "generate", str(run)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "the weights do not fit the model of experiment.json" in done.stderr


def test_a_run_that_does_not_fit_is_not_loaded(tmp_path, monkeypatch):
    write_run(tmp_path / "run", "jmvae", toy_modalities(2), {})
    free(monkeypatch, 1000)
    with pytest.raises(RunError, match=r"needs about .* where 1000 B are free"):
        load(tmp_path / "run", device="cpu", plugin_modules=[PLUGIN])


MANY = tuple(f"m{k}" for k in range(30))


def test_subsets_of_many_modalities_are_refused_by_their_number():
    with pytest.raises(ConfigError, match=r"2\^30 − 2 proper subsets, .* 2\^29 · 30 nets"):
        chosen(MANY, "all")
    with pytest.raises(ConfigError, match=r"2\^100000 "):
        chosen([str(k) for k in range(100_000)], "all")
    assert len(chosen(MANY[:12], "all")) == 2**12 - 2


def test_some_subsets_of_many_modalities_come_in_the_usual_order():
    assert chosen(MANY, ["m3+m1", "m2", "m1+m2"]) == [("m2",), ("m1", "m2"), ("m1", "m3")]
    names = MANY[:4]
    backwards = ["+".join(reversed(subset)) for subset in reversed(proper(names))]
    assert chosen(names, backwards) == proper(names)


def test_directions_of_many_modalities_are_refused_by_their_number():
    model = toy_model("jmvae", {n: Numbers(size=1, widths=(2,)) for n in MANY})
    with pytest.raises(GenerationError, match=r"2\^29 − 1 subsets.*--given"):
        all_directions(model)


def test_the_report_lists_the_same_subsets_with_and_without_listing_all(monkeypatch):
    model = toy_model("jmvae", {f"m{i}": Numbers(size=1) for i in range(7)})
    whole = groups.shown_subsets(model, 14)
    monkeypatch.setattr(groups, "MOST", 6)
    assert groups.shown_subsets(model, 14) == whole
    assert len(whole[0]) == 14
    assert whole[1] == 2**7 - 2 - 14


@pytest.mark.parametrize(
    "override",
    [
        f"train.epochs={10**30}", "train.epochs=0x" + "f" * 5000, f"train.batch_size={10**30}",
        f"train.seed={2**63}", f"data.rows={10**12}", f"data.classes={10**30}",
        f"data.seed={10**30}", f"model.latent={10**12}", "model.layers=1000000000",
        f"model.fusion={[8] * 101}", "model.widths=[0]", f"model.widths=[{2**31}]",
    ],
    ids=lambda text: text[:30],
)  # fmt: skip
def test_settings_out_of_bounds_are_refused_by_their_key(tmp_path, override):
    config = tmp_path / "config.toml"
    config.write_text("data.source = 'synthetic'\nmodel.kind = 'hierarchical'\n")
    with pytest.raises(ConfigError) as refused:
        build.model_settings(Experiment.read(config, [override]), REGISTRY)
    assert f"  {override.partition('=')[0]}" in str(refused.value)
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("kind", ["image", "label", "attributes", "vector"])
def test_nets_of_the_first_modalities_have_so_many_layers_at_most(kind):
    cls = build.registry().get(kind)
    with pytest.raises(ConfigError, match=r"encoder_widths: .*100 items"):
        build.registry().create(
            "m", {"kind": kind, **cls.example_settings(), "encoder_widths": [8] * 101}
        )


def test_made_up_data_that_does_not_fit_is_refused():
    with pytest.raises(DataError, match=r"making up 2,147,483,647 rows needs about .* TiB"):
        synthetic(FIVE, {"train": 2**31 - 1})


def test_a_data_set_that_does_not_fit_on_the_disk_is_refused_before_it_is_written(mmgen, tmp_path):
    out = tmp_path / "deep" / "glyphs"
    code, _, err = mmgen("data", "glyphs", "--out", out, "--train", 2**40)
    assert code == 2
    assert re.search(r"glyphs: the data set takes about \d{3}.* TiB, where .* are free", err)
    assert list(tmp_path.iterdir()) == []


def test_examples_of_many_rows_are_those_of_each_class():
    classes = torch.tensor([7, 0, 7, 10**9, 3])
    whole = Modality.example(Numbers(), classes, torch.Generator().manual_seed(1))
    noise = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    centres = [torch.randn(3, generator=torch.Generator().manual_seed(int(c))) for c in classes]
    assert torch.equal(whole, torch.stack(centres) + 0.3 * noise)


def test_a_flow_that_does_not_fit_is_refused_before_it_is_built():
    if find_spec("zuko") is None:
        pytest.skip("zuko is not installed")
    modalities = toy_modalities(2)
    settings = {"subset_posterior": "flow", "flow_widths": (10**6, 10**6)}
    with pytest.raises(ConfigError, match=r"a flow of 3 transformations needs about .* TiB"):
        build.sketch(experiment("jmvae-kl", modalities, settings), modalities, REGISTRY)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("evaluate", "--jobs", "1000"), "--jobs 1000"),
        (("evaluate", "--chunk", "10000"), "--chunk 10000"),
        (("coherence", "--samples", "1000000"), "fewer --samples"),
    ],
)
def test_evaluation_that_does_not_fit_is_refused(mmgen, trained, monkeypatch, words, message):
    loaded = load(trained)
    monkeypatch.setattr("mmgen.run.load", lambda *_, **__: loaded)
    free(monkeypatch, 100 * 2**20)
    verb, *options = words
    code, _, err = mmgen(verb, trained, *options)
    assert code == 2
    assert message in err
    assert "where 100.0 MiB are free" in err


NOT_UTF8 = os.fsdecode(b"\xff")


def test_a_page_of_a_name_that_is_not_utf8_is_written(tmp_path):
    atomic.deliver(tmp_path / NOT_UTF8, f"<html>{NOT_UTF8}")
    assert (tmp_path / NOT_UTF8).read_text(encoding="utf-8") == "<html>?"


@pytest.mark.parametrize(
    "words",
    [
        ("generate", "PATH"),
        ("report", "RUN", "--data", "PATH"),
        ("evaluate", "RUN", "--data", "PATH"),
        ("train", "examples/glyphs.toml", "--out", "PATH"),
        ("train", "examples/glyphs.toml", "--out", "RUN", "--data", "PATH"),
        ("train", "examples/glyphs.toml", "--out", "RUN", f"data.path='{NOT_UTF8}'"),
        ("data", "glyphs", "--out", "PATH"),
        ("data", "folder", "examples", "--out", "PATH"),
        ("data", "show", "PATH"),
        ("reproduce", "mnist", "--data", "examples", "--out", "PATH"),
    ],
    ids=lambda words: ascii(" ".join(words)),
)
def test_runs_and_data_sets_have_names_in_utf8(mmgen, monkeypatch, tmp_path, words):
    monkeypatch.chdir(tmp_path)
    known = {"PATH": NOT_UTF8, "examples": ROOT / "examples"}
    known["examples/glyphs.toml"] = ROOT / "examples" / "glyphs.toml"
    code, out, err = mmgen(*(known.get(word, word) for word in words))
    assert code == 2
    assert "UTF-8" in err
    assert "Traceback" not in out + err
    assert not any(tmp_path.iterdir())


def test_a_path_in_a_configuration_may_be_nonsense_too(mmgen, tmp_path):
    for name in ("a" * 300, "x/" + "a" * 300):
        words = (ROOT / "examples" / "glyphs.toml", f"data.path={name}", "--dry-run")
        code, out, err = mmgen("train", *words)
        assert code == 2
        assert "Traceback" not in out + err


def test_a_table_of_too_many_columns_is_refused(tmp_path):
    table = tmp_path / "wide.csv"
    table.write_text(",".join(f"c{k}" for k in range(200_000)) + "\n")
    with pytest.raises(DataError, match="has 200,000 columns; 10,000 are the most"):
        read_table(table)


def test_reading_a_wide_table_takes_time_by_its_columns_alone(tmp_path):
    table, names = tmp_path / "wide.csv", [f"c{k}" for k in range(10_000)]
    table.write_text(",".join(names) + "\n" + ",".join(["1.5"] * len(names)) + "\n")
    before = time.process_time()
    read = read_table(table)
    assert [read.column(name) for name in names] == [["1.5"]] * len(names)
    assert time.process_time() - before < 1  # by their square, ten times as long
