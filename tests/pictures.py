"""Pictures as bytes: written by Pillow, or by hand."""

import io
import struct
import zlib

import PIL.Image


def encoded(name: str, mode: str = "RGB", size: tuple[int, int] = (8, 8), **options) -> bytes:
    content = io.BytesIO()
    PIL.Image.new(mode, size).save(content, name, **options)
    return content.getvalue()


def png(depth: int, kind: int, row: bytes, size=(1, 1), *chunks: tuple[bytes, bytes]) -> bytes:
    """Writes a PNG by hand: a bit depth and a type of colour, and its rows, each led by a 0."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    header = struct.pack(">IIBBBBB", *size, depth, kind, 0, 0, 0)
    rest = [chunk(*each) for each in chunks]
    ends = [chunk(b"IDAT", zlib.compress(row)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join([chunk(b"IHDR", header), *rest, *ends])
