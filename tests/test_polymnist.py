"""polymnist-like: which digits are drawn, what they are blended over, and folders of pictures."""

import numpy as np
import pytest
import torch
from PIL import Image
from test_torchvision_source import idx

from mmgen.data.sources import PolymnistLike, polymnist, textures
from mmgen.data.sources.polymnist import NAMES, blended, families, made
from mmgen.data.sources.textures import PATTERNS, dealt
from mmgen.data.store import read_dataset
from mmgen.errors import DataError

ROWS = 130
"""Of the training set: the last 65 are held out."""


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A set of MNIST's layout; the first pixels of each picture say which one it is."""
    path = tmp_path_factory.mktemp("mnist")
    for part, rows, shift in (("train", ROWS, 0), ("t10k", 70, ROWS)):
        pictures = np.zeros((rows, 28, 28), np.uint8)
        pictures[:, 0, :8] = 255 * bits(torch.arange(rows) + shift).numpy()
        write_set(path, part, pictures, (np.arange(rows) % 10).astype(np.uint8))
    return path


def write_set(root, part, pictures, labels):
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    (raw / f"{part}-images-idx3-ubyte").write_bytes(idx(pictures))
    (raw / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))


def bits(numbers):
    return (numbers.unsqueeze(-1) >> torch.arange(8)) & 1


def black():
    """Makes all textures black, so that what is stored is the digit in light ink."""

    class Black:
        about = "black"

        def patches(self, count, side, stream):
            torch.rand(count, generator=stream)
            return torch.zeros(count, 3, side, side)

    return dict.fromkeys(NAMES, Black())


def rows_of(chunks):
    parts = list(chunks)
    return {n: torch.cat([part[n] for part in parts]) for n in parts[0]}


def numbers_of(pictures):
    """Reads off which pictures of MNIST were drawn."""
    return ((pictures[:, 0, 0, :8] > 100).long() << torch.arange(8)).sum(1)


@pytest.mark.parametrize(
    ("split", "pool"), [("train", (0, 65)), ("validation", (65, 130)), ("test", (130, 200))]
)
def test_five_different_pictures_of_the_digit_from_the_part_of_the_split(root, split, pool):
    _, splits = made(root, black(), {split: 700}, seed=0)
    rows = rows_of(splits[split])
    drawn = torch.stack([numbers_of(rows[name]) for name in NAMES], 1)
    assert ((drawn >= pool[0]) & (drawn < pool[1])).all()
    assert (drawn % 10 == rows["label"].long().unsqueeze(1)).all()
    assert all(len({*row}) == 5 for row in drawn.tolist())
    # Each picture of the part is drawn at each place about equally often.
    for hand in range(5):
        counts = drawn[:, hand].bincount(minlength=200)[pool[0] : pool[1]]
        assert counts.min() > 0
    assert rows["label"].bincount(minlength=10).min() > 40


def test_the_seed_decides_and_chunks_do_not(root):
    def first(seed, count):
        _, splits = made(root, families(None), {"train": count}, seed)
        return next(splits["train"])

    a, b, c = first(0, 30), first(0, 30), first(1, 30)
    assert all(a[n].equal(b[n]) for n in a)
    assert not any(a[n].equal(c[n]) for n in a)
    assert {n: (t.shape, t.dtype) for n, t in a.items()} == {
        **dict.fromkeys(NAMES, ((30, 3, 28, 28), torch.uint8)),
        "label": ((30,), torch.uint8),
    }
    _, splits = made(root, families(None), {"train": 1100}, 0)
    assert [len(chunk["m0"]) for chunk in splits["train"]] == [500, 500, 100]


def test_without_a_label_the_pictures_are_the_same(root):
    with_label, without = (
        made(root, families(None), {"test": 20}, 3, label=label) for label in (True, False)
    )
    assert set(with_label[0]) - set(without[0]) == {"label"}
    first, second = (rows_of(splits["test"]) for _, splits in (with_label, without))
    assert set(second) == set(NAMES)
    assert all(first[n].equal(second[n]) for n in NAMES)


def test_too_few_pictures_of_a_digit_are_an_error(tmp_path):
    pictures = np.zeros((40, 28, 28), np.uint8)
    for part in ("train", "t10k"):
        write_set(tmp_path, part, pictures, (np.arange(40) % 10).astype(np.uint8))
    with pytest.raises(DataError, match="has 2 pictures of a 0; 5 different ones"):
        made(tmp_path, families(None), {"train": 5}, 0)


def test_ink_is_light_on_dark_and_dark_on_light():
    stroke = torch.zeros(2, 28, 28, dtype=torch.uint8)
    stroke[:, 4:8] = 255
    stroke[:, 8:12] = 51
    patches = torch.tensor([0.2, 0.8])[:, None, None, None].expand(2, 3, 28, 28)
    found = blended(stroke, patches).float() / 255
    ink = polymnist.INK
    for row, towards in ((0, 1.0), (1, 0.0)):
        ground = patches[row, 0, 0, 0].item()
        assert found[row, :, 20].sub(ground).abs().max() < 0.003
        assert found[row, :, 5].sub(ground + ink * (towards - ground)).abs().max() < 0.003
        assert found[row, :, 9].sub(ground + 0.2 * ink * (towards - ground)).abs().max() < 0.003


