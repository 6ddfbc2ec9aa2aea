"""CelebA in its official layout, made up and real; crops of photographs."""

import io
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

from mmgen.build import registry
from mmgen.data import crops
from mmgen.data.content import content
from mmgen.data.sources import Celeba, celeba
from mmgen.data.sources.celeba import CelebA
from mmgen.data.store import read_dataset
from mmgen.errors import DataError, MmgenError
from mmgen_image import Image

NAMES = ("Smiling", "Male", "Young")
REAL = Path(__file__).parents[1] / os.environ.get("MMGEN_DATA", "../shared/data") / "celeba"
needs_celeba = pytest.mark.skipif(not REAL.is_dir(), reason=f"no CelebA at {REAL}: set MMGEN_DATA")


def picture(number):
    """A picture of one colour, with a darker left half."""
    pixels = np.full((22, 18, 3), 8 * number + 40, np.uint8)
    pixels[:, :9] //= 2
    return PIL.Image.fromarray(pixels)


def signs(number):
    return [1 if number >> bit & 1 else -1 for bit in range(3)]


def jpeg(number):
    file = io.BytesIO()
    picture(number).save(file, "JPEG", quality=95)
    return file.getvalue()


def layout(root, there=range(1, 9), *, packed=False):
    """Writes ten annotated pictures, of which some are there."""
    root.mkdir(exist_ok=True)
    every = [f"{number:06}.jpg" for number in range(1, 11)]
    lines = [f"{name} {' '.join(map(str, signs(n)))}" for n, name in enumerate(every, 1)]
    (root / "list_attr_celeba.txt").write_text("10\n" + "  ".join(NAMES) + "\n" + "\n".join(lines))
    partition = [f"{name} {min(2, (n - 1) // 4)}" for n, name in enumerate(every, 1)]
    (root / "list_eval_partition.txt").write_text("\n".join(partition) + "\n")
    contents = {f"img_align_celeba/{every[n - 1]}": jpeg(n) for n in there}
    if packed:
        with zipfile.ZipFile(root / "img_align_celeba.zip", "w") as file:
            file.mkdir("img_align_celeba")
            for name, content in contents.items():
                file.writestr(name, content)
    else:
        (root / "img_align_celeba").mkdir()
        for name, content in contents.items():
            (root / name).write_bytes(content)
    return root


@pytest.mark.parametrize("packed", [False, True])
def test_a_part_is_read_by_the_official_split(tmp_path, mmgen, packed):
    root = layout(tmp_path / "celeba", packed=packed)
    code, _, err = mmgen("data", "celeba", root, "--size", 16, "--out", tmp_path / "data")
    assert code == 0, err
    dataset = read_dataset(tmp_path / "data")
    assert dataset.about == err.strip()  # it is told on the terminal too
    assert {n: split.count for n, split in dataset.splits.items()} == {"train": 4, "validation": 4}
    assert dataset.about.startswith("CelebA: 8 of the 10 pictures that have attributes, the center")
    assert "not to be passed on" in dataset.about
    assert dataset.about in (tmp_path / "data" / "README.md").read_text()
    assert dataset.modalities["attributes"]["names"] == list(NAMES)
    for split, first in (("train", 1), ("validation", 5)):
        values = dataset.splits[split].load()
        on = [[sign == 1 for sign in signs(n)] for n in range(first, first + 4)]
        assert values["attributes"].tolist() == on
        image = Image(**{k: v for k, v in dataset.modalities["image"].items() if k != "kind"})
        for n, stored in enumerate(values["image"], first):
            assert stored.shape == (3, 16, 16)
            # What a user gives later is seen as the data was.
            assert torch.equal(stored, image.accept(PIL.Image.open(io.BytesIO(jpeg(n)))))


def test_a_random_split_is_disjoint_and_repeats(tmp_path):
    found = CelebA(layout(tmp_path / "celeba"), "center", 16)
    first = found.drawn({"validation": 2, "test": 1}, 5)
    assert first == found.drawn({"validation": 2, "test": 1}, 5)
    assert first != found.drawn({"validation": 2, "test": 1}, 6)
    assert {n: len(names) for n, names in first.items()} == {"train": 5, "validation": 2, "test": 1}
    assert sorted(name for names in first.values() for name in names) == sorted(found.rows)
    with pytest.raises(DataError, match="8 pictures, so that 8 to hold out leave none"):
        found.drawn({"validation": 5, "test": 3}, 5)


