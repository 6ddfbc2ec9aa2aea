"""Runs of a CVAE or CMMA on the command line: one direction, and what becomes of all others."""

from pathlib import Path

import pytest
from conftest import ROOT, small
from toys import ONE_WAY

from mmgen.experiment import Experiment
from mmgen.training import run_folder, session

every_kind = pytest.mark.parametrize("kind", ONE_WAY)


@pytest.fixture(scope="module")
def one_way(small_glyphs, tmp_path_factory):
    """A run folder of each kind: image from label, without attributes."""
    folder = tmp_path_factory.mktemp("one-way")
    for kind in ONE_WAY:
        words = [f"model.kind={kind}", "model.targets=['image']", "model.given=['label']"]
        words = [*small(small_glyphs, epochs=1), *words]
        prepared = session.prepare(Experiment.read(ROOT / "examples" / "glyphs.toml", words))
        session.start(prepared, folder / kind)
        list(session.train(prepared, folder / kind))
    return folder


@pytest.mark.parametrize(
    ("kind", "target", "given", "drawn"),
    [
        ("cvae", "image", "label", {"image_from_label.png", "image_reconstructed.png"}),
        ("cmma", "label", "image", set()),
    ],
)
def test_the_command_line_trains_draws_reports_and_goes_on(
    mmgen, kind, target, given, drawn, small_glyphs, tmp_path
):
    run = tmp_path / "run"
    words = [*small(small_glyphs, epochs=1), f"model.kind={kind}"]
    words += [f"model.targets=['{target}']", f"model.given=['{given}']"]
    code, _, err = mmgen("train", ROOT / "examples" / "glyphs.toml", *words, "--out", run)
    assert code == 0, err
    assert {file.name for file in (run / "figures").iterdir()} == {*drawn, "losses.png"}
    assert (run / "report.html").stat().st_size > 10_000
    code, _, _ = mmgen("train", run, "--resume", "train.epochs=2", "--no-figures")
    assert code == 0
    assert [m["epoch"] for m in run_folder.read_metrics(run)] == [1, 2]


@every_kind
def test_the_command_line_generates_in_the_direction_alone(mmgen, kind, one_way, tmp_path):
    run, file = one_way / kind, tmp_path / "a.png"
    code, out, _ = mmgen("generate", run, "--given", "label=A", "-n", "4", "--out", file)
    assert (code, out) == (0, f"image: 4 pictures in {file}\n")
    assert file.read_bytes().startswith(b"\x89PNG")


WRONG = {
    "back": (["--given", "attributes=bold", "--targets", "label"], "not label from attributes"),
    "from more": (["--given", "label=A", "attributes=bold"], "not image from label, attributes"),
    "from nothing": ([], "from nothing"),
    "what takes no part": (
        ["--given", "label=A", "--targets", "attributes"],
        "not attributes from",
    ),
    "by iterating": (["--given", "label=A", "--iterations", "3"], "no iterations"),
}


@every_kind
@pytest.mark.parametrize("wrong", WRONG)
def test_another_direction_is_an_error_that_says_the_possible_one(mmgen, kind, wrong, one_way):
    words, message = WRONG[wrong]
    code, out, err = mmgen("generate", one_way / kind, *words)
    said = " ".join(err.split())
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    assert message in said
    assert wrong == "by iterating" or "it generates image from label" in said


@every_kind
def test_a_dry_run_lists_the_nets_by_modality(mmgen, kind, small_glyphs):
    words = [*small(small_glyphs), f"model.kind={kind}", "model.targets=['image']"]
    preset: Path = ROOT / "examples" / "glyphs.toml"
    code, out, _ = mmgen("train", preset, *words, "--dry-run")
    assert code == 0
    own = "conditions" if kind == "cvae" else "prior_encoder.encoders"
    for name in ("decoders.image", "encoder.encoders.image", f"{own}.label", f"{own}.attributes"):
        assert name in out
    assert "decoders.label" not in out
    code, _, err = mmgen("train", preset, *words[:-1], "model.targets=['imgae']", "--dry-run")
    assert code == 2
    assert "did you mean 'image'" in err
