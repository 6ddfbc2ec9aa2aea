"""What is opened as a picture: formats on a list, within limits, and without a process."""

import ast
import io
import json
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import PIL.features
import PIL.Image
import PIL.ImageCms
import pytest
from conftest import ROOT
from pictures import encoded, png

from mmgen.data import raster
from mmgen_image import Image
from mmgen_image.files import read_picture

EPS = (
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n"
    b"(%pipe%touch hacked) (w) file\n{} loop\n%%EOF\n"
)

SAMPLES = {
    "EPS": EPS,
    "PS": EPS.replace(b" EPSF-3.0", b""),
    "EPS in DOS": b"\xc5\xd0\xd3\xc6" + struct.pack("<II", 30, len(EPS)).ljust(26, b"\0") + EPS,
    "PDF": b"%PDF-1.4\n",
    "WMF": b"\xd7\xcd\xc6\x9a\0\0" + bytes(40),
    "EMF": b"\x01\0\0\0" + bytes(36) + b" EMF" + bytes(60),
    "SVG": b'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"/>',
    "FITS": b"SIMPLE  =                    T".ljust(2880),
    "GRIB": b"GRIB" + bytes(3) + b"\1" + bytes(20),
    "BUFR": b"BUFR" + bytes(20),
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(20),
    "MIC": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
    "ImageMagick": b"push graphic-context\nviewbox 0 0 8 8\nimage over 0,0 0,0 '|touch hacked'\n",
    "text": b"no picture",
    "nothing": b"",
}
"""Content of formats that are not opened; what Pillow can write of others comes beside."""


def written(name: str) -> bytes | None:
    """Returns a small picture in one of Pillow's formats, if it can write it in some mode."""
    for mode in ("RGB", "L", "1", "P", "RGBA", "F"):
        try:
            return encoded(name, mode)
        except Exception:  # not in this mode, or not at all
            continue
    return None


def others() -> dict[str, bytes]:
    PIL.Image.init()
    unlisted = {*PIL.Image.SAVE} - {*raster.FORMATS, "MPO"}
    made = {name: written(name) for name in sorted(unlisted)}
    # A bitmap without its file's header, and JPEG's successor, are formats of their own.
    return {n: c for n, c in made.items() if c} | SAMPLES


@pytest.mark.parametrize("name", others())
def test_a_format_off_the_list_is_never_opened(tmp_path, name):
    content = others()[name]
    for suffix in ("png", name.split()[0].lower()):
        file = tmp_path / f"x.{suffix}"
        file.write_bytes(content)
        with pytest.raises(ValueError, match="is no picture"):
            Image().parse(str(file))
        assert Image.infer_settings({"file": [str(file)]}) == {}


def test_the_other_formats_were_tried():
    assert len(others()) > 25
    assert {"EPS", "PDF", "ICO", "TGA", "JPEG2000"} <= others().keys()


AVAILABLE = [
    n for n in raster.FORMATS if n not in {"AVIF", "WEBP"} or PIL.features.check(n.lower())
]


@pytest.mark.parametrize("name", [*AVAILABLE, "MPO"])
def test_a_format_on_the_list_is_read_whatever_its_name_says(tmp_path, name):
    rows = np.zeros((8, 12, 3), np.uint8)
    rows[:, :6] = (200, 100, 40)
    extra = {"save_all": True, "append_images": [PIL.Image.new("RGB", (12, 8), "white")]}
    options = {} if name in {"PPM", "BMP", "JPEG"} else extra
    if name in {"JPEG", "MPO"}:
        options |= {"quality": 95, "subsampling": 0}
    if name == "PNG":
        options |= {"default_image": True}
    PIL.Image.fromarray(rows).save(tmp_path / "x.eps", name, **options)
    found = read_picture(str(tmp_path / "x.eps"), (3, 8, 12)).permute(1, 2, 0).numpy()
    near = {"GIF": 40, "WEBP": 25, "AVIF": 25, "JPEG": 6, "MPO": 6}.get(name, 0)
    assert np.abs(found.astype(int) - rows).max() <= near  # the first frame, not the white one


# Limits.


