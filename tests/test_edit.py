"""`mmgen edit`: what is inferred from a photograph and changed in it, and what is refused."""

import numpy as np
import PIL.Image
import pytest
import torch
from matplotlib.figure import Figure
from test_gallery import Word, a_run

from mmgen.data import crops
from mmgen.editing import changeable, edit, followed
from mmgen.errors import GenerationError
from mmgen.gallery import edit as page
from mmgen.modality import Modality
from mmgen_attributes import Attributes
from mmgen_image import Image
from mmgen_label import Label

WIDTHS = {"encoder_widths": [8], "decoder_widths": [8]}


@pytest.fixture
def photo(tmp_path):
    """A photograph of 60 × 40, lying: its camera says how to turn it."""
    pixels = np.random.default_rng(0).integers(60, 190, (40, 60, 3), np.uint8)
    exif = PIL.Image.Exif()
    exif[274] = 6
    PIL.Image.fromarray(pixels).save(tmp_path / "photo.png", exif=exif)
    return tmp_path / "photo.png"


def upright(path):
    return np.rot90(np.asarray(PIL.Image.open(path)), -1)


def faces(path, kind="jmvae-kl", likelihood="gaussian", direction=None, more=None, **image):
    """A run of untrained nets, whose weights are so large that a change is seen."""
    kinds: dict[str, Modality] = {
        "image": Image(channels=3, height=8, width=8, likelihood="gaussian", **WIDTHS, **image),
        "attributes": Attributes(names=("Smiling", "Young"), likelihood=likelihood, **WIDTHS),
        "label": Label(classes=("A", "B"), **WIDTHS),
        **(more or {}),
    }
    run = a_run(path, kind, kinds, direction)
    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter.mul_(3)
    return run


def test_what_is_inferred_is_changed_and_nothing_else(tmp_path, photo):
    asked = [{"Smiling": "yes", "label": "B"}, {"Young": -2.0}]
    done = edit(faces(tmp_path), photo, asked, follow=0)
    attributes, label = done.inferred["attributes"], done.inferred["label"]
    smiling, young = attributes.tolist()
    assert done.changed["attributes"][0].tolist() == [1, young]
    assert done.changed["attributes"][1].tolist() == [smiling, -2]
    assert done.changed["label"][0].tolist() == [0, 1]
    assert torch.equal(done.changed["label"][1], label)
    assert done.asked == {"attributes": {0, 1}, "label": set()}


def test_others_follow_by_the_regression_on_what_is_asked_in_what_is_generated(tmp_path, photo):
    more = {"more": Attributes(names=("Bangs", "Bald", "Hat"), likelihood="gaussian", **WIDTHS)}
    run = faces(tmp_path, more=more)
    asked = {"Smiling": 2.0, "Bald": -1.0}
    done = edit(run, photo, [asked], follow=0.5)
    drawn = run.generate({}, ["attributes", "more"], 4000, seed=0)
    means = torch.cat([drawn[n].mean for n in ("attributes", "more")], 1).double()
    centred = means - means.mean(0)
    slopes = torch.linalg.lstsq(centred[:, [0, 3]], centred).solution
    before = torch.cat([done.inferred[n] for n in ("attributes", "more")]).double()
    after = torch.cat([done.changed[n][0] for n in ("attributes", "more")])
    expected = before + 0.5 * (torch.tensor([2.0, -1.0]) - before[[0, 3]]) @ slopes
    expected = expected.clamp(before.clamp(max=-1), before.clamp(min=1))
    expected[[0, 3]] = torch.tensor([2.0, -1.0]).double()
    assert after.tolist() == pytest.approx(expected.tolist(), abs=1e-4)
    assert (after - before).abs().min() > 1e-3
    assert done.asked == {"attributes": {0}, "label": set(), "more": {1}}


