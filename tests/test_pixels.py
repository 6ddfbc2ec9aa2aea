"""The pixels of pictures: ink, 16 bits, orientation and transparency as people see them."""

import io
import struct

import numpy as np
import PIL.features
import PIL.Image
import pytest
from pictures import png

from mmgen.data import pixels
from mmgen_image import Image
from mmgen_image.files import read_picture


def read(path, channels=3, size=(1, 1)):
    return read_picture(str(path), (channels, *size)).flatten().tolist()


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_ink_is_no_light(tmp_path, suffix):
    for cmyk, rgb in (
        ((0, 0, 0, 0), (255, 255, 255)),
        ((0, 255, 255, 0), (255, 0, 0)),
        ((255, 0, 0, 0), (0, 255, 255)),
        ((0, 0, 0, 255), (0, 0, 0)),
    ):
        PIL.Image.new("CMYK", (16, 16), cmyk).save(tmp_path / f"x.{suffix}")
        found = read(tmp_path / f"x.{suffix}")
        assert np.abs(np.subtract(found, rgb)).max() <= 3, (cmyk, found)


def ycck(rgb: tuple[int, int, int]) -> bytes:
    """Returns a JPEG of ink coded as YCCK, Adobe's way: inverted, behind a marker."""
    ink = (255 - rgb[0], 255 - rgb[1], 255 - rgb[2])
    y, cb, cr = PIL.Image.new("RGB", (16, 16), ink).convert("YCbCr").split()
    content = io.BytesIO()
    # CMYK stored without a transform; its four channels hold what YCCK's would.
    PIL.Image.merge(
        "CMYK",
        [c.point(lambda v: 255 - v) for c in (y, cb, cr)] + [PIL.Image.new("L", (16, 16), 0)],
    ).save(content, "JPEG", quality=100, subsampling=0)
    jpeg = bytearray(content.getvalue())
    jpeg[jpeg.index(b"Adobe") + 11] = 2
    return bytes(jpeg)


@pytest.mark.parametrize("rgb", [(255, 255, 255), (200, 30, 90), (10, 160, 220)])
def test_ink_may_be_coded_as_brightness_and_hue(tmp_path, rgb):
    (tmp_path / "x.jpg").write_bytes(ycck(rgb))
    with PIL.Image.open(tmp_path / "x.jpg") as opened:
        assert (opened.mode, opened.info["adobe_transform"]) == ("CMYK", 2)
    assert np.abs(np.subtract(read(tmp_path / "x.jpg"), rgb)).max() <= 6


def test_sixteen_bits_in_any_mode_become_the_higher_eight(tmp_path):
    file = tmp_path / "x.png"
    wide = struct.pack(">HHH", 65535, 256 * 7 + 99, 40_000)
    for kind, row, expected in (
        (2, wide, [255, 7, 156]),
        (0, wide[2:4], [7, 7, 7]),
        (4, wide[2:4] + b"\xff\xff", [7, 7, 7]),
        (6, wide + b"\0\0", [255, 255, 255]),
        (6, wide + b"\xff\xff", [255, 7, 156]),
    ):
        file.write_bytes(png(16, kind, b"\0" + row))
        assert read(file) == expected, kind
    (tmp_path / "x.pgm").write_bytes(b"P5 1 1 65535\n" + wide[2:4])
    assert read(tmp_path / "x.pgm", 1) == [7]
    PIL.Image.fromarray(np.array([[40_000]], np.uint16)).save(tmp_path / "x.tif")
    assert read(tmp_path / "x.tif", 1) == [156]