def claiming(name: str, width: int, height: int) -> bytes:  # noqa: PLR0911
    """Returns a small file that says that it holds a large picture."""
    if name == "png":
        return png(8, 2, b"\0" * 100, (width, height))
    if name == "gif":
        gif = bytearray(encoded("GIF", "P"))
        gif[6:10] = struct.pack("<HH", width, height)
        return bytes(gif)
    if name == "bmp":
        bmp = bytearray(encoded("BMP"))
        bmp[18:26] = struct.pack("<ii", width, height)
        return bytes(bmp)
    if name == "ppm":
        return b"P6 %d %d 255\n" % (width, height) + bytes(100)
    if name == "webp":
        more = [PIL.Image.new("RGB", (8, 8), "white")]  # of an animation, frames may be smaller
        webp = bytearray(encoded("WEBP", save_all=True, append_images=more))
        assert webp[12:16] == b"VP8X"
        webp[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        return bytes(webp)
    if name == "jpg":
        jpeg = bytearray(encoded("JPEG"))
        at = jpeg.index(b"\xff\xc0") + 5
        jpeg[at : at + 4] = struct.pack(">HH", height, width)
        return bytes(jpeg)
    assert name == "tif"
    tif = encoded("TIFF")
    for tag, value in ((256, width), (257, height)):
        at = tif.index(struct.pack("<HHI", tag, 4, 1)) + 8
        tif = tif[:at] + struct.pack("<I", value) + tif[at + 4 :]
    return tif


@pytest.mark.parametrize("side", [10_001, 20_000])
@pytest.mark.parametrize("name", ["png", "gif", "bmp", "ppm", "webp", "jpg", "tif"])
def test_too_many_pixels_are_refused_with_the_numbers_before_they_are_decoded(
    tmp_path, monkeypatch, name, side
):
    if name == "webp" and not PIL.features.check("webp"):
        pytest.skip("no WEBP here")
    (tmp_path / "x.png").write_bytes(claiming(name, side, side))
    monkeypatch.setattr(PIL.Image.Image, "load", lambda _: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match=f"{side**2:,} pixels, more than the 100,000,000") as said:
        Image().parse(str(tmp_path / "x.png"))
    assert str(said.value).startswith(repr(str(tmp_path / "x.png")))


def test_a_tile_may_not_be_larger_than_a_picture(tmp_path):
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 322: 65_536, 323: 65_536, 324: 8, 325: 8}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    content = b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4)
    (tmp_path / "x.tif").write_bytes(content)
    with pytest.raises(ValueError, match="tiles of 65,536 × 65,536 = 4,294,967,296 pixels"):
        Image().parse(str(tmp_path / "x.tif"))


def test_too_many_bytes_are_refused_with_the_numbers(tmp_path):
    with (tmp_path / "x.png").open("wb") as file:
        file.write(encoded("PNG"))
        file.truncate(raster.MOST_BYTES + 1)
    with pytest.raises(ValueError, match="268,435,457 bytes, more than the 268,435,456"):
        Image().parse(str(tmp_path / "x.png"))


def test_too_many_scans_are_refused(tmp_path):
    jpeg = encoded("JPEG", "L", (64, 64), progressive=True)
    last = jpeg.rindex(b"\xff\xda")
    (tmp_path / "x.jpg").write_bytes(jpeg[:-2] + jpeg[last:-2] * 100 + jpeg[-2:])
    with pytest.raises(ValueError, match="more than 100 scans"):
        Image().parse(str(tmp_path / "x.jpg"))
    # What follows the picture, such as the film that a phone appends, is no scan.
    (tmp_path / "x.jpg").write_bytes(jpeg + jpeg[last:-2] * 100)
    assert Image().parse(str(tmp_path / "x.jpg")).shape == (1, 28, 28)


def test_threads_hold_no_more_than_the_limit_together():
    budget = raster._Budget(10)
    with budget.lend(6):
        reached = []
        from threading import Thread

        def take(amount):
            with budget.lend(amount):
                reached.append(amount)

        waits, goes = Thread(target=take, args=[5]), Thread(target=take, args=[4])
        waits.start()
        goes.start()
        goes.join(5)
        assert reached == [4]
    waits.join(5)
    assert reached == [4, 5]


