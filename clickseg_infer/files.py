"""Read a volume, write a mask: the only place that knows how files order their axes.

A volume comes in as a view in (z, y, x) towards superior, anterior and right, whatever the file's
own order; what goes out lies exactly as the image did, with its header codes
(NIfTI-1: https://nifti.nimh.nih.gov/nifti-1, "METHOD 1-3" for the affine).
"""

import gzip
import math
import os
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.imageglobals import LoggingOutputSuppressor
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from clickseg_infer.atomic_write import write_whole
from clickseg_infer.errors import FileError, VolumeError
from clickseg_infer.file_grid import FileGrid
from clickseg_infer.volume import Volume

PathLike = str | os.PathLike[str]
_SUFFIXES = (".nii", ".nii.gz")


def read_volume(path: PathLike) -> Volume:
    """Read a NIfTI file (.nii, .nii.gz).

    Returns:
        The volume with voxels (z, y, x) int16 or float32 HU, and the file's grid remembered.

    Raises:
        FileError: missing, unreadable, truncated, or not NIfTI.
        VolumeError: not 3D, empty, NaN or infinite voxels, a singular affine, not in millimetres.
    """
    image = _read_nifti(Path(path))
    try:
        voxels = _voxels(image)
        grid = _file_grid(image)
        flip = np.eye(4)
        for xyz, (axis, reverse) in enumerate(zip(grid.axes[::-1], grid.flips[::-1], strict=True)):
            flip[:3, xyz] = 0
            flip[axis, xyz] = -1 if reverse else 1
            if reverse:
                flip[axis, 3] = grid.shape[axis] - 1
        return Volume(grid.to_zyx(voxels), grid.affine @ flip, grid)
    except VolumeError as error:
        raise VolumeError(f"{path}: {error}") from None


def read_label(path: PathLike, *, like: Volume) -> NDArray[Any]:
    """Read a label file that lies on the grid of the image `like`.

    Returns:
        (z, y, x) integers of `like`'s shape, none negative.

    Raises:
        FileError: as `read_volume`.
        VolumeError: another shape or affine than the image's, or values that are not whole
            numbers from 0 to 2^31 - 1.
    """
    image = _read_nifti(Path(path))
    try:
        voxels = _integers(_voxels(image))
        _check_grid(image, voxels.shape, like)
    except VolumeError as error:
        raise VolumeError(f"{path}: {error}") from None
    return like.file_grid.to_zyx(voxels) if like.file_grid else voxels.T


def write_mask(path: PathLike, mask: NDArray[Any], *, like: Volume) -> None:
    """Write a mask or label map (z, y, x) as uint8 with the shape, affine and codes of `like`.

    Raises:
        FileError: unknown suffix, or the file cannot be written; nothing is left behind.
        VolumeError: the mask has another shape than the volume, or values that are not whole
            numbers from 0 to 255.
    """
    if mask.shape != like.shape:
        raise VolumeError(f"the mask's shape {mask.shape} differs from the volume's {like.shape}")
    stored = mask if mask.dtype == bool else _integers(mask)
    if stored.max() > 255:
        raise VolumeError(f"a mask holds values up to 255, this one holds {stored.max()}")
    _write(Path(path), stored.astype(np.uint8, copy=False), like)


def write_volume(path: PathLike, volume: Volume) -> None:
    """Write a volume as NIfTI: in its file's order if it came from one, else as (x, y, z).

    Raises:
        FileError: unknown suffix, or the file cannot be written; nothing is left behind.
    """
    _write(Path(path), volume.voxels, volume)


def check_nifti_name(path: PathLike) -> None:
    """Raise FileError unless the name ends in .nii or .nii.gz."""
    if not str(path).endswith(_SUFFIXES):
        raise FileError(f"{path}: the name must end in {' or '.join(_SUFFIXES)}")


