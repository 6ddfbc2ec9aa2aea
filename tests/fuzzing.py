"""A fuzzer of the command line: files, settings, options, words and pictures, by a fixed seed.

Whatever is on the command line or on the disk, mmgen ends with 0 or 2, with one message, writes
nothing outside the folder that it was given, starts no process, and takes little memory.

    python tests/fuzzing.py --tries 5000          # all that failed, each with its number
    python tests/fuzzing.py --only 1234           # that one again, with what it printed

Each try depends on the seed and its number alone. A worker process does them one after the other
(:func:`work`); the first process watches its memory and its time, and starts another where a try
killed it.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import random
import resource
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

MEMORY = 4 * 2**30
"""What a worker may hold, in bytes."""

SECONDS = 60
"""What one try may take; the slowest of them train for a moment."""

WORDS = (
    *(
        "",
        " ",
        ".",
        "..",
        "/",
        "~",
        "-",
        "--",
        "-1",
        "--out",
        "-p",
        "a" * 300,
        "é" * 200,
        "x" * 20_000,
    ),
    *("[/x]", "[red]", "[bold]b[/bold]", ":x:", ":warning:", "{x}", "{}", "%s%n", "{{7*7}}", "\\"),
    *("<script>alert(1)</script>", "&amp;", "]]>", "<!--", "$x$", "$\\frac$", "$(touch x)", "`id`"),
    *("\x1b[31mred", "\x1b]0;title\x07", "\x07", "\x08", "\x7f", "\x9b2J", "\u202eabc", "\u2028"),
    *(
        "\udcff",
        "a\udc80b",
        "\ufeff",
        "\u0000" * 0 + "🦊",
        "数字",
        "ﬀ",
        "İ",
        "a\nb",
        "a\r\nb",
        "\t",
    ),
    *(
        "null",
        "None",
        "NaN",
        "nan",
        "true",
        "inf",
        "1e999",
        "__class__",
        "kind",
        "prior",
        "loss",
        "z",
    ),
    *(
        "a,b",
        "a;b",
        "a|b",
        "a=b",
        "a.b",
        "a/b",
        "a+b",
        '"',
        "'",
        '"""',
        "=1+1",
        "@SUM(A1)",
        "#",
        "con",
    ),
    *(
        "label",
        "image",
        "attributes",
        "best",
        "last",
        "cpu",
        "meta",
        "hpu",
        "cuda:99",
        "zero",
        "all",
    ),
    *(
        "/dev/null",
        "/dev/full",
        "/dev/zero",
        "/proc/self/mem",
        "../../../etc/passwd",
        "file:///etc",
    ),
)
NUMBERS = (
    *("0", "-0", "1", "-1", "2", "3", "1.5", "-0.1", "1e-320", "1e308", "1e999", "nan", "-inf"),
    *(str(2**31), str(2**31 - 1), str(2**63), str(2**63 - 1), str(2**64), str(10**30), "9" * 5000),
    *("0x10", "1_000", "٣", "1e3", " 1", "1 ", "+1", "1,5", "10-2", "2-3", "2-20", "1-1000000000"),
)
VALUES = (
    *(None, True, False, 0, -1, 1, 2, 1.5, -0.5, 2**31, 2**63, 2**64, 10**30, 1e308, -5, 99999),
    *(
        "",
        "x",
        [],
        {},
        [[]],
        {"a": {}},
        [1, "a"],
        ["a", "a"],
        [0] * 50,
        "inf",
        "NaN",
        [2**31, 2**31],
    ),
    *([-1], [0], [None], {"kind": "image"}, "../../x", "\x1b[31m", "[/x]", "\ud800"),
)


