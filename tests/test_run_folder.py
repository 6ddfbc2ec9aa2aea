import json
import os
import shutil
from unittest.mock import Mock

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from toys import (
    KINDS,
    PLUGIN,
    batches,
    differing,
    experiment,
    on_gpu,
    toy_modalities,
    training,
    write_run,
)

from mmgen import build
from mmgen.errors import MmgenError, RunError, WriteError
from mmgen.files import atomic
from mmgen.training import run_folder
from mmgen.training.loop import Epoch, Step, fit

MODALITIES = toy_modalities(3)
ROWS = 20  # three batches: 8, 8 and 4


def data(seed=0, device=None):
    return batches(MODALITIES, ROWS, seed=seed, device=device or torch.device("cpu"))


def everything(state):
    """All tensors of a training: weights, optimisers' moments and counts."""
    tensors = {f"model/{n}": t.clone() for n, t in state.model.state_dict().items()}
    for group, optimiser in state.optimisers.items():
        for number, values in optimiser.state_dict()["state"].items():
            tensors |= {f"{group}/{number}/{n}": t.clone() for n, t in values.items()}
    return tensors


def comparable(epoch):
    return epoch.epoch, epoch.beta, epoch.train, epoch.validation, epoch.best


def uninterrupted(kind, device=None):
    state = training(kind, MODALITIES, epochs=3, device=device or torch.device("cpu"))
    epochs = list(fit(state, data(device=device), data(1, device)))
    return everything(state), [comparable(e) for e in epochs if isinstance(e, Epoch)]


def interrupted(kind, path, stop, device=None):
    """Trains until the item numbered ``stop``, and goes on in a training of its own."""
    device = device or torch.device("cpu")
    state = training(kind, MODALITIES, epochs=3, device=device)
    items = fit(state, data(device=device), data(1, device))
    seen = [next(items) for _ in range(stop)]
    run_folder.save_checkpoint(path, state)
    items.close()
    torch.manual_seed(1234)  # another process has another random state

    again = training(kind, MODALITIES, epochs=3, device=device)
    with torch.no_grad():
        for p in again.model.parameters():
            p.normal_()
    run_folder.resume(path, again)
    seen += fit(again, data(device=device), data(1, device))
    return everything(again), [comparable(e) for e in seen if isinstance(e, Epoch)]


