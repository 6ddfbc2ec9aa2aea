import json
import math
import re
import shutil
from dataclasses import replace

import pytest
import torch
import toys
from pages import NETS, checked, pictures, report, train
from safetensors.torch import load_file, save_file

from mmgen.batch import Batch
from mmgen.errors import RunError, WriteError
from mmgen.formatting import joined, number
from mmgen.gallery import diagnostics, write_report
from mmgen.gallery.curves import curves, title
from mmgen.gallery.html import place, subscripts
from mmgen.inference.terms import terms
from mmgen.objective import Term
from mmgen.training import run_folder

HOSTILE = "<script>alert('1')</script>"


@pytest.fixture(scope="module")
def page_of_health(tmp_path_factory):
    """A run that learned what there is to learn: which of three classes it is."""
    point = {"kind": "numbers", "size": 4}
    settings = {"a": point, "b": point}
    path = tmp_path_factory.mktemp("healthy") / "run"
    run = train(path, "jmvae-kl", settings, [toys.PLUGIN], epochs=40, rows=400)
    return report(run, plugin_modules=[toys.PLUGIN])


@pytest.fixture(scope="module")
def page(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "deep" / "report.html"
    return report(trained, out=out)


def test_the_page_says_what_was_trained_on_what(page):
    assert page.text_in("h1") == ["glyphs"]
    for word in (
        "jmvae-kl",
        "image, label and attributes",
        "1 × 28 × 28",
        "image (mmgen-vae 0.1.0)",
    ):
        assert word in page.text
    for word in ("400", "small", "2 epochs", "validation loss in nats", "examples a second"):
        assert word in page.text


def test_every_part_is_there_and_linked(page):
    parts = {"choices", "subsets", "prior", "diagnostics", "curves", "space", "model", "growth"}
    parts |= {"quality"}
    assert parts <= set(page.ids)
    assert {a["href"][1:] for a in page.all("a")} == {*parts, "again"}


def test_each_picture_says_what_was_given_and_how_z_was_inferred(page):
    alts = [img["alt"] for img in page.all("img")]
    way = "z from q(z | label)"
    assert f"image given label A, z at its mean; {way}" in alts
    assert f"image given label A, sample 2 of z; {way}" in alts
    assert any(a.startswith("image 3, given label and attributes, z at its mean") for a in alts)
    assert "image 3, observed" in alts
    assert sum(a.startswith("image given label") for a in alts) == 36 + 6 * 4


def test_pictures_are_magnified_by_a_whole_number(page):
    assert {(img["width"], img["height"]) for img in page.all("img")} == {("84", "84")}


def test_each_subset_is_shown_with_what_it_lacks(page):
    titles = page.text_in("h3")
    for shown in (
        "Observed",
        "image, label and attributes from all",
        "image and attributes from label",
        "label from image and attributes",
    ):
        assert shown in titles
    assert len([t for t in titles if " from " in t and t[0].islower()]) >= 6


def test_the_divergence_of_each_subset_is_given(page, trained):
    rows = [r for r in page.text_in("tr") if r.endswith("nats")]
    assert [r for r in rows if r.startswith("label, attributes")]
    assert len(rows) == 3 + 6


def test_every_term_is_drawn(page, trained):
    terms = run_folder.read_metrics(trained)[-1]["train"]
    panels = [p for p in page.text_in("title") if "over the epochs" in p]
    assert len(panels) == len(terms)
    assert any(p.startswith("KL to q(z | image, label) over") for p in panels)


def test_the_growth_of_this_experiment_is_counted_in_built_models(page, trained):
    from mmgen.run import load

    run = load(trained, device="cpu")
    own, *others = [r for r in page.text_in("tr") if r.startswith(("jmvae", "hier"))]
    assert sum(copies for copies, _ in run.model.encoder_nets()) == 12
    assert re.search(r"jmvae-kl\s*this run\s*2\^\(K−1\)·K = 12.*\+20", own, re.DOTALL)
    (hierarchical,) = [r for r in others if r.startswith("hier")]
    assert re.search(r"hierarchical\s*K \+ L − 1 = 4.*\+1", hierarchical, re.DOTALL)
    assert not [r for r in others if r.startswith("jmvae-kl")]


def test_the_page_tells_how_to_train_it_again(page, trained):
    command = run_folder.environment(trained)["command"]
    blocks = page.text_in("pre")
    assert command in blocks
    experiment = json.loads(blocks[-1])
    assert experiment == run_folder.experiment(trained).model_dump(mode="json")


def test_the_same_run_gives_the_same_page_and_spares_the_random_state(trained, tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = write_report(trained, out=tmp_path / "a.html", device="cpu").read_bytes()
    assert torch.equal(torch.rand(1), expected)
    torch.rand(17)
    assert write_report(trained, out=tmp_path / "b.html", device="cpu").read_bytes() == first
    assert len(first) < 3_000_000


@pytest.mark.parametrize(
    ("kind", "count"),
    [("jmvae", 2), ("hierarchical", 3), ("jmvae-kl", 4), ("jmvae", 5), ("jmvae-kl", 5)],
)
def test_any_model_of_any_modalities_has_a_report(tmp_path, kind, count):
    names = dict(list(toys.FIVE.items())[:count])
    settings = {n: m.to_config() for n, m in names.items()}
    run = train(tmp_path / "run", kind, settings, [toys.PLUGIN])
    page = report(run, plugin_modules=[toys.PLUGIN])
    assert page.all("img") == []  # these kinds have neither pictures nor choices
    assert "choices" not in page.ids
    assert {"subsets", "space", "curves"} <= set(page.ids)
    assert ("z by iterative sampling, T = 50" in page.text) == (kind != "jmvae-kl")
    assert ("It encodes every subset of the modalities" in page.text) == (kind == "jmvae-kl")
    assert ("all modalities together, and no fewer" in page.text) == (kind != "jmvae-kl")
    if count == 5:
        assert "16 subsets are left out" in page.text


ONE_WAY = [
    ("cvae", ["picture"], ["word"], "N(0, I)", "p(picture | z, word)"),
    ("cmma", ["picture"], ["word"], "p(z | word)", "p(picture | z)"),
    ("cvae", ["word", "other"], ["picture"], "N(0, I)", "p(word, other | z, picture)"),
    ("cmma", ["picture"], ["word", "other"], "p(z | word, other)", "p(picture | z)"),
]


@pytest.mark.parametrize(("kind", "targets", "given", "prior", "likelihood"), ONE_WAY)
def test_a_model_of_one_direction_has_a_report_of_that_direction(
    tmp_path, kind, targets, given, prior, likelihood
):
    other = {"kind": "attributes", "names": ["on", "up"], **NETS}
    run = train(tmp_path / "run", kind, pictures(other=other), targets=targets, given=given)
    page = report(run)
    way = f"{joined(targets)} from {joined(given)}"
    assert f"One {kind} that generates {way}, trained on" in page.text
    assert way in page.text_in("h2")
    assert {"subsets", "space", "growth", "curves", "diagnostics"} <= set(page.ids)
    assert "prior" not in page.ids
    assert ("choices" in page.ids) == (given == ["word"])
    takes_part = "other" in targets or "other" in given
    assert ("other takes no part" in page.text) != takes_part

    alts = [img["alt"] for img in page.all("img")]
    if given == ["word"]:
        for word in ("one", "two", "three"):
            assert f"picture given word {word}, z at its mean; z from {prior}" in alts
            assert f"picture given word {word}, sample 3 of z; z from {prior}" in alts
    assert not [a for a in alts if "iterative" in a]
    titles = page.text_in("h3")
    start = titles.index("Observed")
    whole = f"{joined(targets)} from all"
    assert titles[start : start + 3] == ["Observed", whole, way]
    assert titles.count(way) == (2 if "choices" in page.ids else 1)
    assert "z from q(z | x), at its mean." in page.text
    assert f"z from {prior}, at its mean." in page.text
    assert "Each point is the mean of z under q(z | x)" in page.text
    assert f"Here T, what is generated, is {joined(targets)}" in page.text
    assert f"Shown is the mean of {likelihood}." in page.text
    panels = [p.split(" over the epochs")[0] for p in page.text_in("title")]
    assert f"KL to {prior}" in panels
    assert "iterative" not in page.text
    if not takes_part:
        assert "other" not in " ".join(page.text_in("figure"))
        assert not [a for a in alts if "other" in a]


def test_the_growth_of_one_direction_stands_beside_the_models_of_all(tmp_path):
    run = train(tmp_path / "run", "cmma", pictures(), targets=["picture"], given=["word"])
    page = report(run)
    rows = [" ".join(r.split()) for r in page.text_in("tr")]
    kinds = [r for r in rows if r.startswith(("jmvae", "hier", "cvae", "cmma"))]
    weights = load_file(run / "best.safetensors").values()
    parameters = sum(w.numel() for w in weights)
    # Nets of picture and word in q(z | picture, word), of word in p(z | word); one more in both.
    assert kinds[0].startswith(f"cmma this run3{parameters}+2+")
    assert kinds[1].startswith("jmvaeK = 2")
    assert not [r for r in kinds if r.startswith("cvae")]
    roles = {r[:4]: r for r in rows if r.startswith(("pictureimage", "wordlabel"))}
    assert "generated" in roles["pict"]
    assert "given" in roles["word"]


@pytest.mark.parametrize("kind", toys.ONE_WAY)
def test_without_its_data_set_one_direction_has_its_choices_still(tmp_path, kind):
    run = train(tmp_path / "run", kind, pictures(), targets=["picture"])
    page = report(run, data=tmp_path / "gone")
    assert {"choices", "missing", "growth"} <= set(page.ids)
    assert not {"subsets", "prior", "space"} & set(page.ids)
    assert "It goes this one way: not back, and not from nothing." in page.text


def test_a_z_that_adds_nothing_and_a_modality_that_leads_nowhere_are_told():
    def found(kl, active, led):
        metrics = epochs([3.0])
        metrics[-1]["validation"]["kl/prior"] = kl
        return titles(diagnostics.of_direction(metrics, WARMED, "word", active, led))

    assert found(2.0, 3, {"picture": 1.0}) == []
    assert found(0.01, 3, {"picture": 1.0}) == ["z adds nothing to word"]
    assert found(2.0, 0, {"picture": 1.0}) == ["z adds nothing to word"]
    assert found(2.0, 3, {"picture": 0.01, "b": 2.0}) == ["picture does not follow from word"]


@pytest.mark.parametrize("kind", toys.JOINT)
def test_pictures_come_from_choices_in_any_model(tmp_path, kind):
    run = train(tmp_path / "run", kind, pictures())
    alts = [img["alt"] for img in report(run).all("img")]
    way = "z from q(z | word)" if kind == "jmvae-kl" else "z by iterative sampling, T = 50"
    for word in ("one", "two", "three"):
        assert f"picture given word {word}, z at its mean; {way}" in alts


def test_hostile_names_are_words_on_the_page(tmp_path):
    word = {"kind": "label", "classes": [HOSTILE, '"><img src=x>', "a & b"], **NETS}
    run = train(tmp_path / "run", "jmvae-kl", pictures(word=word), name=HOSTILE)
    page = report(run)
    assert page.text_in("h1") == [HOSTILE]
    assert page.text_in("p").count(HOSTILE) == 1  # above its row of pictures
    assert f"picture given word {HOSTILE}, z at its mean" in " ".join(
        img["alt"] for img in page.all("img")
    )


def test_many_choices_are_spread_and_the_rest_is_said(tmp_path):
    many = {"kind": "label", "classes": [f"c{i}" for i in range(100)], **NETS}
    page = report(train(tmp_path / "run", "jmvae-kl", pictures(word=many)))
    assert "60 of 100 choices, evenly spread." in page.text
    assert "The samples are below, for a few of the choices." in page.text
    alts = {img["alt"].split(", z")[0] for img in page.all("img")}
    assert {"picture given word c0", "picture given word c99"} <= alts


def test_large_pictures_keep_the_page_light(tmp_path):
    large = {"kind": "image", "channels": 3, "height": 150, "width": 200, **NETS}
    many = {"kind": "label", "classes": [f"c{i}" for i in range(40)], **NETS}
    run = train(tmp_path / "run", "jmvae-kl", {"photo": large, "word": many}, rows=20)
    page = report(run)
    assert (run / "report.html").stat().st_size < 3_000_000
    assert {(i["width"], i["height"]) for i in page.all("img")} == {("100", "75")}


def test_without_its_data_set_the_page_says_which_is_missing(trained, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(trained, copy)
    page = report(copy, data=tmp_path / "gone")
    assert f"no data set at {tmp_path / 'gone'}" in page.text
    assert "Without its data set." in page.text
    assert {"choices", "prior", "curves", "growth", "missing"} <= set(page.ids)
    assert not {"subsets", "space"} & set(page.ids)


def test_another_data_set_is_not_taken_for_its_own(trained, tmp_path):
    from mmgen.data.sources import Glyphs
    from mmgen.data.store import write_dataset

    drawn = Glyphs(train=20, validation=5, test=5, seed=9).read()
    made = {"modalities": drawn.modalities, "splits": drawn.splits}
    write_dataset(tmp_path / "d", name="d", about="", **made)
    page = report(trained, data=tmp_path / "d", out=tmp_path / "r.html")
    assert f"{tmp_path / 'd'} is not the data set that this run was trained on" in page.text
    assert "space" not in page.ids


def test_a_run_before_its_first_epoch_has_a_report(tmp_path):
    modalities = toys.toy_modalities(3)
    toys.write_run(tmp_path / "run", "jmvae-kl", modalities, {})
    (tmp_path / "run" / "best.safetensors").unlink()
    page = report(tmp_path / "run", plugin_modules=[toys.PLUGIN])
    assert "curves" not in page.ids
    assert "0 epochs of 2 are done." in page.text
    assert "begun" in page.text


def test_a_folder_without_a_run_is_one_clear_message(tmp_path):
    with pytest.raises(RunError, match="holds no run"):
        write_report(tmp_path)


def test_a_page_that_cannot_be_written_leaves_nothing(trained, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WriteError, match="cannot be"):
        write_report(trained, out=tmp_path / "file" / "page.html", device="cpu")
    (tmp_path / "folder").mkdir()
    with pytest.raises(WriteError, match="is a folder; name a file in it"):
        write_report(trained, out=tmp_path / "folder", device="cpu")
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder"]


def test_the_command_writes_into_the_run(mmgen, trained, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(trained, copy)
    code, out, err = mmgen("report", copy, "--device", "cpu")
    assert (code, err) == (0, "")
    assert out.strip() == f"{copy}: report in {copy / 'report.html'}"
    checked((copy / "report.html").read_text(encoding="utf-8"))
    code, _, err = mmgen("report", tmp_path / "nothing")
    assert code == 2
    assert "holds no run" in err


# Findings


def epochs(losses, train=None, **terms):
    """Metrics with these validation losses."""
    train = train or losses
    return [
        {
            "epoch": i,
            "beta": 1.0,
            "train": {"loss": t, "kl/prior": 5.0, **terms},
            "validation": {"loss": v, "kl/prior": 5.0, **terms},
            "best": v == min(losses[:i]),
        }
        for i, (v, t) in enumerate(zip(losses, train, strict=True), start=1)
    ]


WARMED = {
    "kl/prior": Term("kl/prior", torch.zeros(2), warmed_up=True),
    "kl/z1": Term("kl/z1", torch.zeros(2), warmed_up=True),
    "kl/z2": Term("kl/z2", torch.zeros(2), warmed_up=True),
}
ALONE = {"subset/a": Term("subset/a", torch.zeros(2), about=("a",), title="KL to q(z | a)")}

FALLING = [200 - 100 * (1 - 0.6**i) for i in range(20)]


def titles(found):
    return [f.title for f in found]


def test_a_healthy_training_has_no_finding():
    assert diagnostics.of_training(epochs(FALLING), WARMED, 20, "run") == []


def test_a_healthy_run_is_called_so(page_of_health):
    assert "Nothing to worry about" in page_of_health.text_in("h2")
    assert "z is in use and tells something of every modality." in page_of_health.text


def test_overfitting_is_told_with_the_epoch_it_began():
    losses = [*FALLING[:10], *(101 + i for i in range(1, 11))]
    (found,) = diagnostics.of_training(epochs(losses, FALLING), WARMED, 20, "run")
    assert found.title == "Overfitting"
    assert "of epoch 10" in found.text
    assert "train.epochs=10" in found.advice


def test_a_validation_loss_that_rises_with_the_training_loss_is_no_overfitting():
    losses = [*FALLING[:10], *(101 + i for i in range(1, 11))]
    assert "Overfitting" not in titles(diagnostics.of_training(epochs(losses), WARMED, 20, "run"))


def test_a_loss_that_still_falls_fast_is_told_and_one_stopped_early_too():
    steep = [200.0 - 5 * i for i in range(20)]
    assert titles(diagnostics.of_training(epochs(steep), WARMED, 20, "run")) == [
        "Not converged yet"
    ]
    (early,) = diagnostics.of_training(epochs(steep[:7]), WARMED, 20, "run")
    assert early.title == "Stopped early"
    assert early.text == "7 epochs of 20 are done."
    assert "mmgen train run --resume" in early.advice


def test_numbers_that_are_not_finite_are_told_before_all_else():
    broken = epochs([*FALLING[:5], math.nan, math.nan])
    (found,) = diagnostics.of_training(broken, WARMED, 20, "run")
    assert "loss is not a finite number since epoch 6" in found.text


def test_a_page_of_a_broken_run_shows_only_finite_numbers(trained, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(trained, copy)
    lines = run_folder.read_metrics(copy)
    lines[-1]["validation"] = dict.fromkeys(lines[-1]["validation"], math.inf)
    (copy / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = report(copy, data=tmp_path / "gone")
    assert "not finite" in page.text_in("dd")
    assert "Not finite" in page.text_in("h3")


def test_collapse_and_ignored_modalities_are_told():
    known = WARMED | ALONE
    healthy = diagnostics.of_latent(epochs([3.0]), known, {"z": 5}, {"a": 1.0, "b": 0.2}, [])
    assert healthy == []
    found = diagnostics.of_latent(epochs([3.0]), known, {"z": 0}, {"a": 1.0, "b": 0.01}, ["a", "b"])
    assert titles(found) == ["Posterior collapse of z", "b is ignored", "a alone leads nowhere"]
    assert found[-1].advice == "Try more epochs, or a larger weight of KL to q(z | a)."


def test_the_layers_whose_divergence_is_small_are_those_of_terms_that_are_warmed_up():
    def found(values, *warmed):
        metrics = [{"epoch": 1, "beta": 1.0, "train": values, "validation": {}}]
        known = {n: Term(n, torch.zeros(2), warmed_up=True) for n in warmed}
        return titles(diagnostics.of_latent(metrics, known, {"z1": 3, "z2": 3}, {}, []))

    assert found({"kl/z1": 4.0, "kl/z2": 0.01}, "kl/z1", "kl/z2") == ["Posterior collapse of z2"]
    assert found({"distance of x": 4.0, "y": 0.01}, "distance of x", "y") == [
        "Posterior collapse of z2"
    ]
    # What is not warmed up is no divergence from the prior, whatever it is called.
    assert found({"kl/z1": 4.0, "kl/z2": 0.01}, "kl/z1") == []
    assert found({"kl/z1": 4.0, "kl/z2": 0.01}) == []


def test_the_loss_of_epochs_compares_as_if_all_were_warmed_up():
    losses = [*FALLING[:10], *(101 + i for i in range(1, 11))]
    metrics = epochs(losses, [90.0 + 0.1 * i for i in range(20)])  # rises by the warm-up alone
    for i, m in enumerate(metrics):
        m["beta"], m["train"]["odd"] = (i + 1) / 20, 100.0
    odd = {"odd": Term("odd", torch.zeros(2), warmed_up=True)}
    assert titles(diagnostics.of_training(metrics, odd, 20, "run")) == ["Overfitting"]
    assert titles(diagnostics.of_training(metrics, {}, 20, "run")) == []


def test_a_collapsed_run_is_found_and_a_trained_one_is_not(tmp_path):
    run = train(tmp_path / "run", "jmvae-kl", pictures())
    file = run / "best.safetensors"
    weights = {n: torch.zeros_like(w) for n, w in load_file(file).items()}
    save_file(weights, file, {"mmgen": json.dumps({"format": 1, "epoch": 1})})
    found = report(run).text_in("h3")
    assert {"Posterior collapse of z", "picture is ignored", "word is ignored"} <= set(found)


def test_a_modality_that_never_changes_is_not_called_ignored(tmp_path):
    settings = pictures(still={"kind": "attributes", "names": ["on"], **NETS})
    run = train(tmp_path / "run", "jmvae-kl", settings)
    from mmgen import build
    from mmgen.gallery.held_out import held_out
    from mmgen.gallery.space import space
    from mmgen.run import load

    loaded = load(run, device="cpu")
    rows = held_out(loaded, build.registry(), None, {})
    still = Batch({**rows.x, "still": torch.ones_like(rows.x["still"])})
    seen = space(loaded, replace(rows, x=still))
    assert seen.constant == ["still"]
    assert "still" not in seen.silent


# Curves and words


def test_long_runs_are_scaled_without_their_first_epochs():
    losses = [10_000.0, 9_000.0, *([100.0, 90.0] * 30)]
    panel = curves(epochs(losses), {}).panels[0]
    heights = [place(panel, *point)[1] for point in panel.lines["train"]]
    assert max(heights[4:]) - min(heights[4:]) > 100
    assert min(heights) == heights[0] == 12


def test_the_warm_up_is_shaded_to_where_it_ends():
    metrics = epochs(FALLING[:5])
    for m in metrics[:2]:
        m["beta"] = 0.5
    assert [panel.warm_up for panel in curves(metrics, {}).panels] == [3, 3]
    assert [panel.warm_up for panel in curves(epochs(FALLING), {}).panels] == [None, None]
    # Of a model of which nothing is warmed up, β changes nothing.
    assert [panel.warm_up for panel in curves(metrics, ALONE).panels] == [None, None]
    assert curves([], {}) is None


@pytest.mark.parametrize("kind", toys.KINDS)
def test_terms_are_called_what_the_model_calls_them(kind):
    modalities = toys.toy_modalities(3)
    model = toys.toy_model(kind, modalities).train()
    before = torch.get_rng_state()
    known = terms(model)
    assert model.training
    assert torch.equal(torch.get_rng_state(), before)
    assert {title(n, known) for n in known if known[n].warmed_up} >= {
        "jmvae": {"KL to N(0, I)"},
        "jmvae-kl": {"KL to N(0, I)"},
        "hierarchical": {"KL of z1 to its prior", "KL of z2 to its prior"},
        "cvae": {"KL to N(0, I)"},
        "cmma": {"KL to p(z | point, picture)"},
    }[kind]
    assert title("reconstruction/colour", known) == "log p(colour | z)"
    assert title("of a model of before", known) == "of a model of before"
    assert title("loss", known) == "Loss"


def test_a_model_that_cannot_be_asked_for_its_terms_has_their_names():
    model = toys.toy_model("jmvae", toys.toy_modalities(2))
    model.objective = lambda _: 1 / 0
    assert terms(model) == {}


def test_subscripts_of_an_equation_are_read():
    assert subscripts("Σ_{k ∈ T} log p(x_k | z, x_C)") == [
        ("Σ", "k ∈ T"), (" log p(x", "k"), (" | z, x", "C"), (")", ""),
    ]  # fmt: skip
    assert subscripts("p(x_T|x_C)")[:2] == [("p(x", "T"), ("|x", "C")]
    for words in ("no subscript _ here {}", "nor in subset_gradient"):
        assert subscripts(words) == [(words, "")]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (-0.0, "0"), (-1e-9, "0"), (1e9, "1,000,000,000"), (9.9999, "10"), (-2.5, "−2.5")],
)
def test_numbers_are_written_without_exponents(value, text):
    assert number(value) == text