@dataclass
class World:
    """What tries are made of: healthy files, which are copied before they are harmed.

    Attributes:
        root: Holds everything.
        rng: Of the current try.
    """

    root: Path
    rng: random.Random = field(default_factory=random.Random)

    @property
    def scratch(self) -> Path:
        """The one folder in which a try may write."""
        return self.root / "scratch"

    @property
    def run(self) -> Path:
        """A healthy run."""
        return self.root / "run"

    @property
    def data(self) -> Path:
        """A healthy data set of a picture, a class, attributes and measurements."""
        return self.root / "data"

    def copy(self, what: Path) -> Path:
        """Copies a folder into the scratch."""
        return Path(shutil.copytree(what, self.scratch / what.name))

    def word(self) -> str:
        """Returns a hostile word."""
        return self.rng.choice(WORDS)

    def some(self) -> str:
        """Returns a word that may be an option's value: hostile, a number, or a file's name."""
        sort = self.rng.random()
        if sort < 0.35:
            return self.word()
        if sort < 0.75:
            return self.rng.choice(NUMBERS)
        if sort < 0.9:
            return str(
                self.scratch / self.rng.choice(("new", "a.png", "a.csv", "a/b.json", "x.tex"))
            )
        return str(self.rng.choice((self.run, self.data, self.root / "table.csv")))


def build(world: World) -> None:
    """Makes the healthy files."""
    import numpy as np
    import PIL.Image

    rng = np.random.default_rng(0)
    pictures = world.root / "pictures"
    pictures.mkdir(parents=True)
    lines = ["picture,digit,bold,italic,size,weight"]
    for row in range(60):
        grey = (rng.random((8, 8)) * 80 + 150 * (row % 3 == 0)).astype("uint8")
        PIL.Image.fromarray(grey).save(pictures / f"{row}.png")
        size = f"{rng.normal():.3f},{rng.normal() + row % 3:.3f}"
        lines.append(f"pictures/{row}.png,{'abc'[row % 3]},{row % 2},{row % 3 % 2},{size}")
    (world.root / "table.csv").write_text("\n".join(lines) + "\n")
    for name in "ab":
        (world.root / "tree" / name).mkdir(parents=True)
        for row in range(4):
            shutil.copy(pictures / f"{row}.png", world.root / "tree" / name)
    nets = "".join(
        f"[modalities.{name}]\nencoder_widths = [8]\ndecoder_widths = [8]\n"
        for name in ("image", "digit", "attributes", "vector")
    )
    (world.root / "config.toml").write_text(
        '[data]\npath = "data"\n[model]\nkind = "jmvae-kl"\nlatent = 4\n'
        f"[train]\nepochs = 1\nbatch_size = 16\n{nets}"
    )
    root = str(world.root)
    for words in (
        ["data", "table", f"{root}/table.csv", "--out", str(world.data)],
        ["train", f"{root}/config.toml", "--out", str(world.run)],
    ):
        code, printed = call(words)
        if code:
            raise RuntimeError(f"mmgen {' '.join(words)}: {printed}")
    index = (world.data / "dataset.json").read_text()
    assert json.loads(sealed(index)) == json.loads(index), "a seal is made in another way now"
    world.scratch.mkdir()


# The tries. Each returns the words of the command line.


def files(world: World) -> list[str]:
    """Harms one file of a run or a data set, and uses it."""
    rng = world.rng
    if rng.random() < 0.65:
        folder = world.copy(world.run)
        words = rng.choice((
            ["generate", "RUN", "--given", "digit=a", "-n", "2"],
            ["generate", "RUN", "--weights", "last"],
            ["train", "RUN", "--resume", "train.epochs=2", "--no-figures"],
            ["train", "RUN", "--resume", "--dry-run"],
            ["evaluate", "RUN", "--rows", "4", "--samples", "1", "--importance", "2"],
            ["report", "RUN"],
            ["train", "RUN/experiment.json", "--dry-run"],
        ))  # fmt: skip
    else:
        folder = world.copy(world.data)
        words = rng.choice((
            ["data", "show", "RUN"],
            ["data", "show", "RUN", "--verify"],
            ["train", f"{world.root}/config.toml", "--data", "RUN", "--dry-run"],
            ["train", f"{world.root}/config.toml", "--data", "RUN", "--out", "OUT", "--no-figures"],
            ["evaluate", str(world.run), "--data", "RUN", "--rows", "4", "--importance", "2"],
            ["report", str(world.run), "--data", "RUN", "--out", "OUT.html"],
        ))  # fmt: skip
    kept = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.suffix != ".png"]
    # Reports and locks are written, not read: the others come first.
    kept = [p for p in kept if p.suffix in (".json", ".jsonl", ".safetensors")] * 4 + kept
    harm(rng, rng.choice(kept))
    out = str(world.scratch / "out")
    return [word.replace("RUN", str(folder)).replace("OUT", out) for word in words]