def _read_nifti(path: Path) -> Any:
    if os.path.isdir(path):
        raise FileError(f"{path}: is a folder; DICOM series must be converted to NIfTI first")
    check_nifti_name(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error
    try:
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        newer = content[:4] in (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c")
        with LoggingOutputSuppressor():  # what is wrong arrives as an exception
            image = (nib.Nifti2Image if newer else nib.Nifti1Image).from_bytes(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FileError(f"{path}: damaged or truncated: {error}") from error
    except (ImageFileError, HeaderDataError, WrapStructError, ValueError, OSError) as error:
        raise FileError(f"{path}: not a NIfTI file: {error}") from error
    stored = image.dataobj
    needed = stored.offset + math.prod(stored.shape) * stored.dtype.itemsize
    if needed > len(content):
        raise FileError(f"{path}: truncated: {len(content)} bytes of {needed}")
    return image


def _voxels(image: Any) -> NDArray[Any]:
    """The stored array (i, j, k) in HU; int16 files without scaling are not copied."""
    shape = image.shape
    if len(shape) != 3:
        raise VolumeError(f"needs 3 dimensions, has {len(shape)}: shape {shape}")
    if 0 in shape:
        raise VolumeError(f"the volume is empty: shape {shape}")
    unit = image.header.get_xyzt_units()[0]
    if unit not in ("mm", "unknown"):
        raise VolumeError(f"must be in millimetres, the header says {unit}")
    voxels: NDArray[Any] = np.asanyarray(image.dataobj)
    if voxels.dtype.kind == "f" and image.get_data_dtype().kind in "iu":
        # A whole-number slope and intercept (the usual -1024) loses nothing as integers.
        slope, intercept = float(image.dataobj.slope), float(image.dataobj.inter)
        limits = np.iinfo(np.int32)
        whole = slope.is_integer() and intercept.is_integer()
        if whole and limits.min <= voxels.min() and voxels.max() <= limits.max:
            voxels = np.rint(voxels).astype(np.int32)
    return voxels


def _integers(array: NDArray[Any]) -> NDArray[Any]:
    """The same values as integers of at most 32 bits, none negative."""
    if array.dtype.kind not in "biuf":
        raise VolumeError(f"a label must hold whole numbers, not {array.dtype}")
    low, high = array.min(), array.max()
    if not (low >= 0 and high <= np.iinfo(np.int32).max):  # also refuses NaN
        raise VolumeError(f"label values must be from 0 to 2147483647, found {low} to {high}")
    if array.dtype.kind == "f" and not np.array_equal(np.rint(array), array):
        raise VolumeError("a label must hold whole numbers, this one holds fractions")
    return array if array.dtype.kind in "iu" and array.itemsize < 8 else array.astype(np.int32)


def _check_grid(image: Any, shape: tuple[int, ...], like: Volume) -> None:
    grid = like.file_grid
    expected, affine = (grid.shape, grid.affine) if grid else (like.shape[::-1], like.affine)
    if shape != expected:
        raise VolumeError(f"the label's shape {shape} differs from the image's {expected}")
    if not np.allclose(image.affine, affine, rtol=1e-3, atol=1e-2):
        raise VolumeError("the label's affine differs from the image's")


def _file_grid(image: Any) -> FileGrid:
    try:
        orientation = nib.io_orientation(image.affine)
    except (np.linalg.LinAlgError, ValueError) as error:
        raise VolumeError(f"the affine is unusable: {error}") from error
    if np.isnan(orientation).any():
        raise VolumeError(f"the affine is singular: {image.affine[:3, :3].tolist()}")
    stored_of = {int(world): stored for stored, world in enumerate(orientation[:, 0])}
    z, y, x = stored_of[2], stored_of[1], stored_of[0]
    flips = tuple(bool(orientation[axis, 1] < 0) for axis in (z, y, x))
    header = image.header.copy()
    return FileGrid(image.shape, (z, y, x), flips, image.affine.copy(), header)  # type: ignore[arg-type]


def _write(path: Path, array: NDArray[Any], like: Volume) -> None:
    check_nifti_name(path)
    grid = like.file_grid
    if grid is None:
        image = nib.Nifti1Image(array.T, np.asarray(like.affine))
    else:
        header = grid.header.copy()
        header.set_data_dtype(array.dtype)
        header["cal_min"] = header["cal_max"] = 0  # the image's display window is not the mask's
        header.set_intent("none")
        kind = nib.Nifti2Image if header["sizeof_hdr"] == 540 else nib.Nifti1Image
        image = kind(grid.from_zyx(array), grid.affine, header)
    image.header.set_slope_inter(1, 0)
    content = image.to_bytes()
    if path.name.endswith(".gz"):
        content = gzip.compress(content, compresslevel=1, mtime=0)
    write_whole(path, content)