def test_pictures_that_cannot_be_used_are_counted_and_left_out(tmp_path, monkeypatch):
    root = layout(tmp_path / "celeba")
    (root / "img_align_celeba" / "000002.jpg").write_bytes(jpeg(2)[:300])
    (root / "img_align_celeba" / "000003.jpg").write_bytes(b"%!PS-Adobe\n(x) show")

    def found(pixels, large):  # no face in the picture of number 4
        return None if pixels[11, 15, 0] == 72 else (2, 2, 14, 14)

    monkeypatch.setattr(crops, "_face", found)
    content = Celeba(root=root, crop="face", size=12).read()
    rows = [chunk["attributes"].tolist() for chunk in content.splits["train"]]
    assert rows == [[[True, False, False]]]
    assert len(next(iter(content.splits["validation"]))["image"]) == 4
    about = content.about()
    assert "1 were left out: no face was found" in about
    assert "2 could not be read: 000002.jpg, 000003.jpg." in about


BROKEN = {
    "no pictures": (None, "there is neither img_align_celeba/ nor img_align_celeba.zip"),
    "no zip": (("img_align_celeba.zip", b"PK"), "img_align_celeba.zip: is no zip file"),
    "attributes": (("list_attr_celeba.txt", b"1\nA B\n000001.jpg 1\n"), "line 3: needs a picture"),
    "values": (("list_attr_celeba.txt", b"1\nA B\n000001.jpg 1 2\n"), "1 or -1 for each of 2"),
    "names": (("list_attr_celeba.txt", b"1\nA A\n"), "line 2: needs the names of attributes"),
    "none": (("list_attr_celeba.txt", b"1\nA B\nother.jpg 1 1\n"), "none of its pictures is in"),
    "long": (("list_attr_celeba.txt", b"1\nA B\n" + b"x" * 10**6), "line 3: is longer than an"),
    "count": (("list_attr_celeba.txt", b"many\nA B\n"), "line 1: needs the number of pictures"),
    "digits": (("list_attr_celeba.txt", b"9" * 9_000), "line 1: needs the number of pictures"),
    "cut": (("list_attr_celeba.txt", b"2\nA B\n000001.jpg 1 1\n"), "has 1 pictures, but line 1"),
    "parts": (("list_eval_partition.txt", b"000001.jpg 3\n"), "line 1: needs a picture and 0, 1"),
    "no part": (
        ("list_eval_partition.txt", b"a.jpg 0\n"),
        "no line for 1 of the pictures, such as",
    ),
    "no train": (("list_eval_partition.txt", b"000001.jpg 1\n"), "is one to train on"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_wrong_files_are_told_and_nothing_is_left(tmp_path, mmgen, name):
    change, words = BROKEN[name]
    root = tmp_path / "celeba"
    if change is None:
        root.mkdir()
    else:
        layout(root, there=() if name == "no zip" else (1,), packed=name == "no zip")
        (root / change[0]).write_bytes(change[1])
    code, _, err = mmgen("data", "celeba", root, "--out", tmp_path / "data")
    assert code == 2
    assert words in err
    assert not (tmp_path / "data").exists()


def test_a_zip_that_unpacks_to_very_much_is_not_unpacked(tmp_path):
    root = layout(tmp_path / "celeba", packed=True)
    with zipfile.ZipFile(root / "img_align_celeba.zip", "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("img_align_celeba/000009.jpg", bytes(2**25))
    found = CelebA(root, "center", 16)
    assert [len(chunk["image"]) for chunk in found.chunks(["000008.jpg", "000009.jpg"])] == [1]
    assert found.damaged == ["000009.jpg"]


def test_a_zip_that_unpacks_without_bound_is_not_unpacked(tmp_path):
    root = layout(tmp_path / "celeba", ())
    (root / "img_align_celeba").rmdir()
    with zipfile.ZipFile(root / "img_align_celeba.zip", "w", zipfile.ZIP_BZIP2) as file:
        file.writestr("img_align_celeba/000001.jpg", jpeg(1))
    with pytest.raises(DataError, match=r"none of 1 pictures .* neither stored"):
        list(CelebA(root, "center", 16).chunks(["000001.jpg"]))


def test_a_zip_that_lists_too_much_is_not_read(tmp_path, monkeypatch):
    root = layout(tmp_path / "celeba", packed=True)
    monkeypatch.setattr(celeba, "DIRECTORY", 500)
    with pytest.raises(DataError, match="its list of members has more than 500 bytes"):
        CelebA(root, "center", 16)


def test_names_in_a_zip_that_lead_elsewhere_are_none_of_the_pictures(tmp_path):
    root = layout(tmp_path / "celeba", packed=True)
    with zipfile.ZipFile(root / "img_align_celeba.zip", "a") as file:
        for name in ("../000009.jpg", "img_align_celeba/../000009.jpg", "/000010.jpg"):
            file.writestr(name, jpeg(9))
    before = sorted(tmp_path.rglob("*"))
    found = CelebA(root, "center", 16)
    assert len(found.rows) == 8
    assert len(next(found.chunks(sorted(found.rows)))["image"]) == 8
    assert sorted(tmp_path.rglob("*")) == before


def test_rows_are_decoded_when_they_are_asked_for_and_in_order(tmp_path, monkeypatch):
    seen = []
    read = CelebA._read
    monkeypatch.setattr(celeba, "CHUNK", 2)
    monkeypatch.setattr(CelebA, "_read", lambda *a: seen.append(a[-1]) or read(*a))
    source = Celeba(root=layout(tmp_path / "celeba"), size=16)
    chunks = content(source, registry()).splits["train"]
    assert not seen
    for n in (1, 3):
        pictures = next(chunks)["image"]
        assert sorted(seen) == [f"{i:06}.jpg" for i in range(1, n + 2)]
        assert [round((int(p[0, 0, -1]) - 40) / 8) for p in pictures] == [n, n + 1]


def test_no_face_in_any_picture_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(crops, "_face", lambda *_: None)
    found = CelebA(layout(tmp_path / "celeba"), "face", 16)
    with pytest.raises(DataError, match="none of 2 pictures can be used: no face"):
        list(found.chunks(["000001.jpg", "000002.jpg"]))


def test_counts_of_the_official_split_are_its_own(mmgen, tmp_path):
    root = layout(tmp_path / "celeba")
    code, _, err = mmgen("data", "celeba", root, "--test", 2, "--out", tmp_path / "data")
    assert (code, "--split random" in err) == (2, True)


def test_the_centre_is_the_largest_square():
    pixels = np.arange(5 * 8 * 3, dtype=np.uint8).reshape(5, 8, 3)
    assert crops.box(pixels, "center") == (1, 0, 6, 5)
    assert crops.box(pixels.transpose(1, 0, 2), "center") == (0, 1, 5, 6)
    assert crops.box(pixels, "none") == (0, 0, 8, 5)
    assert np.array_equal(crops.cut(pixels, (1, 0, 6, 5)), pixels[:, 1:6])


@pytest.mark.parametrize(
    ("faces", "found"),
    [
        ([], None),
        ([(40, 40, 20, 20)], None),  # its square of 26 is below 0.4 of the height
        ([(0, 40, 50, 50)], None),  # its square leaves the picture
        ([(25, 25, 50, 50)], (18, 18, 83, 83)),
        ([(20, 20, 32, 32), (25, 25, 50, 50)], (18, 18, 83, 83)),  # the largest
    ],
)
def test_a_face_is_large_and_inside(faces, found, monkeypatch):
    class Detector:
        def detectMultiScale(self, grey, **_):  # noqa: N802
            assert grey.shape == (100, 100)
            return np.array(faces)

    monkeypatch.setattr(crops, "_detector", Detector)
    got = crops.box(np.zeros((100, 100, 3), np.uint8), "face", large=True)
    assert got == found


@pytest.mark.parametrize(
    ("faces", "found"),
    [
        ([], None),
        ([(25, 25, 50, 50)], (18, 18, 83, 83)),  # a large one is what it is in data
        ([(40, 40, 20, 20)], (37, 37, 63, 63)),
        ([(0, 40, 50, 50)], (0, 32, 65, 97)),  # its square is moved inside
        ([(0, 0, 90, 90)], (0, 0, 100, 100)),  # and made no larger than the picture
    ],
)
def test_in_any_photograph_a_face_may_be_small_and_at_the_edge(faces, found, monkeypatch):
    asked = []

    class Detector:
        def detectMultiScale(self, grey, minSize, minNeighbors, **_):  # noqa: N802
            asked.append((grey.shape, minSize, minNeighbors))
            return np.array([f for f in faces if f[2] >= minSize[0]])

    monkeypatch.setattr(crops, "_detector", Detector)
    assert crops.box(np.zeros((100, 100, 3), np.uint8), "face") == found
    assert asked[0] == ((100, 100), (30, 30), 3)
    assert asked[1:] in ([], [((100, 100), (6, 6), 6)])


def test_in_a_large_photograph_every_so_many_pixels_are_looked_at(monkeypatch):
    class Detector:
        def detectMultiScale(self, grey, minSize, **_):  # noqa: N802
            if minSize[0] > 60:
                return ()
            assert grey.shape == (1000, 1000)
            return np.array([(100, 100, 50, 50)])

    monkeypatch.setattr(crops, "_detector", Detector)
    found = crops.box(np.zeros((3000, 3000, 3), np.uint8), "face")
    assert found == (276, 276, 471, 471)  # three times (92, 92, 157, 157)


def test_a_photograph_without_a_face_is_refused_in_one_sentence(tmp_path):
    pytest.importorskip("cv2")
    file = tmp_path / "wall.png"
    PIL.Image.new("RGB", (90, 80), "grey").save(file)
    image = Image(channels=3, height=16, width=16, crop="face")
    with pytest.raises(ValueError, match=f"no face is found in {re.escape(repr(str(file)))}"):
        image.parse(str(file))
    with pytest.raises(ValueError, match="no face is found in the picture"):
        image.accept(PIL.Image.open(file))
    # What has the size of the model's own pictures is seen whole.
    small = torch.arange(768).reshape(16, 16, 3).to(torch.uint8).numpy()
    assert torch.equal(image.accept(small), torch.from_numpy(small).permute(2, 0, 1))


def test_a_turned_photograph_is_upright_before_it_is_cropped(tmp_path):
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 255
    pixels[:10, 20:40] = 128  # the upper half of the middle
    exif = PIL.Image.Exif()
    exif[274] = 6  # to be turned by 90°: the upper half is the right one
    PIL.Image.fromarray(pixels).save(tmp_path / "x.png", exif=exif)
    seen = Image(channels=3, height=8, width=8, crop="center").parse(str(tmp_path / "x.png"))
    assert abs(int(seen[0, 4, 6]) - 128) < 8
    assert int(seen[0, 4, 1]) > 247


@pytest.mark.parametrize("fault", ["absent", "version 5"])
def test_without_opencv_it_is_said_what_to_install(fault, monkeypatch):
    cv2 = pytest.importorskip("cv2")
    if fault == "absent":
        monkeypatch.setitem(sys.modules, "cv2", None)
    else:  # it has no cascades any more
        monkeypatch.delattr(cv2, "CascadeClassifier")
    monkeypatch.delattr(crops._THREAD, "detector", raising=False)
    with pytest.raises(MmgenError, match=r'pip install "mmgen-vae\[faces\]"'):
        crops.check_detector()


@needs_celeba
def test_real_faces_are_found(tmp_path):
    pytest.importorskip("cv2")
    found = CelebA(REAL, "face", 64)
    assert len(found.names) == 40
    splits = found.official()
    assert {n: len(names) for n, names in splits.items()} == {
        "train": 14_283,
        "validation": 780,
        "test": 660,
    }
    [chunk] = found.chunks(splits["test"][:100])
    assert chunk["image"].shape[1:] == (3, 64, 64)
    assert 90 <= len(chunk["image"]) == 100 - found.faceless


PEAK = """
import resource, sys
from pathlib import Path
from mmgen.data.sources.celeba import CelebA
celeba = CelebA(Path(sys.argv[1]), "center", 64)
names = sorted(celeba.rows)[: int(sys.argv[2])]
rows = sum(len(chunk["image"]) for chunk in celeba.chunks(names))
print(rows, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@needs_celeba
def test_memory_does_not_grow_with_the_pictures():
    peaks = []
    for count in (1_000, 8_000):
        words = [sys.executable, "-c", PEAK, str(REAL), str(count)]
        rows, peak = subprocess.run(words, capture_output=True, check=True).stdout.split()
        assert int(rows) == count
        peaks.append(int(peak))
    assert peaks[1] < 1.1 * peaks[0]