def harm(rng: random.Random, file: Path) -> None:
    """Damages a file: its bytes, its structure, or what it is."""
    sort = rng.random()
    content = file.read_bytes()
    if sort < 0.15:
        file.unlink()
        rng.choice((
            lambda: os.mkfifo(file),
            file.mkdir,
            lambda: file.symlink_to(file.name),
            lambda: file.symlink_to("nowhere"),
            lambda: file.symlink_to("/dev/zero"),
            lambda: None,
        ))()  # fmt: skip
    elif sort < 0.4 or not content:
        file.write_bytes(damaged(rng, content))
    elif file.suffix == ".safetensors":
        file.write_bytes(other_header(rng, content))
    elif file.suffix == ".jsonl":
        lines = content.decode().splitlines()
        lines[rng.randrange(len(lines))] = other_json(rng, lines[0])
        file.write_text("\n".join(lines) + "\n", errors="surrogatepass")
    elif file.suffix == ".json":
        text = other_json(rng, content.decode())
        if file.name == "dataset.json" and rng.random() < 0.8:
            text = sealed(text)
        file.write_text(text, errors="surrogatepass")
    else:
        file.write_bytes(damaged(rng, content))


def damaged(rng: random.Random, content: bytes) -> bytes:
    """Cuts, flips, repeats or replaces bytes."""
    sort, size = rng.randrange(7), len(content)
    if sort == 0:
        return content[: rng.randrange(size + 1)]
    if sort == 1:
        many = bytearray(content)
        for _ in range(rng.choice((1, 1, 8, 100))):
            if many:
                many[rng.randrange(size)] = rng.randrange(256)
        return bytes(many)
    if sort == 2:
        at = rng.randrange(size + 1)
        return content[:at] + rng.randbytes(rng.randrange(1, 50)) + content[at:]
    if sort == 3:
        return rng.randbytes(rng.randrange(200))
    if sort == 4:
        return content * 2
    if sort == 5:
        return rng.choice((b"[", b'{"a":')) * 100_000
    return b"\xff\xfe" + content


def other_json(rng: random.Random, text: str) -> str:
    """Changes one value, key or number somewhere in a JSON text."""
    try:
        tree = json.loads(text)
    except ValueError:
        return text
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key in node if isinstance(node, dict) else range(len(node)):
            places.append((node, key))
            if isinstance(node[key], dict | list):
                walk(node[key])

    if isinstance(tree, dict | list):
        walk(tree)
    if not places:
        return text
    for _ in range(rng.choice((1, 1, 1, 3))):
        node, key = rng.choice(places)
        sort = rng.random()
        if sort < 0.7 or isinstance(node, list):
            with contextlib.suppress(KeyError, IndexError):
                node[key] = rng.choice(VALUES)
        elif sort < 0.85:
            node.pop(key, None)
        else:
            node[rng.choice(WORDS)] = node.get(key)
    text = json.dumps(tree, indent=2, ensure_ascii=False)
    return text.replace("99999", "9" * 5000) if rng.random() < 0.05 else text


def sealed(text: str) -> str:
    """Gives a data set's index the hash that fits its content, as one who means harm would."""
    raw = json.loads(text)
    if isinstance(raw, dict):
        content = {key: raw.get(key) for key in ("format_version", "modalities", "splits")}
        raw["hash"] = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return json.dumps(raw)


def other_header(rng: random.Random, content: bytes) -> bytes:
    """Changes the header of a safetensors file; its tensors stay as they are."""
    size = struct.unpack("<Q", content[:8])[0]
    header = other_json(rng, content[8 : 8 + size].decode())
    if rng.random() < 0.5 and "__metadata__" in header:  # mmgen's own counters lie deeper
        with contextlib.suppress(ValueError):  # what it was changed to need not be JSON
            tree = json.loads(header)
            meta = tree.get("__metadata__")
            for key, value in (meta if isinstance(meta, dict) else {}).items():
                if isinstance(value, str):
                    meta[key] = other_json(rng, value)
            header = json.dumps(tree)
    raw = header.encode(errors="surrogatepass")
    length = len(raw) if rng.random() < 0.9 else rng.choice((0, 2**40, 2**63, size - 1))
    return struct.pack("<Q", length) + raw + content[8 + size :]


