"""Picture files: read, made grey or coloured, and resized."""

import PIL.Image
import torch
from torch import Tensor


def read_picture(path: str, shape: tuple[int, int, int]) -> Tensor:
    """Reads a picture file of any size as uint8 ``(C, H, W)``, antialiased.

    Args:
        path: The file.
        shape: C (1 is grey, 3 is colour), H and W in pixels.

    Raises:
        ValueError: If it cannot be read as a picture.
    """
    channels, height, width = shape
    try:
        with PIL.Image.open(path) as file:
            picture = file.convert("L" if channels == 1 else "RGB").resize((width, height))
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path!r} is no picture (PNG, JPEG, ...): {error}") from None
    pixels = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return pixels.view(height, width, channels).permute(2, 0, 1)