def test_what_follows_goes_no_farther_than_off_or_on():
    modality = Attributes(names=("a", "b", "c"), likelihood="gaussian")
    x, step = torch.tensor([[0.5, -1.3, 0.0]]), torch.tensor([[9.0, -9.0, 0.25]])
    assert followed(x, step, modality).tolist() == [[1.0, pytest.approx(-1.3), 0.25]]


def test_what_follows_stays_where_the_likelihood_allows_it(tmp_path, photo):
    run = faces(tmp_path, likelihood="bernoulli")
    for smiling in (0.0, 1.0):
        after = edit(run, photo, [{"Smiling": smiling}]).changed["attributes"][0]
        assert after[0] == smiling
        assert 0 <= after[1] <= 1
    with pytest.raises(GenerationError, match="from 0 to 1"):
        edit(run, photo, [{"Smiling": 1.0}], follow=1.5)


def test_the_difference_of_the_means_is_added_to_the_part_that_was_seen(tmp_path, photo):
    run = faces(tmp_path, crop="center")
    done = edit(run, photo, [{"Smiling": 1}, {"Smiling": -1}])
    assert (done.photograph.numpy() == upright(photo).transpose(2, 0, 1)).all()
    assert done.part == (0, 10, 40, 50)
    for number in (0, 1):
        change = done.edited(number).float() - done.photograph.float()
        assert not change[:, :10].any()
        assert not change[:, 50:].any()
        small = 255 * (done.after[number] - done.before)
        large = torch.nn.functional.interpolate(small[None], (40, 40), mode="bicubic")[0]
        cut = (done.photograph[:, 10:50] + large).round().clamp(0, 255)
        edited = done.edited(number)[:, 10:50].float()
        assert torch.equal(edited[:, 3:-3], cut[:, 3:-3])
        # Above and below, where the photograph goes on, the difference fades out: no seam.
        faded = (edited - done.photograph[:, 10:50]).abs()
        assert (faded[:, [0, -1]] <= 0.2 * large[:, [0, -1]].abs() + 0.5).all()
        assert (faded[:, 1] >= faded[:, 0] - 1).float().mean() > 0.95
        assert change.abs().max() > 2
    # The means are those of the model, given what was inferred, at the mean of z.
    given = dict(done.inferred)
    mean = run.generate(given, ["image"], 1, temperature=0)["image"].mean[0]
    assert torch.allclose(mean, done.before)
    assert torch.equal(
        done.inferred["attributes"],
        run.generate({"image": photo}, ["attributes"], 1, temperature=0)["attributes"].mean[0],
    )


def test_a_picture_of_the_model_s_own_size_is_changed_by_just_the_difference(tmp_path):
    pixels = np.full((8, 8, 3), 128, np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "small.png")
    done = edit(faces(tmp_path, crop="center"), tmp_path / "small.png", [{"Smiling": 1}])
    expected = 128 + 255 * (done.after[0] - done.before)
    assert torch.equal(done.edited(), expected.round().clamp(0, 255).byte())


def test_means_of_other_scales_are_compared_as_they_are_drawn(tmp_path, photo):
    done = edit(faces(tmp_path, scale="signed"), photo, [{"Smiling": 1}])
    for picture in (done.before, done.after, done.reconstruction):
        assert 0 <= picture.min() <= picture.max() <= 1
    assert done.before.mean() > 0.2  # in [−1, 1] it would be about 0


def test_a_face_is_cropped_as_the_data_was_or_as_is_asked_for(tmp_path, photo, monkeypatch):
    monkeypatch.setattr(crops, "_face", lambda *_: (3, 4, 23, 24))
    assert edit(faces(tmp_path, crop="face"), photo, [{"Smiling": 1}]).part == (3, 4, 23, 24)
    asked = edit(faces(tmp_path, crop="face"), photo, [{"Smiling": 1}], crop="none")
    assert asked.part == (0, 0, 40, 60)


def test_a_grey_model_changes_a_photograph_in_colour(tmp_path, photo):
    kinds = {"image": Image(height=8, width=8, **WIDTHS), "word": Word()}
    done = edit(a_run(tmp_path, modalities=kinds), photo, [{"word": "east"}])
    assert done.edited().shape == (3, 60, 40)
    assert done.changed["word"].tolist() == [[0, 1, 0, 0]]