def settings(world: World) -> list[str]:
    """Overrides settings of a healthy configuration."""
    from mmgen import build
    from mmgen.settings import FolderConfig, SyntheticConfig, TrainConfig

    rng = world.rng
    models = build.registry().models
    model = sorted({field for cls in models.values() for field in cls.Settings.model_fields})
    sections = {
        "train": [*TrainConfig.model_fields],
        "model": model,
        "data": [*FolderConfig.model_fields, *SyntheticConfig.model_fields],
        **dict.fromkeys(
            (f"modalities.{n}" for n in ("image", "digit", "attributes", "vector", "other")),
            ["kind", "height", "width", "channels", "net", "likelihood", "classes", "names", "mean",
             "encoder_widths", "decoder_widths", "standard_deviation", "convolution_channels",
             "binarise"],
        ),
    }  # fmt: skip
    words = ["train", str(world.root / "config.toml")]
    for _ in range(rng.choice((1, 1, 2, 3))):
        section = rng.choice([*sections])
        key = rng.choice(sections[section])
        if rng.random() < 0.1:
            key = world.word()
        value = rng.choice((
            lambda: rng.choice(NUMBERS),
            lambda: rng.choice(WORDS),
            lambda: json.dumps(rng.choice(VALUES)),
            lambda: f"[{rng.choice(NUMBERS)}, {rng.choice(NUMBERS)}]",
            lambda: json.dumps([rng.choice(WORDS)]),
            lambda: rng.choice((*models, "none", "single", "flow", "convolution", "cosine")),
        ))()  # fmt: skip
        words.append(f"{section}.{key}={value}" if rng.random() < 0.97 else world.word())
    # A training that is asked for in earnest has one epoch, on few rows: only a setting makes more.
    earnest = rng.random() < 0.3 and not any("epochs" in word for word in words)
    out = ["--out", str(world.scratch / "out"), "--no-figures"]
    return [*words, *(out if earnest else ["--dry-run"])]


def options(world: World) -> list[str]:
    """Takes a command, and gives its options and arguments values that were not meant for them."""
    rng = world.rng
    # coherence reads as evaluate does, and may train a classifier for minutes.
    path, command = rng.choice([each for each in commands() if each[0] != ["coherence"]])
    words = [*path]
    if rng.random() < 0.1:
        words = [rng.choice(("-p", "--debug", "--version", world.word())), world.some(), *words]
    healthy = {
        "run": world.run,
        "config": world.root / "config.toml",
        "source": world.root / "table.csv",
        "root": world.root / "table.csv",
        "folder": world.data,
        "name": "label",
        "data": world.data,
    }
    if path[-1] == "folder":
        healthy["source"] = world.root / "tree"
    for parameter in command.params:
        if parameter.param_type_name == "argument":
            sound = rng.random() < 0.8 and parameter.name in healthy
            if sound or parameter.required or rng.random() < 0.2:
                words.append(str(healthy[parameter.name]) if sound else world.some())
        elif parameter.name in ("download", "help", "jobs"):
            continue  # the network; no try; processes
        elif parameter.required or rng.random() < 0.3:
            name = rng.choice([*parameter.opts, *parameter.secondary_opts])
            if getattr(parameter, "is_flag", False):
                words.append(name)
            elif parameter.name in ("out", "file"):  # a healthy file named here would be replaced
                there = str(world.scratch / rng.choice(("out", "a.png", "a.csv", "a.md")))
                words += [name, there if rng.random() < 0.7 else world.word()]
            elif parameter.name == "given" and rng.random() < 0.7:
                words += [name, f"{rng.choice(('digit', 'image', 'vector'))}={world.some()}"]
            elif path[0] == "reproduce" and parameter.name == "data":
                words += [name, world.word()]  # of a healthy one, trainings would start
            else:
                words += [name, world.some()]
    if path[-1] == "glyphs" and "--train" not in words:
        words += ["--train", "8", "--validation", "0", "--test", "0"]
    if path[-1] in ("mnist", "fashion-mnist", "kmnist", "glyphs", "new", "table", "folder", "init"):
        return confined(world, words)
    if path[0] == "train" and "--dry-run" not in words:
        return confined(world, [*words, "train.epochs=1", "--no-figures"])
    if path[0] == "report":
        return confined(world, words)
    return words


