"""Reports of small runs, parsed, after every check that any page must pass."""

import math
import re
from html.parser import HTMLParser

import toys

from mmgen.experiment import Experiment
from mmgen.gallery import write_report
from mmgen.training import session

VOID = {"meta", "img", "br", "link"}

NETS = {"encoder_widths": [8], "decoder_widths": [8]}
PICTURE = {"kind": "image", "height": 6, "width": 6, "net": "mlp"}


class Page(HTMLParser):
    """A parsed report: checks nesting while it reads."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.ids, self.words = [], [], [], []
        self.inside = {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs, [t for t, _ in self.open]))
        self.ids += [attrs["id"]] if "id" in attrs else []
        if tag not in VOID:
            self.open.append((tag, len(self.tags) - 1))

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs), [t for t, _ in self.open]))

    def handle_endtag(self, tag):
        opened, _ = self.open.pop()
        assert opened == tag, f"</{tag}> closes <{opened}>"

    def handle_data(self, data):
        if data.strip() and "style" not in [t for t, _ in self.open]:
            self.words.append(data.strip())
            for _, number_of in self.open:
                self.inside[number_of] = self.inside.get(number_of, "") + data

    def all(self, name):
        return [attrs for tag, attrs, _ in self.tags if tag == name]

    def text_in(self, name):
        return [
            self.inside.get(i, "").strip() for i, (t, _, _) in enumerate(self.tags) if t == name
        ]

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())


def checked(text):
    """Parses a page after it passed everything that any page must."""
    page = Page(text)
    assert page.all("script") == []
    assert len(set(page.ids)) == len(page.ids)
    assert all(re.fullmatch(r"[a-z][a-z0-9-]*", each) for each in page.ids)
    for tag, attrs, parents in page.tags:
        for key in ("src", "href", "xlink:href", "action", "srcset", "data"):
            assert attrs.get(key, "#").startswith(("#", "data:image/png;base64,")), attrs[key]
        if tag == "a":
            assert attrs["href"][1:] in page.ids
        if "aria-labelledby" in attrs:
            assert attrs["aria-labelledby"] in page.ids
        if tag == "img":
            assert attrs["alt"].strip()
            assert "figure" in parents
            assert int(attrs["width"]) > 0
        for key in ("x", "y", "cx", "cy", "r", "width", "height"):
            assert math.isfinite(float(attrs.get(key, "0")))
        for value in attrs.get("points", "").replace(",", " ").split():
            assert math.isfinite(float(value))
    assert not re.search(r"url\(|@import|https?:", text.split("</style>")[0])
    for name in ("figcaption", "section", "title", "h1", "h2", "h3", "table", "caption", "tbody"):
        assert all(page.text_in(name)), f"an empty {name}"
    assert len(page.text_in("title")) == 1 + len(page.all("svg"))
    assert len(page.text_in("figcaption")) == len(page.all("figure"))
    for count in ("dl", "ul"):
        assert all(page.text_in(count))
    assert not re.search(r"\b(nan|inf|infinity|None|Undefined)\b", page.text)
    return page


def report(run, **options):
    """Writes the report of a run and parses it."""
    return checked(write_report(run, device="cpu", **options).read_text(encoding="utf-8"))


def small_settings(kind, names):
    return toys.small_settings(kind, names) if kind in toys.KINDS else {"latent": 3}


def train(path, kind, modalities, plugins=(), epochs=1, name="toys", rows=60, **model):
    """Trains a small run on synthetic data."""
    table = {
        "name": name,
        "data": {"source": "synthetic", "rows": rows, "classes": 3},
        "modalities": modalities,
        "model": {"kind": kind, **(small_settings(kind, modalities) | model)},
        "train": {"epochs": epochs, "batch_size": 20, "learning_rate": 3e-3, "device": "cpu"},
    }
    prepared = session.prepare(Experiment.checked(table, "test"), plugins)
    session.start(prepared, path)
    list(session.train(prepared, path))
    return path


def pictures(**more):
    """Settings of a picture and a word, and of more modalities."""
    word = {"kind": "label", "classes": ["one", "two", "three"], **NETS}
    return {"picture": {**PICTURE, **NETS}, "word": word, **more}