def test_metadata_that_points_at_itself_again_and_again_takes_no_memory(tmp_path):
    """A hundred tags of one megabyte each, all of them the same one."""
    import resource

    body = bytes(2**20)
    entries = b"".join(
        struct.pack("<HHII", tag, 1, len(body), 8 + 2 + 12 * 1000 + 4)
        for tag in range(40_000, 41_000)
    )
    exif = b"II*\0\x08\0\0\0" + struct.pack("<H", 1000) + entries + bytes(4) + body
    plain = png(8, 2, b"\0\1\2\3", (1, 1), (b"eXIf", exif))
    (tmp_path / "x.png").write_bytes(plain)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert read_picture(str(tmp_path / "x.png"), (3, 1, 1)).flatten().tolist() == [1, 2, 3]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


@pytest.mark.parametrize("name", AVAILABLE)
def test_a_picture_that_was_cut_off_is_refused_or_read(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    content = io.BytesIO()
    PIL.Image.fromarray(noise).save(content, name)
    whole = content.getvalue()
    for share in range(0, 100, 5):
        (tmp_path / "x").write_bytes(whole[: len(whole) * share // 100])
        assert one_message(tmp_path / "x")
    for share in range(0, 100, 3):  # one byte is wrong
        at = len(whole) * share // 100
        (tmp_path / "x").write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        assert one_message(tmp_path / "x")


def one_message(path: Path) -> bool:
    """Reads what may be a picture, and tells whether it is refused in one line, if at all."""
    try:
        return Image().parse(str(path)).shape == (1, 28, 28)
    except ValueError as error:
        return repr(str(path)) in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_a_picture_without_pixels_is_refused(tmp_path, size):
    (tmp_path / "x.png").write_bytes(png(8, 2, b"", size))
    with pytest.raises(ValueError, match="is no picture"):
        Image().parse(str(tmp_path / "x.png"))


# What is no file.


def test_what_is_no_file_is_refused_at_once(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", tmp_path / "link.png", "/dev/zero", "/dev/tty", tmp_path):
        with pytest.raises(ValueError, match="is no picture"):
            Image().parse(str(path))
    for path in ("", "\0", "a" * 5000, "/proc/self/mem", "\udcff.png"):
        with pytest.raises(ValueError, match="is no picture"):
            Image().parse(path)

    def refused(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(ValueError, match="Permission denied"):
        Image().parse(str(tmp_path / "x.png"))


def test_a_pipe_in_a_table_or_tree_is_one_bad_row(mmgen, tmp_path):
    pets = tmp_path / "pets"
    for name in ("cat", "dog"):
        (pets / name).mkdir(parents=True)
        for i in range(3):
            PIL.Image.new("L", (8, 8), i).save(pets / name / f"{i}.png")
    os.mkfifo(pets / "cat" / "pipe.png")
    (pets / "dog" / "huge.png").write_bytes(claiming("png", 20_000, 20_000))
    code, _, err = mmgen("data", "folder", pets, "--out", tmp_path / "data")
    assert code == 2
    assert "2 of 8 rows cannot be used" in err
    assert "'cat/pipe.png', but a folder or a pipe" in err
    assert "20,000 × 20,000" in err or "400,000,000 pixels" in err
    assert not (tmp_path / "data").exists()
    assert mmgen("data", "folder", pets, "--out", tmp_path / "data", "--skip-bad")[0] == 0


# No process.


AUDITED = """
import os, sys
import torch  # looks for its libraries with ldconfig, whatever is read
FORBIDDEN = ("subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork",
             "os.startfile", "pty.spawn")
def watch(event, args):
    if event.startswith(FORBIDDEN):
        os.write(2, f"A PROCESS: {event} {args}\\n".encode())
        os._exit(99)
sys.addaudithook(watch)
import json
from mmgen.cli.app import main
for words in json.loads(sys.argv[1]):
    sys.argv = ["mmgen", *words]
    try:
        main()
    except SystemExit as stop:
        print("CODE", stop.code or 0)
"""


@pytest.mark.ci
@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_reading_pictures_starts_no_process(tmp_path, trained, every):
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("gs", "gswin64c", "djpeg", "cjpeg", "convert", "xdg-open", "ppmtogif", "sh"):
        (tools / name).write_text(f"#!/bin/sh\n: > {tmp_path}/{name}-ran\n")
        (tools / name).chmod(0o755)
    tree = tmp_path / "tree"
    good = {n: written(n) for n in AVAILABLE}
    hostile = others() | {f"big {n}": claiming(n, 20_000, 20_000) for n in ("png", "gif", "jpg")}
    for group, contents in (("good", good), ("hostile", hostile)):
        (tree / group).mkdir(parents=True)
        for name, content in contents.items():
            (tree / group / f"{name.replace(' ', '-')}.png").write_bytes(content or b"")
    files = sorted(tree.rglob("*.png"))
    table = tmp_path / "table.csv"
    rows = [f"{file.relative_to(tmp_path)},{i % 2}" for i, file in enumerate(files)]
    table.write_text("\n".join(["file,kind", *rows]))
    chosen = {"good/PNG.png", "hostile/EPS.png", "hostile/EPS-in-DOS.png"}
    some = [f for f in files if every or f.relative_to(tree).as_posix() in chosen]
    given = [["generate", str(trained), "--given", f"image={file}", "-n", "1"] for file in some]
    calls = [
        ["data", "folder", str(tree), "--skip-bad", "--out", str(tmp_path / "a")],
        ["data", "table", str(table), "--skip-bad", "--out", str(tmp_path / "b")],
        ["data", "show", str(tmp_path / "a")],
        *given,
    ]
    environ = os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-c", AUDITED, json.dumps(calls)],
        capture_output=True,
        text=True,
        check=False,
        env=environ,
        cwd=tmp_path,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    codes = [line for line in done.stdout.splitlines() if line.startswith("CODE")]
    assert len(codes) == len(calls)
    assert codes[:3] == ["CODE 0"] * 3
    assert codes.count("CODE 2") == (len(hostile) if every else 2)
    assert "Warning" not in done.stderr
    assert [*tmp_path.glob("*-ran"), *tmp_path.rglob("hacked")] == []


def test_the_watch_sees_a_process():
    script = AUDITED + "\nimport subprocess; subprocess.run(['true'])"
    done = subprocess.run(
        [sys.executable, "-c", script, "[]"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 99
    assert "A PROCESS" in done.stderr


def openings(path: Path) -> set[str]:
    """Returns how a file's code opens pictures by itself, whatever it calls the modules."""
    names: dict[str, str] = {}
    found = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {
                a.asname or a.name.split(".")[0]: (a.asname and a.name) or a.name.split(".")[0]
                for a in node.names
            }
        elif isinstance(node, ast.ImportFrom):
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name):
            dotted = ast.unparse(node)
            head, _, rest = dotted.partition(".")
            full = names.get(head, head) + (f".{rest}" if rest else "")
            if full in {"PIL.Image.open", "PIL.ImageFile.Parser"} or full.endswith(
                ("imread", "read_image", "decode_image", "decode_jpeg", "decode_png")
            ):
                found.add(full)
    tops = {name.split(".")[0] for name in names.values()}
    return found | (tops & {"cv2", "imageio", "skimage", "tifffile", "pillow_heif"})


SOURCES = [
    path
    for folder in ("mmgen", "plugins", "examples", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
]


def test_one_place_opens_pictures(tmp_path):
    found = {path.relative_to(ROOT).as_posix(): openings(path) for path in SOURCES}
    assert {p: o for p, o in found.items() if o} == {
        "mmgen/data/raster.py": {"PIL.Image.open"},
        "mmgen/data/crops.py": {"cv2"},  # which looks for faces in what is decoded
    }
    uses = re.findall(r"cv2\.(\w+)", (ROOT / "mmgen/data/crops.py").read_text(encoding="utf-8"))
    assert {*uses} == {"CascadeClassifier", "data", "setNumThreads"}
    for code in (
        "import PIL.Image\nPIL.Image.open(x)",
        "from PIL import Image as I\nI.open(x)",
        "from PIL.Image import open as o\no(x)",
        "import matplotlib.pyplot as plt\nplt.imread(x)",
        "from torchvision.io import read_image\nread_image(x)",
        "import cv2",
    ):
        (tmp_path / "x.py").write_text(code)
        assert openings(tmp_path / "x.py"), code


def test_pillow_is_imported_when_a_picture_is_read(trained):
    script = (
        "import sys, mmgen; run = mmgen.load(sys.argv[1], device='cpu'); "
        "run.generate({'label': 'A'}, ['attributes'], 2); assert 'PIL.Image' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script, str(trained)], check=True)