def confined(world: World, words: list[str]) -> list[str]:
    """Lets a command that writes do so in the scratch."""
    if not {"--out", "-o"} & {*words}:
        words = [*words, "--out", str(world.scratch / "out")]
    return words


def commands() -> Iterator[tuple[list[str], Any]]:
    """Yields every command of the command line, with the words that name it."""
    import typer
    from typer.core import TyperGroup
    from typer.main import get_command

    from mmgen.cli.app import app

    def walk(words: list[str], command: Any) -> Iterator[tuple[list[str], Any]]:
        below = {}
        if isinstance(command, TyperGroup):  # plugins add commands, which are loaded when typed
            context = typer.Context(command)
            names = command.list_commands(context)
            below = {name: command.resolve_command(context, [name])[1] for name in names}
        for name in sorted(below):
            yield from walk([*words, name], below[name])
        if words and (not below or getattr(command, "invoke_without_command", False)):
            yield words, command

    yield from walk([], get_command(app))


def words(world: World) -> list[str]:
    """Writes hostile words into a table, a configuration or the command line."""
    rng = world.rng
    sort = rng.random()
    out = str(world.scratch / "out")
    if sort < 0.45:
        table = world.scratch / "table.csv"
        lines = (world.root / "table.csv").read_text().splitlines()[: rng.choice((61, 30, 3, 1))]
        cells = [line.split(",") for line in lines]
        for _ in range(rng.choice((1, 5, 40))):
            row = rng.randrange(len(cells)) if rng.random() < 0.7 else 0
            cells[row][rng.randrange(6)] = rng.choice((world.word, world.some))()
        if rng.random() < 0.3:  # classes of hostile words
            a, b = world.word(), world.word()
            for number, row in enumerate(cells[1:]):
                row[1] = (a, b)[number % 2]
        quoted = rng.random() < 0.8
        text = "\n".join(",".join(quote(cell) if quoted else cell for cell in row) for row in cells)
        table.write_bytes(text.encode(errors="surrogateescape"))
        shutil.copytree(world.root / "pictures", world.scratch / "pictures")
        skip = ["--skip-bad"] if rng.random() < 0.7 else []
        return ["data", "table", str(table), "--out", out, *skip]
    if sort < 0.6:
        folder = world.scratch / "tree"
        shutil.copytree(world.root / "tree", folder)
        for _ in range(rng.choice((1, 2))):
            name = world.word().replace("/", "_").replace("\0", "") or "_"
            with contextlib.suppress(OSError):
                (folder / "a").rename(folder / name)
        return ["data", "folder", str(folder), "--out", out]
    if sort < 0.8:
        config = world.scratch / "config.toml"
        text = (
            (world.root / "config.toml").read_text().replace('"data"', json.dumps(str(world.data)))
        )
        lines = text.splitlines()
        for _ in range(rng.choice((1, 2))):
            lines.insert(rng.randrange(len(lines)), rng.choice((
                lambda: f"name = {json.dumps(world.word())}",
                lambda: f"{json.dumps(world.word())} = {json.dumps(rng.choice(VALUES))}",
                lambda: f"[{world.word()}]",
                lambda: f"[modalities.{json.dumps(world.word())}]",
                world.word,
                lambda: "a = " + "[" * 5000,
            ))())  # fmt: skip
        config.write_text("\n".join(lines), errors="surrogateescape")
        return ["train", str(config), "--dry-run"]
    given = rng.choice(("digit", "image", "attributes", "vector", world.word()))
    words = ["generate", str(world.run), "-n", "2", "--given", f"{given}={world.some()}"]
    return [*words, "--targets", world.word()] if rng.random() < 0.3 else words


def quote(cell: str) -> str:
    """Writes a cell of a table in quotes."""
    return '"' + cell.replace('"', '""') + '"'


def pictures(world: World) -> list[str]:
    """Writes a damaged or foreign picture, and reads it."""
    rng = world.rng
    folder = world.scratch / "tree" / "a"
    shutil.copytree(world.root / "tree", folder.parent)
    file = folder / f"evil{rng.choice(('.png', '.jpg', '.tif', '.gif', '.webp', '.bmp', '.ppm'))}"
    content = picture(rng)
    if content is not None:
        file.write_bytes(content)
    else:
        rng.choice((
            lambda: os.mkfifo(file),
            file.mkdir,
            lambda: file.symlink_to("/dev/zero"),
            lambda: file.symlink_to(file.name),
            file.touch,
        ))()  # fmt: skip
    if rng.random() < 0.5:
        return ["generate", str(world.run), "-n", "1", "--given", f"image={file}"]
    skip = ["--skip-bad"] if rng.random() < 0.6 else []
    return ["data", "folder", str(folder.parent), "--out", str(world.scratch / "out"), *skip]


