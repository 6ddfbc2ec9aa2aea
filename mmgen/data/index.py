"""``dataset.json``: a record of what a data set's folder holds, with the hash of every part."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, field_validator, model_validator

from mmgen.brief import OneLine
from mmgen.errors import DataError
from mmgen.files.documents import short
from mmgen.files.reading import Reader, exists

INDEX = "dataset.json"
FORMAT_VERSION = 1
WITH_HOLES = 2
"""The format of data sets some of whose rows lack a value: what knows only the first would read
zeros in their place."""

_FILES = Reader(DataError, "write the data set again")

Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f/\\]+$")]
SplitName = Annotated[str, Field(max_length=200, pattern=r"^[\w-]+$")]


class _Record(OneLine, BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ShardRecord(_Record):
    """One safetensors file of a split."""

    # A plain name: an index from elsewhere must not reach outside its folder.
    file: str = Field(max_length=255, pattern=r"^[\w-]+\.safetensors$")
    count: int = Field(gt=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class SplitRecord(_Record):
    """The rows of one split and the files that hold them, in order."""

    count: int = Field(gt=0)
    shards: list[ShardRecord] = Field(min_length=1)

    @model_validator(mode="after")
    def _counts_agree(self) -> Self:
        if (total := sum(shard.count for shard in self.shards)) != self.count:
            raise ValueError(f"should have {self.count:,} rows, but its shards hold {total:,}")
        return self


class Index(_Record):
    """All of ``dataset.json``."""

    format: Literal["mmgen dataset"] = "mmgen dataset"
    format_version: int = FORMAT_VERSION
    name: str
    about: str
    modalities: dict[Name, dict[str, JsonValue]] = Field(min_length=1)
    splits: dict[SplitName, SplitRecord] = Field(min_length=1)
    hash: str = ""

    @field_validator("modalities")
    @classmethod
    def _name_their_kinds(cls, value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name, configuration in value.items():
            if not isinstance(kind := configuration.get("kind"), str) or not kind:
                raise ValueError(f"{name!r} names no kind")
        return value

    @field_validator("splits")
    @classmethod
    def _share_no_file(cls, value: dict[str, SplitRecord]) -> dict[str, SplitRecord]:
        seen: set[str] = set()
        for file in (shard.file for split in value.values() for shard in split.shards):
            if file in seen:
                raise ValueError(f"{file!r} is listed twice")
            seen.add(file)
        return value

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
    if not exists(path):
        raise DataError(f"no data set at {path}: there is no such folder; `mmgen data` writes one")
    if not exists(file):
        raise DataError(f"no data set at {path}: it holds no {INDEX}; `mmgen data` writes one")
    raw = _FILES.json(file)
    version = raw.get("format_version")
    if version not in (FORMAT_VERSION, WITH_HOLES) and "format_version" in raw:
        raise DataError(
            f"{file} has format version {short(version)}; this mmgen reads version "
            f"{FORMAT_VERSION} and {WITH_HOLES}: write the data set again, or use the mmgen that "
            "wrote it"
        )
    index = _FILES.check(Index, raw, file)
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