# Items of an epoch: two steps and the epoch itself.
@pytest.mark.parametrize("stop", [1, 3, 5, 6], ids=["step 1", "epoch 1", "step 5", "epoch 2"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(tmp_path, kind, stop):
    tensors, epochs = uninterrupted(kind)
    tensors_again, epochs_again = interrupted(kind, tmp_path, stop)
    assert differing(tensors, tensors_again) == []
    # The means over an epoch that was interrupted count what came before as well.
    assert epochs_again == epochs
    assert len(tensors) > len(list(training(kind, MODALITIES).model.parameters()))


@on_gpu
@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_training_on_the_gpu_equals_an_uninterrupted_one(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    device = build.device("cuda")
    tensors, epochs = uninterrupted(kind, device)
    tensors_again, epochs_again = interrupted(kind, tmp_path, 5, device)
    assert differing(tensors, tensors_again) == []
    assert epochs_again == epochs


@on_gpu
def test_a_training_of_the_gpu_goes_on_without_it(tmp_path):
    state = training("jmvae-kl", MODALITIES, device=build.device("cuda"))
    next(fit(state, data(device=state.device)))
    run_folder.save_checkpoint(tmp_path, state)
    again = training("jmvae-kl", MODALITIES)
    run_folder.resume(tmp_path, again)
    assert differing({n: t.cpu() for n, t in everything(state).items()}, everything(again)) == []
    *_, epoch = fit(again, data())
    assert epoch.epoch == 2


def test_resuming_before_the_first_step_is_starting(tmp_path):
    tensors, epochs = uninterrupted("jmvae")
    tensors_again, epochs_again = interrupted("jmvae", tmp_path, 0)
    assert differing(tensors, tensors_again) == []
    assert epochs_again == epochs


def test_the_best_loss_is_remembered(tmp_path):
    state = training("jmvae", MODALITIES)
    list(fit(state, data(), data(1)))
    run_folder.save_checkpoint(tmp_path, state)
    again = training("jmvae", MODALITIES)
    run_folder.resume(tmp_path, again)
    assert (again.best, again.epoch) == (state.best, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_best_weights_are_loaded_by_name(tmp_path, kind):
    state = training(kind, MODALITIES)
    items = fit(state, data())
    next(items)
    run_folder.save_weights(tmp_path, state, epoch=1)
    best = everything(state)
    list(items)
    run_folder.save_checkpoint(tmp_path, state)

    model = training(kind, MODALITIES, seed=1).model
    names = {n: f"model/{n}" for n in model.state_dict()}
    for which, expected in (("best", best), ("last", everything(state))):
        run_folder.load_weights(tmp_path, model, which)
        loaded = model.state_dict()
        assert all(torch.equal(loaded[n], expected[names[n]]) for n in names)
    assert any(not torch.equal(best[n], everything(state)[n]) for n in names.values())


# The format.


def header(path):
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length]), content


def test_a_checkpoint_is_safetensors_and_json_without_pickle(tmp_path):
    state = training("jmvae", MODALITIES)
    next(fit(state, data()))
    run_folder.save_checkpoint(tmp_path, state)
    run_folder.save_weights(tmp_path, state, 1)
    for name in ("last", "best"):
        entries, content = header(tmp_path / f"{name}.safetensors")
        metadata = json.loads(entries.pop("__metadata__")["mmgen"])
        assert metadata["format"] == run_folder.FORMAT
        for entry in entries.values():
            assert set(entry) == {"dtype", "shape", "data_offsets"}
        assert max(e["data_offsets"][1] for e in entries.values()) + 8 <= len(content)
        # A pickle begins with \x80 and a version, a zip of pickles with PK.
        assert content[:2] not in (b"PK", b"\x80\x02", b"\x80\x04")
    assert {p.suffix for p in tmp_path.iterdir()} == {".safetensors"}


def test_best_holds_the_weights_alone(tmp_path):
    state = training("jmvae", MODALITIES)
    next(fit(state, data()))
    run_folder.save_weights(tmp_path, state, 1)
    entries, _ = header(tmp_path / "best.safetensors")
    assert set(entries) - {"__metadata__"} == {f"model/{n}" for n in state.model.state_dict()}


def test_a_file_that_cannot_be_written_whole_leaves_the_old_one(tmp_path, monkeypatch):
    state = training("jmvae", MODALITIES)
    run_folder.save_checkpoint(tmp_path, state)
    before = (tmp_path / "last.safetensors").read_bytes()
    next(fit(state, data()))

    def full(_):
        raise OSError("no space left on the device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(WriteError, match=r"last\.safetensors: cannot be written: no space"):
            run_folder.save_checkpoint(tmp_path, state)
    assert (tmp_path / "last.safetensors").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["last.safetensors"]

    # Nor is anything left of what fails between two tensors.
    for error in (MemoryError("none left"), KeyboardInterrupt()):
        with monkeypatch.context() as patch:
            patch.setattr("mmgen.files.tensors._bytes", Mock(side_effect=[b"some", error]))
            with pytest.raises(type(error)):
                run_folder.save_checkpoint(tmp_path, state)
        assert (tmp_path / "last.safetensors").read_bytes() == before
        assert [p.name for p in tmp_path.iterdir()] == ["last.safetensors"]

    run_folder.save_checkpoint(tmp_path, state)
    assert [p.name for p in tmp_path.iterdir()] == ["last.safetensors"]


def test_nothing_appears_under_a_name_before_it_is_whole(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "fsync", lambda _: seen.append((tmp_path / "file").exists()))
    atomic.write(tmp_path / "file", "text")
    assert seen[0] is False  # synced beside its name, then renamed
    assert (tmp_path / "file").read_text() == "text"


# What cannot be resumed.


@pytest.fixture
def run(tmp_path):
    path = tmp_path / "run"
    state = write_run(path, "jmvae", MODALITIES, {})
    items = fit(state, data())
    assert isinstance(next(items), Step)
    run_folder.save_checkpoint(path, state)
    return path


def truncated(path):
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def emptied(path):
    path.write_bytes(b"")


def pickled(path):
    torch.save({"model": 1}, path)


def foreign(path):
    save_file({"weight": torch.ones(3)}, path)


def foreign_metadata(path):
    save_file({"weight": torch.ones(3)}, path, {"mmgen": "[]"})


def deep_metadata(path):
    save_file({"weight": torch.ones(3)}, path, {"mmgen": "[" * 100_000})


def not_json(path):
    save_file({"weight": torch.ones(3)}, path, {"mmgen": "{"})


def removed(path):
    path.unlink()


def weights_alone(path):
    shutil.copy(path.parent / "best.safetensors", path)


def newer(path):
    change(path, {"format": run_folder.FORMAT + 1})


def without_counters(path):
    change(path, {"epoch": None})


def random_state_that_does_not_fit(path):
    change(path, {}, {"random/cpu": torch.zeros(10, dtype=torch.uint8)})


def change(path, update, more=None):
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        values = json.loads(file.metadata()["mmgen"])
    values = {k: v for k, v in {**values, **update}.items() if v is not None}
    save_file({**tensors, **(more or {})}, path, {"mmgen": json.dumps(values)})


DAMAGES = [
    truncated,
    emptied,
    pickled,
    foreign,
    foreign_metadata,
    not_json,
    deep_metadata,
    removed,
    weights_alone,
    newer,
    without_counters,
    random_state_that_does_not_fit,
]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__)
def test_a_damaged_or_foreign_checkpoint_is_an_error_that_names_it(run, damage):
    damage(run / "last.safetensors")
    with pytest.raises(RunError, match=r"run"):
        run_folder.resume(run, training("jmvae", MODALITIES))


@pytest.mark.parametrize("damage", DAMAGES[:8], ids=lambda f: f.__name__)
def test_damaged_weights_are_an_error_that_names_them(run, damage):
    damage(run / "best.safetensors")
    with pytest.raises(RunError, match=r"best\.safetensors|do not fit"):
        run_folder.load_weights(run, training("jmvae", MODALITIES).model)


@pytest.mark.parametrize(("broken", "whole"), [("best", "last"), ("last", "best")])
def test_where_one_file_is_damaged_the_other_is_named(run, broken, whole):
    truncated(run / f"{broken}.safetensors")
    with pytest.raises(RunError, match=f"mmgen generate .* --weights {whole}"):
        run_folder.load_weights(run, training("jmvae", MODALITIES).model, broken)
    run_folder.load_weights(run, training("jmvae", MODALITIES).model, whole)


@pytest.mark.parametrize(
    ("kind", "model"), [("jmvae", {"latent": 4}), ("jmvae-kl", {}), ("hierarchical", {})]
)
def test_weights_of_another_model_do_not_fit(run, kind, model):
    other = training(kind, MODALITIES, model)
    with pytest.raises(RunError, match="do not fit the model"):
        run_folder.load_weights(run, other.model)
    with pytest.raises(RunError, match="do not fit the model"):
        run_folder.resume(run, other)


# Run folders.


def test_a_run_folder_gives_its_experiment_and_environment_back(tmp_path):
    resolved = experiment("hierarchical", MODALITIES)
    run_folder.create(tmp_path / "a" / "run", resolved, {"versions": {"torch": "1"}})
    assert run_folder.experiment(tmp_path / "a" / "run") == resolved
    environment = run_folder.environment(tmp_path / "a" / "run")
    assert environment == {"format": run_folder.FORMAT, "versions": {"torch": "1"}}


def test_a_run_is_not_overwritten_unless_forced(run):
    resolved = experiment("jmvae", MODALITIES)
    with pytest.raises(RunError, match="--force"):
        run_folder.create(run, resolved, {})
    assert (run / "last.safetensors").exists()
    run_folder.create(run, resolved, {}, force=True)
    assert not (run / "last.safetensors").exists()
    assert run_folder.experiment(run) == resolved


@pytest.mark.parametrize("force", [True, False])
def test_what_is_no_run_is_never_overwritten(tmp_path, force):
    resolved = experiment("jmvae", MODALITIES)
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RunError, match="no run folder"):
        run_folder.create(tmp_path, resolved, {}, force=force)
    with pytest.raises(RunError, match=r"thesis\.txt"):
        run_folder.create(tmp_path / "thesis.txt", resolved, {}, force=force)
    with pytest.raises(WriteError):
        run_folder.create(tmp_path / "thesis.txt" / "run", resolved, {}, force=force)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_an_empty_folder_becomes_a_run(tmp_path):
    run_folder.create(tmp_path, experiment("jmvae", MODALITIES), {})
    assert run_folder.experiment(tmp_path).model.kind == "jmvae"


def test_a_folder_without_a_run_says_so(tmp_path):
    for read in (run_folder.experiment, run_folder.environment):
        with pytest.raises(RunError, match=str(tmp_path)):
            read(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "x"}', "\xff"])
def test_a_damaged_environment_is_an_error(run, content):
    (run / "environment.json").write_text(content, encoding="latin-1")
    with pytest.raises(RunError, match=r"environment\.json: "):
        run_folder.environment(run)


@pytest.mark.parametrize("content", ["", "[]", "{}", "\xff"])
def test_a_damaged_experiment_is_an_error(run, content):
    (run / "experiment.json").write_text(content, encoding="latin-1")
    with pytest.raises(MmgenError, match=r"experiment\.json"):
        run_folder.experiment(run)


def test_a_run_of_a_newer_version_is_refused(run):
    (run / "environment.json").write_text('{"format": 99}')
    with pytest.raises(RunError, match="Update mmgen"):
        run_folder.environment(run)


def epochs(count):
    state = training("jmvae", MODALITIES, epochs=count)
    return [e for e in fit(state, data(), data(1)) if isinstance(e, Epoch)]


def test_metrics_are_lines_of_json_one_an_epoch(tmp_path):
    done = epochs(3)
    for epoch in done:
        run_folder.append_metrics(tmp_path, epoch)
    lines = run_folder.read_metrics(tmp_path)
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert lines[1]["train"] == done[1].train
    assert lines[2]["validation"] == done[2].validation
    assert len(run_folder.read_metrics(tmp_path, 2)) == 2


def test_metrics_of_epochs_that_are_done_again_are_replaced(tmp_path):
    done = epochs(3)
    for epoch in done:
        run_folder.append_metrics(tmp_path, epoch)
    run_folder.append_metrics(tmp_path, done[1])  # resumed from the end of epoch 1
    assert [line["epoch"] for line in run_folder.read_metrics(tmp_path)] == [1, 2]


def test_no_metrics_are_no_lines(tmp_path):
    assert run_folder.read_metrics(tmp_path) == []


def test_damaged_metrics_are_an_error(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1}\n{"epo')
    with pytest.raises(RunError, match=r"metrics\.jsonl"):
        run_folder.read_metrics(tmp_path)


# Modalities in another order.


ALIKE = """
data = {{source = "synthetic", rows = 40, classes = 3}}
model = {{kind = "{kind}", latent = 2}}
train = {{epochs = {epochs}, batch_size = 20, device = "cpu"}}
[modalities.{first}]
kind = "numbers"
[modalities.{second}]
kind = "numbers"
"""


@pytest.mark.parametrize("kind", ["jmvae-kl", "hierarchical"])
def test_modalities_of_one_shape_in_another_order_are_refused(mmgen, tmp_path, kind):
    """All weights would fit, and every net would read the other modality."""
    config, out = tmp_path / "config.toml", tmp_path / "run"

    def train(first, second, epochs, *words):
        text = ALIKE.format(kind=kind, first=first, second=second, epochs=epochs)
        config.write_text(text)
        return mmgen("-p", PLUGIN, "train", config, "--out", out, "--no-figures", *words)

    assert train("left", "right", 1)[0] == 0
    before = {file.name: file.read_bytes() for file in out.iterdir() if file.is_file()}
    code, _, err = train("right", "left", 2, "--resume")
    assert code == 2
    assert "in the order left, right" in " ".join(err.split())
    assert err.count("error") == 1
    assert {file.name: file.read_bytes() for file in out.iterdir() if file.is_file()} == before
    code, _, err = train("left", "right", 2, "--resume")
    assert code == 0, err
    assert [line["epoch"] for line in run_folder.read_metrics(out)] == [1, 2]