def picture(rng: random.Random) -> bytes | None:
    """Makes the content of a picture's file; ``None`` for one that is no file."""
    import PIL.Image

    sort = rng.random()
    if sort < 0.12:
        return None
    if sort < 0.3:  # what programs are hidden in, and what unpacks to much
        return rng.choice((
            lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) print {} loop\n",
            lambda: b"%PDF-1.4\n",
            lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><script/></svg>",
            lambda: png(rng.choice((1, 13_000, 20_000, 2**31 - 1)), rng.choice((13_000, 2**31 - 1))),
            lambda: png(4, 4, text=b"zTXt" + b"a\0\0" + zlib.compress(b"\0" * 10**7)),
            lambda: b"P5 100000 100000 255\n",
            lambda: b"P6\n4 4\n255\n" + b"\0" * 47,
            lambda: b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0" * 40,
            lambda: b"BM" + struct.pack("<IIIIiiHHI", 99, 0, 54, 40, 60_000, 60_000, 1, 24, 0),
            lambda: b"\x89PNG\r\n\x1a\n",
            lambda: b"II*\0\x08\0\0\0" + b"\xff" * 40,
        ))()  # fmt: skip
    mode = rng.choice(
        ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I", "I;16", "F", "YCbCr", "LAB")
    )
    made = PIL.Image.new(mode, (rng.randrange(1, 40), rng.randrange(1, 40)))
    kind = rng.choice(("PNG", "JPEG", "TIFF", "GIF", "BMP", "WEBP", "PPM", "ICO", "TGA", "PCX",
                       "SGI", "EPS", "PDF", "DDS", "ICNS", "IM", "MSP", "SPIDER", "XBM", "JPEG2000"))  # fmt: skip
    out = io.BytesIO()
    try:
        made.save(out, kind)
    except (OSError, ValueError, KeyError, TypeError):
        made.convert("RGB").resize((16, 16)).save(out, "PNG")
    content = out.getvalue()
    return content if rng.random() < 0.4 else damaged(rng, content)


def png(width: int, height: int, text: bytes = b"") -> bytes:
    """Makes a PNG that says it is so large, with next to nothing in it."""

    def chunk(content: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(content))
        return struct.pack(">I", len(content) - 4) + content + crc

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * 100_000)
    parts = [b"IHDR" + head, *([text] if text else []), b"IDAT" + rows, b"IEND"]
    return b"\x89PNG\r\n\x1a\n" + b"".join(map(chunk, parts))


KINDS: tuple[Callable[[World], list[str]], ...] = (files, settings, options, words, pictures)


# The worker.


def call(words: list[str]) -> tuple[int, str]:
    """Runs the command line in this process: exit code, and all that it printed."""
    from mmgen.cli import app

    out = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    before = sys.argv, sys.stdout, sys.stderr
    sys.argv, sys.stdout, sys.stderr = ["mmgen", *words], out, out
    try:
        app.main()
        code: Any = 0
    except SystemExit as stop:
        code = stop.code if stop.code is not None else 0
    except BaseException:
        code = "raised\n" + traceback.format_exc()
    finally:
        sys.argv, sys.stdout, sys.stderr = before
    out.flush()
    printed = out.buffer.getvalue().decode(errors="replace")
    return (code, printed) if isinstance(code, int) else (1, f"{printed}{code}")