def test_the_same_seed_is_the_same_edit_by_iterative_sampling_too(tmp_path, photo):
    run = faces(tmp_path, "jmvae")
    once, again = (edit(run, photo, [{"Smiling": 1}], iterations=3, seed=4) for _ in range(2))
    assert torch.equal(once.edited(), again.edited())


@pytest.mark.parametrize(
    ("likelihood", "value", "number"),
    [
        ("gaussian", "1", 1),
        ("gaussian", "no", -1),
        ("gaussian", "0", -1),
        ("gaussian", "0.0", 0),
        ("gaussian", 0.0, 0),
        ("gaussian", "-1.5", -1.5),
        ("bernoulli", "yes", 1),
        ("bernoulli", "0", 0),
        ("bernoulli", 1.0, 1),
        ("bernoulli", "0.5", None),
        ("bernoulli", "-2", None),
        ("gaussian", "much", None),
        ("gaussian", "nan", None),
        ("gaussian", "1e30", None),
    ],
)
def test_values_are_on_off_or_what_the_likelihood_allows(
    tmp_path, photo, likelihood, value, number
):
    run = faces(tmp_path, likelihood=likelihood)
    if number is None:
        with pytest.raises(GenerationError, match=f"Smiling={value}: it is on"):
            edit(run, photo, [{"Smiling": value}])
    else:
        done = edit(run, photo, [{"Smiling": value}])
        assert done.changed["attributes"][0, 0] == number


def test_a_name_that_two_modalities_have_is_written_with_its_own(tmp_path, photo):
    more = {"mood": Attributes(names=("Smiling",), **WIDTHS)}
    run = faces(tmp_path, more=more)
    with pytest.raises(GenerationError, match=r"it may be attributes\.Smiling, mood\.Smiling"):
        edit(run, photo, [{"Smiling": 1}])
    assert edit(run, photo, [{"mood.Smiling": 1}]).changed["mood"].tolist() == [[1]]
    assert set(changeable(run)) == {"Smiling", "Young"}


def test_several_pictures_are_told_apart_by_name(tmp_path, photo):
    run = faces(tmp_path, more={"sketch": Image(height=8, width=8, **WIDTHS)})
    with pytest.raises(GenerationError, match="image, sketch are pictures; name one: --picture"):
        edit(run, photo, [{"Smiling": 1}])
    assert edit(run, photo, [{"Smiling": 1}], picture="sketch").picture == "sketch"


def refused(run, photo, message, changes=None, **words):
    with pytest.raises(GenerationError, match=message):
        edit(run, photo, [changes or {"Smiling": 1}], **words)


def test_what_cannot_be_done_is_refused_in_plain_words(tmp_path, photo, monkeypatch):
    run = faces(tmp_path)
    refused(run, photo, "Smilng: .* did you mean 'Smiling'", {"Smilng": 1})
    refused(run, photo, "label=C: no class 'C'", {"label": "C"})
    refused(run, photo, "image: there is nothing of this name to change", {"image": "x.png"})
    refused(run, tmp_path / "no.png", "no.png' is no picture .*there is no such file")
    refused(run, photo, "no crop 'middle': there are none, center, face", crop="middle")
    refused(run, photo, "attributes: there is no photograph to edit", picture="attributes")
    monkeypatch.setattr(crops, "_face", lambda *_: None)
    refused(run, photo, "no face is found in the photograph", crop="face")
    words = {"a": Word(), "b": Word()}
    refused(a_run(tmp_path, modalities=words), photo, "there is no photograph to edit")
    way = {"targets": ["image"]}
    refused(faces(tmp_path, "cvae", direction=way), photo, "is a cvae of one direction")
    pictures = {"x": Image(height=8, width=8, **WIDTHS), "y": Image(height=8, width=8, **WIDTHS)}
    refused(a_run(tmp_path, modalities=pictures), photo, "Smiling: there is nothing", picture="x")