@pytest.mark.parametrize("family", PATTERNS, ids=lambda family: family.about)
def test_patterns_are_of_their_hue_and_leave_room_for_ink(family):
    patches = family.patches(200, 28, torch.Generator().manual_seed(0))
    assert patches.shape == (200, 3, 28, 28)
    assert patches.min() >= 0
    assert patches.max() <= 1
    # Each patch shows a pattern, and no two are alike.
    assert patches.std((2, 3)).amax(1).min() > 0.01
    assert len({tuple(p.flatten()[:50].tolist()) for p in patches}) == 200
    ink = blended(torch.full((200, 28, 28), 255, dtype=torch.uint8), patches).float() / 255
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    brightness = [(weights * x).sum(1) for x in (patches, ink)]
    assert (brightness[1] - brightness[0]).abs().amin() > 0.25
    # The hue of the mean colour lies in the family's range.
    mean = patches.mean((2, 3))
    assert circle(hue(mean) - family.hue).max() < 0.12


def hue(colours):
    red, green, blue = colours.unbind(1)
    return (torch.atan2(3**0.5 * (green - blue), 2 * red - green - blue) / (2 * torch.pi)) % 1


def circle(difference):
    return ((difference + 0.5) % 1 - 0.5).abs()


@pytest.mark.parametrize(
    ("colour", "expected"), [((1, 0, 0), 0), ((0, 1, 0), 1 / 3), ((0, 0, 1), 2 / 3)]
)
def test_colours_are_those_of_the_standard_library(colour, expected):
    import colorsys

    assert hue(torch.tensor([colour]).float()).item() == pytest.approx(expected, abs=1e-6)
    values = torch.rand(40, 3, generator=torch.Generator().manual_seed(1))
    found = textures.rgb(*values.unbind(1))
    known = torch.tensor([colorsys.hsv_to_rgb(*row) for row in values.tolist()])
    torch.testing.assert_close(found, known)


# Folders of pictures.


def pictures(folder, colours, size=(60, 40)):
    folder.mkdir(exist_ok=True)
    for number, colour in enumerate(colours):
        Image.new("RGB", size, colour).save(folder / f"{number:02}.png")
    return folder


def test_pictures_are_dealt_out_by_name(tmp_path):
    colours = [(25 * number, 10, 200) for number in range(10)]
    folder = pictures(tmp_path / "photos", colours)
    (folder / "notes.txt").write_text("no picture")
    stream = torch.Generator().manual_seed(0)
    for hand, family in enumerate(dealt(folder, 5, 28)):
        patches = (255 * family.patches(60, 28, stream)).round()
        seen = {tuple(p[:, 0, 0].int().tolist()) for p in patches}
        assert seen == {colours[hand], colours[hand + 5]}
        assert patches.shape == (60, 3, 28, 28)
        assert "2 pictures, such as" in family.about


def test_patches_are_cut_anywhere(tmp_path):
    ramp = np.broadcast_to(np.arange(60, dtype=np.uint8)[None, :, None], (40, 60, 3))
    for number in range(5):
        Image.fromarray(np.ascontiguousarray(ramp)).save(tmp_path / f"{number}.png")
    family = dealt(tmp_path, 5, 28)[0]
    patches = (255 * family.patches(400, 28, torch.Generator().manual_seed(0))).round().int()
    assert {int(p[0, 0, 0]) for p in patches} == set(range(60 - 28 + 1))
    assert (patches[:, :, :, 1:] - patches[:, :, :, :-1] == 1).all()


def test_large_pictures_are_made_smaller(tmp_path):
    pictures(tmp_path, ["red"] * 5, size=(1000, 400))
    (picture,) = dealt(tmp_path, 5, 28)[0].pictures
    assert picture.shape == (3, 102, 256)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda _: None, "cannot be read"),
        (lambda d: pictures(d, ["red"] * 4), "need at least 5 pictures"),
        (lambda d: pictures(d, ["red"] * 5, size=(60, 27)), "a patch needs 28 each way"),
        (lambda d: pictures(d, ["red"] * 5, size=(3000, 300)), "is 256×26 pixels"),
        (lambda d: (pictures(d, ["red"] * 5) / "02.png").write_bytes(b"x"), "is no picture"),
    ],
)
def test_folders_that_cannot_be_used_are_one_message(tmp_path, make, message):
    make(tmp_path / "photos")
    with pytest.raises(DataError, match=message):
        dealt(tmp_path / "photos", 5, 28)


def test_too_many_pictures_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(textures, "MOST_PICTURES", 6)
    with pytest.raises(DataError, match="7 pictures are more than the 6"):
        dealt(pictures(tmp_path / "photos", ["red"] * 7), 5, 28)


# The command.


def test_the_command_writes_a_data_set_and_its_card_says_how(mmgen, root, tmp_path):
    out, folder = tmp_path / "poly", pictures(tmp_path / "photos", ["red"] * 5)
    words = ("--train", 30, "--validation", 10, "--test", 12, "--no-label", "--seed", 4)
    code, said, err = mmgen(
        *("-p", "mmgen.data.sources", "data", "polymnist-like", root, "--out", out, *words),
        *("--textures", folder),
    )
    assert code == 0, err
    assert said == f"{out}: 30 train, 10 validation, 12 test; modalities m0, m1, m2, m3, m4\n"
    dataset = read_dataset(out)
    assert "m0: 1 pictures, such as 00.png" in dataset.about
    assert "seed 4" in dataset.about
    card = (out / "README.md").read_text()
    assert "--no-label" in card
    assert "standard_deviation 0.3" in card
    assert (out / "contact-sheet.png").exists()


def test_where_there_is_no_mnist_it_says_so(tmp_path):
    with pytest.raises(DataError, match="no mnist in"):
        PolymnistLike(root=tmp_path).read()