class Guard:
    """Watches, while it is on, what this process writes and starts."""

    def __init__(self, world: World) -> None:
        self.world, self.on = world, False
        self.broken: list[str] = []
        cache = os.environ.get("TMPDIR", "/nowhere") + os.sep
        self.free = (str(world.scratch) + os.sep, cache, "/dev/null", "/dev/full")
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "open":
            path, _, flags = arguments
            if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                self._check(event, path)
        elif event in ("os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.chmod", "os.chown"):
            self._check(event, arguments[0])
        elif event in ("os.rename", "os.link", "os.symlink"):
            self._check(event, arguments[1])
        elif event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork",
                       "os.forkpty", "os.startfile", "pty.spawn", "socket.connect"):  # fmt: skip
            self.broken.append(f"{event}: {arguments!r:.300}")

    def _check(self, event: str, path: Any) -> None:
        if isinstance(path, str | bytes | os.PathLike):
            # Opening a folder to write fails; a lock may lie in a run that is only read.
            real = os.path.join(os.path.realpath(os.path.dirname(os.fsdecode(path))), "")
            whole = real + os.path.basename(os.fsdecode(path))
            if not whole.startswith(self.free) and whole + os.sep not in self.free[:2]:
                self.broken.append(f"{event} outside: {whole}")


def work(root: Path, seed: int, numbers: range, note: Path, loud: bool) -> None:
    """Does tries one after the other; each failure, and the number begun last, go to ``note``."""
    sys.dont_write_bytecode = True
    import torch

    torch.set_num_threads(1)
    world = World(root)
    if not world.run.exists():
        build(world)
    import PIL.Image

    PIL.Image.init()
    guard = Guard(world)
    os.chdir(world.scratch)
    outside = listing(world)
    parent = os.getppid()
    with note.open("a", buffering=1) as journal:
        for number in numbers:
            if os.getppid() != parent:
                return  # the first process was killed
            world.rng = random.Random(f"{seed}/{number}")
            kind = KINDS[number % len(KINDS)]
            words = [word.replace("\0", "") for word in kind(world)]
            journal.write(json.dumps([number, kind.__name__, words]) + "\n")
            guard.broken.clear()
            state = mmgen_state()
            started, guard.on = time.perf_counter(), True
            code, printed = call(words)
            guard.on = False
            seconds = time.perf_counter() - started
            faults = [*judged(code, printed), *guard.broken]
            if seconds > SECONDS * 2 / 3:
                faults.append(f"took {seconds:.0f} s")
            if mmgen_state() != state:
                faults.append(f"left behind: {state} became {mmgen_state()}")
            if children := psutil.Process().children():
                faults.append(f"processes left: {children}")
            if (now := listing(world)) != outside:
                faults.append(f"changed outside: {sorted(now ^ outside)[:5]}")
                outside = now
            if loud:
                print(f"{number} mmgen {words!r}\n{printed}\nexit code {code}, {seconds:.1f} s")
            if faults:
                fault = {"number": number, "kind": kind.__name__, "words": words, "faults": faults}
                journal.write(
                    json.dumps({**fault, "code": code, "printed": printed[-3000:]}) + "\n"
                )
            for left in world.scratch.iterdir():
                shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        journal.write(json.dumps({"peak": peak}) + "\n")


def judged(code: int, printed: str) -> list[str]:
    """Says what is wrong with how a command ended."""
    faults = []
    if code not in (0, 2):
        faults.append(f"exit code {code}")
    if any(line.startswith("Traceback (most recent") for line in printed.splitlines()):
        faults.append("a traceback")
    errors = sum(line.startswith("error:") for line in printed.splitlines())
    if code == 2 and errors != 1 and "the contract is broken" not in printed:
        faults.append(f"{errors} messages")
    if code == 0 and errors:
        faults.append("an error, but exit code 0")
    if len(printed) > 200_000:
        faults.append(f"{len(printed):,} letters printed")
    steering = {c for c in printed if (c < " " and c not in "\n\t") or "\x7f" <= c <= "\x9f"}
    if steering:
        faults.append(f"raw control characters {steering!r}")
    return faults


def mmgen_state() -> tuple[Any, ...]:
    """Returns what a command must leave as it was."""
    import torch

    return (
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
        os.getcwd(),
        sys.getrecursionlimit(),
    )


def listing(world: World) -> set[tuple[str, int, int]]:
    """Returns what lies outside the scratch: names, sizes and times."""
    found = set()
    for where, folders, names in os.walk(world.root):
        if where == str(world.root):
            folders.remove("scratch")
        for name in (*folders, *names):
            path = os.path.join(where, name)
            state = os.lstat(path)
            # A reader may take a run's lock, whose times then change.
            times = 0 if name in folders or name == ".lock" else state.st_mtime_ns
            found.add((path, state.st_size if times else 0, times))
    return found


# The first process.