def test_bars_of_what_is_changed_are_marked_and_those_of_a_strip_too(tmp_path, photo):
    run = faces(tmp_path)
    strip = edit(run, photo, [{"Smiling": value} for value in (2.0, -2.0, 0.0)], follow=0)
    smiling, young = strip.inferred["attributes"].tolist()
    assert page._bars(strip, run.modalities) == [
        ("Smiling", smiling, (-2, 0, 2), -1, 1, True),
        ("Young", young, (), -1, 1, False),
    ]
    figure = Figure()
    page._draw(figure.subfigures(), page._bars(strip, run.modalities), 0.3, 4)
    axes = figure.subfigs[0].axes[0]
    colours = {label.get_text(): label.get_color() for label in axes.get_yticklabels()}
    assert colours == {"Smiling": page.AFTER, "Young": page.INK}
    [_, change, _] = axes.patches
    assert (change.get_x(), change.get_width()) == (-2, 4)


# The command line.


@pytest.fixture
def glyph(tmp_path):
    PIL.Image.new("L", (56, 70), 90).save(tmp_path / "glyph.png")
    return tmp_path / "glyph.png"


def test_the_command_draws_a_page_and_the_photograph_alone(mmgen, trained, glyph, tmp_path):
    page, alone = tmp_path / "page.png", tmp_path / "alone.png"
    words = ("--set", "bold=1", "label=B", "-o", page, "--edited", alone)
    code, out, err = mmgen("edit", trained, glyph, *words)
    assert code == 0, err
    assert out.startswith("glyph.png: 56 × 70 pixels at 0, 0 of 56 × 70\n")
    assert "→ B\n" in out
    assert "  bold: 0." in out
    assert out.splitlines()[-2:] == [str(page), str(alone)]
    with PIL.Image.open(page) as drawn, PIL.Image.open(alone) as edited:
        assert drawn.width > 700
        assert edited.size == (56, 70)
    again = tmp_path / "again.png"
    assert mmgen("edit", trained, glyph, *words[:3], "--edited", again)[0] == 0
    assert again.read_bytes() == alone.read_bytes()


def test_the_command_draws_a_strip(mmgen, trained, glyph, tmp_path):
    words = ("--strip", "bold", "--from", 0, "--to", 1, "--steps", 2, "--set", "label=B")
    code, out, err = mmgen("edit", trained, glyph, *words, "-o", tmp_path / "strip.png")
    assert code == 0, err
    assert "→ 0 … 1" in out
    with PIL.Image.open(tmp_path / "strip.png") as drawn:
        assert drawn.width > 900


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "nothing is changed: --set NAME=VALUE, or --strip NAME"),
        (("--set", "bold"), "--set bold: write NAME=VALUE"),
        (("--set", "bald=1"), "did you mean 'bold'"),
        (("--strip", "bald"), "--strip bald: there is no attribute of this name; did you mean"),
        (("--strip", "label"), "--strip label: there is no attribute"),
        (("--set", "bold=1", "--from", "1"), "--from and --to belong to --strip"),
        (("--strip", "bold", "--edited", "x.png"), "--edited is one photograph"),
        (("--strip", "bold", "--steps", "3"), "bold=0.5: it is on"),
        (("--set", "bold=1", "-o", "/dev/null"), "/dev/null"),
    ],
)
def test_the_command_says_what_is_wrong(mmgen, trained, glyph, words, message):
    code, _, err = mmgen("edit", trained, glyph, *words)
    assert code == 2
    assert message in err


def test_the_photograph_itself_is_never_overwritten(mmgen, trained, glyph):
    before = glyph.read_bytes()
    for option in ("--out", "--edited"):
        code, _, err = mmgen("edit", trained, glyph, "--set", "bold=1", option, glyph)
        assert code == 2
        assert "is the photograph itself: name another file" in err
    assert glyph.read_bytes() == before