def test_a_turned_picture_of_sixteen_bits_is_turned(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.fromarray(np.array([[0, 65535]], np.uint16)).save(tmp_path / "x.png", exif=exif)
    assert read(tmp_path / "x.png", 1, (2, 1)) == [0, 255]


@pytest.mark.parametrize("name", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_all_eight_orientations_are_undone_in_every_format(tmp_path, name, turn):
    if name == "webp" and not PIL.features.check("webp"):
        pytest.skip("no WEBP here")
    upright = np.zeros((16, 24), np.uint8)
    upright[:8, :8] = 255  # white at the upper left
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transpositions
    stored = PIL.Image.fromarray(upright)
    stored = stored.transpose(undo[turn]) if turn > 1 else stored
    exif = PIL.Image.Exif()
    exif[0x0112] = turn
    more = {"lossless": True} if name == "webp" else {}
    stored.convert("L").save(tmp_path / f"x.{name}", exif=exif, **more)
    found = read_picture(str(tmp_path / f"x.{name}"), (1, 16, 24))[0].numpy()
    assert np.abs(found.astype(int) - upright).max() < 12
    settings = Image.infer_settings({"file": [str(tmp_path / f"x.{name}")]})
    assert (settings["height"], settings["width"]) == (16, 24)


def test_transparent_colours_are_white_in_every_mode(tmp_path):
    palette = PIL.Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    for name in ("x.png", "x.gif"):
        palette.save(tmp_path / name, transparency=1)
        assert read(tmp_path / name, 3, (1, 2)) == [10, 255, 20, 255, 30, 255], name
    PIL.Image.new("L", (1, 1), 9).save(tmp_path / "grey.png", transparency=9)
    assert read(tmp_path / "grey.png", 1) == [255]
    PIL.Image.new("RGB", (1, 1), (1, 2, 3)).save(tmp_path / "rgb.png", transparency=(1, 2, 3))
    assert read(tmp_path / "rgb.png") == [255, 255, 255]
    PIL.Image.new("LA", (1, 1), (0, 127)).save(tmp_path / "la.png")
    assert read(tmp_path / "la.png", 1) == [128]


def test_one_bit_is_black_or_white(tmp_path):
    for name in ("x.png", "x.bmp", "x.tif", "x.pbm"):
        picture = PIL.Image.new("1", (2, 1))
        picture.putpixel((1, 0), 1)
        picture.save(tmp_path / name)
        assert read(tmp_path / name, 1, (1, 2)) == [0, 255], name


def test_fractions_are_grey_values_and_other_numbers_are_refused(tmp_path):
    file = tmp_path / "x.tif"
    PIL.Image.fromarray(np.array([[0, 0.2, 1]], np.float32)).save(file)
    assert read(file, 1, (1, 3)) == [0, 51, 255]
    for values in ([-0.5, 1], [0, 3.5], [0, np.nan], [0, np.inf]):
        PIL.Image.fromarray(np.array([values], np.float32)).save(file)
        with pytest.raises(ValueError, match=r"its numbers reach from .* not from 0, black, to 1"):
            Image().parse(str(file))
    PIL.Image.fromarray(np.array([[0, 70_000]], np.int32)).save(file)
    with pytest.raises(ValueError, match="from 0 to 70,000, not from 0, black, to 65,535, white"):
        Image().parse(str(file))


@pytest.mark.skipif(not PIL.features.check("littlecms2"), reason="Pillow without LittleCMS")
def test_colours_of_lightness_and_opponents_are_converted(tmp_path):
    for lab, rgb in (((255, 128, 128), (255, 255, 255)), ((136, 209, 198), (254, 5, 0))):
        PIL.Image.new("LAB", (4, 4), lab).save(tmp_path / "x.tif")
        assert np.abs(np.subtract(read(tmp_path / "x.tif"), rgb)).max() <= 12, lab


def test_a_very_large_picture_is_averaged_as_a_small_one_is(tmp_path, monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (400, 600, 4), np.uint8)
    noise[:200, :, 3] = 0  # transparent above
    for channels in (3, 4):
        PIL.Image.fromarray(noise[..., :channels]).save(tmp_path / "x.png")
        exact = np.array(read(tmp_path / "x.png", 3, (10, 15)))
        with monkeypatch.context() as patch:
            patch.setattr(pixels, "LARGE", 100)
            small = np.array(read(tmp_path / "x.png", 3, (10, 15)))
        assert 0 < np.abs(exact - small).max() < 8