@dataclass
class Outcome:
    """What came of the tries.

    Attributes:
        tries: How many were done.
        faults: What went wrong, a dictionary each.
        peak: The most memory that a worker held, in bytes.
    """

    tries: int
    faults: list[dict[str, Any]]
    peak: int


def fuzz(seed: int, numbers: range, seconds: float = float("inf"), loud: bool = False) -> Outcome:
    """Does tries in worker processes until all, or the time, are over."""
    faults: list[dict[str, Any]] = []
    peak = done = 0
    ends = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="mmgen-fuzz-") as folder:
        (Path(folder) / "cache").mkdir()  # where Python and matplotlib keep what is theirs
        left = numbers
        note = Path(folder) / "note"
        while left and time.monotonic() < ends:
            note.write_text("")
            root = Path(folder) / "world"
            shutil.rmtree(root / "scratch", ignore_errors=True)
            if root.exists():
                (root / "scratch").mkdir()
            worker = subprocess.Popen(
                [sys.executable, __file__, "--work", str(root), "--seed", str(seed), "--note",
                 str(note), "--first", str(left.start), "--tries", str(len(left)),
                 *(["--loud"] if loud else [])],
                stdin=subprocess.DEVNULL,
                env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": f"{folder}/cache", "MPLCONFIGDIR": f"{folder}/cache"},
            )  # fmt: skip
            cause, held = watch(worker, note, ends)
            peak = max(peak, held)
            begun = [left.start - 1, "", []]
            for line in note.read_text().splitlines():
                record = json.loads(line)
                if isinstance(record, list):
                    begun = record
                elif "peak" in record:
                    peak = max(peak, record["peak"])
                else:
                    faults.append(record)
            last, kind, words = begun
            done += last + 1 - left.start
            if last < left.start:
                raise RuntimeError(f"the fuzzer itself failed: {cause}")
            if cause:
                faults.append({"number": last, "kind": kind, "words": words, "faults": [cause]})
            left = range(last + 1, left.stop)
            if worker.returncode == 0 or cause == "":
                break
    return Outcome(done, faults, peak)


def watch(worker: "subprocess.Popen[bytes]", note: Path, ends: float) -> tuple[str, int]:
    """Waits for a worker; kills it if it hangs or takes too much. Returns why, and its memory."""
    process, held = psutil.Process(worker.pid), 0
    last, since = "", time.monotonic()
    while worker.poll() is None:
        time.sleep(0.1)
        with contextlib.suppress(psutil.Error):
            held = max(held, process.memory_info().rss)
        now = note.read_text()[-4000:]
        if now != last:
            last, since = now, time.monotonic()
        cause = ""
        if held > MEMORY:
            cause = f"took {held / 2**30:.1f} GiB"
        elif time.monotonic() - since > (SECONDS if last else 4 * SECONDS):
            cause = f"did not end in {SECONDS} s"
        if cause or time.monotonic() > ends:
            with contextlib.suppress(psutil.Error):
                for child in process.children(recursive=True):
                    child.kill()
            worker.kill()
            worker.wait()
            return cause, held
    return ("" if worker.returncode == 0 else f"the process ended with {worker.returncode}"), held


def main() -> None:
    """Runs the fuzzer by hand."""
    parser = argparse.ArgumentParser(description="Fuzzes the command line.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--tries", type=int, default=200)
    parser.add_argument("--only", type=int)
    parser.add_argument("--loud", action="store_true")
    parser.add_argument("--work", type=Path)
    parser.add_argument("--note", type=Path)
    asked = parser.parse_args()
    numbers = range(asked.first, asked.first + asked.tries)
    if asked.only is not None:
        numbers = range(asked.only, asked.only + 1)
    if asked.work:
        work(asked.work, asked.seed, numbers, asked.note, asked.loud)
        return
    started = time.monotonic()
    outcome = fuzz(asked.seed, numbers, loud=asked.loud or asked.only is not None)
    for fault in outcome.faults:
        print(json.dumps(fault, indent=1, ensure_ascii=False))
    print(
        f"{outcome.tries} tries, {len(outcome.faults)} failed, "
        f"{time.monotonic() - started:.0f} s, peak {outcome.peak / 2**30:.2f} GiB"
    )
    raise SystemExit(bool(outcome.faults))


if __name__ == "__main__":
    main()
