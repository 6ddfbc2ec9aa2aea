"""``dataset.json``: what a data set's folder holds, with the hash of every part."""

import hashlib
import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from mmgen.brief import OneLine
from mmgen.errors import DataError

INDEX = "dataset.json"
FORMAT_VERSION = 1


class _Record(OneLine, BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ShardRecord(_Record):
    """One safetensors file of a split."""

    # A plain name: an index from elsewhere must not reach outside its folder.
    file: str = Field(pattern=r"^[\w-]+\.safetensors$")
    count: int = Field(gt=0)
    sha256: str


class SplitRecord(_Record):
    """The rows of one split and the files that hold them, in order."""

    count: int = Field(gt=0)
    shards: list[ShardRecord] = Field(min_length=1)


class Index(_Record):
    """All of ``dataset.json``."""

    format: Literal["mmgen dataset"] = "mmgen dataset"
    format_version: int = FORMAT_VERSION
    name: str
    about: str
    modalities: dict[str, dict[str, JsonValue]] = Field(min_length=1)
    splits: dict[str, SplitRecord] = Field(min_length=1)
    hash: str = ""

    def content_hash(self) -> str:
        """Returns the SHA-256 over all but name and about, which anyone may reword."""
        content = self.model_dump(mode="json", include={"format_version", "modalities", "splits"})
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def write(self, folder: Path) -> None:
        """Writes the index with its content hash into ``folder``."""
        sealed = self.model_copy(update={"hash": self.content_hash()})
        text = sealed.model_dump_json(indent=2) + "\n"
        (folder / INDEX).write_text(text, encoding="utf-8")


def read_index(path: Path) -> Index:
    """Reads and checks the index of the data set at ``path``.

    Raises:
        DataError: If the folder or the index is missing, damaged, of a foreign version, or was
            changed after it was written.
    """
    file = path / INDEX
    if not path.is_dir():
        raise DataError(f"no data set at {path}: there is no such folder; `mmgen data` writes one")
    if not file.is_file():
        raise DataError(f"no data set at {path}: it holds no {INDEX}; `mmgen data` writes one")
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        if raw["format_version"] != FORMAT_VERSION:
            raise DataError(
                f"{file} has format version {raw['format_version']!r}; this mmgen reads version "
                f"{FORMAT_VERSION}: write the data set again, or use the mmgen that wrote it"
            )
        index = Index.model_validate(raw)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} is damaged ({_cause(error)}); write the data set again") from error
    if index.hash != index.content_hash():
        raise DataError(
            f"{file} was changed after it was written: its hash does not match; "
            "write the data set again"
        )
    return index


def file_hash(file: Path) -> str:
    """Returns the SHA-256 of a file's bytes."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _cause(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return f"{type(error).__name__}: {error}"
