"""A picture of a mask: three slices through it, with its outline and the clicks."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from clickseg_infer.atomic_write import check_writable, write_whole
from clickseg_infer.clicks import Click
from clickseg_infer.errors import FileError
from clickseg_infer.file_grid import Index
from clickseg_infer.files import PathLike
from clickseg_infer.volume import Volume

WINDOW_HU = (-160.0, 240.0)
_HEIGHT, _MAX_WIDTH = 480, 1440
_MASK, _POSITIVE, _NEGATIVE = (255, 170, 0), (60, 230, 90), (255, 60, 60)


def check_preview_name(path: PathLike) -> None:
    """Raise FileError unless the picture can be written under this name."""
    if Path(path).suffix.lower() != ".png":
        raise FileError(f"{path}: the name of a picture must end in .png")
    check_writable(Path(path))


def write_preview(
    path: PathLike, volume: Volume, mask: NDArray[np.uint8], clicks: Sequence[Click]
) -> None:
    """Write a PNG of the axial, coronal and sagittal slices through the first click.

    Each is seen as radiologists do: the patient's right on the left of the picture, superior (or
    anterior) on top. Soft-tissue window; millimetres are square.

    Args:
        path: ends in .png.
        volume: the scan. Not modified.
        mask: (z, y, x), nonzero on the object, of the volume's shape. Not modified.
        clicks: filled on the slices that they lie on, hollow on others; the first one chooses
            the slices.

    Raises:
        FileError: another suffix, or the file cannot be written.
    """
    check_preview_name(path)
    middle: Index = clicks[0].zyx if clicks else tuple(n // 2 for n in volume.shape)  # type: ignore[assignment]
    slices = [_draw_slice(volume, mask, clicks, middle, axis) for axis in range(3)]
    picture = Image.new("RGB", (sum(s.width for s in slices), _HEIGHT))
    left = 0
    for part in slices:
        picture.paste(part, (left, 0))
        left += part.width
    content = io.BytesIO()
    picture.save(content, "PNG")
    write_whole(Path(path), content.getvalue())


def _draw_slice(
    volume: Volume, mask: NDArray[np.uint8], clicks: Sequence[Click], middle: Index, axis: int
) -> Image.Image:
    rows, columns = (a for a in range(3) if a != axis)
    low, high = WINDOW_HU
    # Volumes run towards superior, anterior and right; pictures run down and to the right.
    hu = np.moveaxis(volume.voxels, axis, 0)[middle[axis], ::-1, ::-1].astype(np.float32)
    inside = np.moveaxis(mask, axis, 0)[middle[axis], ::-1, ::-1] != 0
    grey = np.clip((hu - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    # Millimetres are square, except in slices so flat that they would become a long stripe.
    shape_mm = grey.shape[1] * volume.spacing_mm[columns], grey.shape[0] * volume.spacing_mm[rows]
    width = min(max(1, round(_HEIGHT * shape_mm[0] / shape_mm[1])), _MAX_WIDTH)
    picture = Image.fromarray(grey).resize((width, _HEIGHT)).convert("RGB")
    large: NDArray[np.bool_] = np.asarray(
        Image.fromarray(inside).resize((width, _HEIGHT), Image.Resampling.NEAREST)
    )
    pixels: NDArray[np.uint8] = np.array(picture)
    pixels[large] = (0.75 * pixels[large] + 0.25 * np.array(_MASK)).astype(np.uint8)
    pixels[large & ~ndimage.binary_erosion(large, iterations=2)] = _MASK
    picture = Image.fromarray(pixels)
    draw = ImageDraw.Draw(picture)
    for click in clicks:
        row = (grey.shape[0] - click.zyx[rows] - 0.5) * _HEIGHT / grey.shape[0]
        column = (grey.shape[1] - click.zyx[columns] - 0.5) * width / grey.shape[1]
        colour = _POSITIVE if click.positive else _NEGATIVE
        box = (column - 5, row - 5, column + 5, row + 5)
        if click.zyx[axis] == middle[axis]:
            draw.ellipse(box, fill=colour, outline=(0, 0, 0))
        else:
            draw.ellipse(box, outline=colour)
    return picture
