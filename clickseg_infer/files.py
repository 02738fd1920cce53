"""Read a volume, write a mask: the only place that knows how files order their axes.

A volume comes in as a view in (z, y, x) towards superior, anterior and right, whatever the file's
own order; what goes out lies exactly as the image did, with its header codes
(NIfTI-1: https://nifti.nimh.nih.gov/nifti-1, "METHOD 1-3" for the affine).
"""

import io
import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from gzip import BadGzipFile
from pathlib import Path
from typing import Any, TypeVar

import nibabel as nib
import numpy as np
from isal import isal_zlib
from isal.igzip import IGzipFile
from nibabel.imageglobals import logger as nibabel_logger
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

from clickseg_infer.atomic_write import write_whole
from clickseg_infer.errors import FileError, VolumeError
from clickseg_infer.file_grid import FileGrid
from clickseg_infer.volume import Volume

PathLike = str | os.PathLike[str]
T = TypeVar("T")
_SUFFIXES = (".nii", ".nii.gz")
_CHUNK = 1 << 20  # bytes; stays in the processor's cache between inflating and storing
_MOST_INFLATION = 1032  # of one byte of DEFLATE (https://zlib.net/zlib_tech.html)
_MOST_BEHIND = 1 << 20  # bytes behind the voxels; padding has less
_LEVEL = 1  # of ISA-L; on masks the higher ones are slower and no smaller


def read_volume(path: PathLike) -> Volume:
    """Read a NIfTI file (.nii, .nii.gz).

    Returns:
        The volume with voxels (z, y, x) int16 or float32 HU, and the file's grid remembered.

    Raises:
        FileError: missing, unreadable, truncated, or not NIfTI.
        VolumeError: not 3D, empty, NaN or infinite voxels, a singular affine, not in millimetres.
    """
    try:
        header, voxels = _read_nifti(Path(path), _read_voxels)
        grid = _file_grid(header)
        flip = np.eye(4)
        for xyz, (axis, reverse) in enumerate(zip(grid.axes[::-1], grid.flips[::-1], strict=True)):
            flip[:3, xyz] = 0
            flip[axis, xyz] = -1 if reverse else 1
            if reverse:
                flip[axis, 3] = grid.shape[axis] - 1
        return Volume(grid.to_zyx(voxels), grid.affine @ flip, grid)
    except VolumeError as error:
        raise VolumeError(f"{path}: {error}") from None


def read_shape(path: PathLike) -> tuple[int, ...]:
    """The shape (i, j, k) that a NIfTI file's header promises, without reading its voxels.

    Raises:
        FileError: missing, unreadable, or not NIfTI.
        VolumeError: not 3D, empty, or not in millimetres.
    """
    try:
        shape: tuple[int, ...] = _read_nifti(Path(path), _read_header).get_data_shape()
    except VolumeError as error:
        raise VolumeError(f"{path}: {error}") from None
    return shape


def read_label(path: PathLike, *, like: Volume) -> NDArray[Any]:
    """Read a label file that lies on the grid of the image `like`.

    Returns:
        (z, y, x) integers of `like`'s shape, none negative.

    Raises:
        FileError: as `read_volume`.
        VolumeError: another shape or affine than the image's, or values that are not whole
            numbers from 0 to 2^31 - 1.
    """
    try:
        header, stored = _read_nifti(Path(path), _read_voxels)
        voxels = _integers(stored)
        _check_grid(header, like)
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
    if mask.dtype == bool:
        mask = mask.view(np.uint8)
    if mask.dtype != np.uint8:
        mask = _integers(mask)
        if mask.max() > 255:
            raise VolumeError(f"a mask holds values up to 255, this one holds {mask.max()}")
        mask = mask.astype(np.uint8)
    _write(Path(path), mask, like)


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


def _read_nifti(path: Path, read: Callable[[Any, int], T]) -> T:
    """What `read` makes of a NIfTI stream, and of the most bytes that can be in it."""
    if os.path.isdir(path):
        raise FileError(f"{path}: is a folder; DICOM series must be converted to NIfTI first")
    check_nifti_name(path)
    try:
        with open(path, "rb") as file:
            most = os.fstat(file.fileno()).st_size
            if file.peek(2)[:2] != b"\x1f\x8b":
                return read(file, most)
            with IGzipFile(fileobj=file) as stream:
                return read(stream, most * _MOST_INFLATION)
    except (EOFError, isal_zlib.IsalError, BadGzipFile) as error:  # type: ignore[misc]
        raise FileError(f"{path}: damaged or truncated: {error}") from error
    except FileError as error:
        raise FileError(f"{path}: {error}") from error.__cause__
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error


def _read_header(stream: Any, most: int) -> Any:
    """The header at the beginning of a NIfTI stream of at most `most` bytes."""
    try:
        newer = stream.peek(4)[:4] in (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c")
        with _silent(nibabel_logger):  # what is wrong arrives as an exception
            header = (nib.Nifti2Header if newer else nib.Nifti1Header).from_fileobj(stream)
        shape, dtype = header.get_data_shape(), header.get_data_dtype()
        offset, _ = header.get_data_offset(), header.get_slope_inter()
    except (HeaderDataError, WrapStructError, ValueError, OverflowError) as error:
        raise FileError(f"not a NIfTI file: {error}") from error
    _check_header(header)
    needed = offset + math.prod(shape) * dtype.itemsize
    if needed > most:
        raise FileError(f"truncated: holds at most {most} bytes of {needed}")
    return header


def _read_voxels(stream: Any, most: int) -> tuple[Any, NDArray[Any]]:
    """The header, and the voxels (i, j, k) as `_scaled` leaves them, straight where they stay."""
    header = _read_header(stream, most)
    shape, dtype, offset = (
        header.get_data_shape(),
        header.get_data_dtype(),
        header.get_data_offset(),
    )
    needed = offset + math.prod(shape) * dtype.itemsize
    try:
        voxels = np.empty(shape, dtype, order="F")
    except MemoryError as error:
        raise FileError(f"{needed} bytes do not fit into memory") from error
    target = voxels.reshape(-1, order="F").view(np.uint8).data
    stream.seek(offset)
    filled = 0
    while count := stream.readinto(target[filled : filled + _CHUNK]):
        filled += count
    if filled < len(target):
        raise FileError(f"truncated: {offset + filled} bytes of {needed}")
    behind = 0
    while more := len(stream.read(_CHUNK)):  # a gzip member's checksum comes last
        behind += more
        if behind > _MOST_BEHIND:  # a few bytes of gzip can hold gigabytes of it
            raise FileError(f"not a NIfTI file: more than {_MOST_BEHIND} bytes behind the voxels")
    return header, _scaled(voxels, *header.get_slope_inter())


@contextmanager
def _silent(logger: logging.Logger) -> Iterator[None]:
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def _check_header(header: Any) -> None:
    shape = header.get_data_shape()
    if len(shape) != 3:
        raise VolumeError(f"needs 3 dimensions, has {len(shape)}: shape {shape}")
    if min(shape) < 1:
        raise VolumeError(f"the volume is empty: shape {shape}")
    unit = header.get_xyzt_units()[0]
    if unit not in ("mm", "unknown"):
        raise VolumeError(f"must be in millimetres, the header says {unit}")


def _scaled(voxels: NDArray[Any], slope: float | None, intercept: float | None) -> NDArray[Any]:
    """Stored voxels, overwritten, in HU and native byte order; whole numbers stay integers."""
    if not voxels.dtype.isnative:
        voxels = voxels.byteswap(inplace=True).view(voxels.dtype.newbyteorder("="))
    if slope is None or intercept is None or (slope, intercept) == (1, 0):
        return voxels
    if voxels.dtype.kind not in "iuf":
        return voxels  # colours and complex numbers: whoever asked refuses them
    if voxels.dtype.kind in "iu" and slope.is_integer() and intercept.is_integer():
        # The usual intercept of -1024 loses nothing. Products may wrap round; the sums do not.
        ends = [int(end) * int(slope) + int(intercept) for end in (voxels.min(), voxels.max())]
        for dtype in (np.int16, np.int32):
            limits = np.iinfo(dtype)
            numbers = (*ends, int(slope), int(intercept))
            if limits.min <= min(numbers) and max(numbers) <= limits.max:
                whole: NDArray[Any] = voxels.astype(dtype, copy=False)
                whole *= dtype(slope)
                whole += dtype(intercept)
                return whole
    scaled: NDArray[Any] = np.multiply(voxels, slope, dtype=np.float64)
    scaled += intercept
    return scaled


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


def _check_grid(header: Any, like: Volume) -> None:
    grid, shape = like.file_grid, header.get_data_shape()
    expected, affine = (grid.shape, grid.affine) if grid else (like.shape[::-1], like.affine)
    if shape != expected:
        raise VolumeError(f"the label's shape {shape} differs from the image's {expected}")
    if not np.allclose(header.get_best_affine(), affine, rtol=1e-3, atol=1e-2):
        raise VolumeError("the label's affine differs from the image's")


def _file_grid(header: Any) -> FileGrid:
    affine = header.get_best_affine()
    try:
        orientation = nib.io_orientation(affine)
    except (np.linalg.LinAlgError, ValueError) as error:
        raise VolumeError(f"the affine is unusable: {error}") from error
    if np.isnan(orientation).any():
        raise VolumeError(f"the affine is singular: {affine[:3, :3].tolist()}")
    stored_of = {int(world): stored for stored, world in enumerate(orientation[:, 0])}
    z, y, x = stored_of[2], stored_of[1], stored_of[0]
    flips = tuple(bool(orientation[axis, 1] < 0) for axis in (z, y, x))
    return FileGrid(header.get_data_shape(), (z, y, x), flips, affine, header)  # type: ignore[arg-type]


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
    header = image.header
    header.set_slope_inter(1, 0)
    header.set_data_offset(0)  # right behind the header and its extensions
    parts = _parts(header, image.dataobj)
    write_whole(path, b"".join(_gzipped(parts) if path.name.endswith(".gz") else parts))


def _parts(header: Any, stored: NDArray[Any]) -> Iterator[bytes | memoryview]:
    """A NIfTI file's bytes: the header, then one plane of the (i, j, k) voxels after the other."""
    beginning = io.BytesIO()
    header.write_to(beginning)
    yield beginning.getvalue()
    dtype = header.get_data_dtype()
    for plane in stored.T:
        yield _contiguous(plane.astype(dtype, copy=False)).data


def _gzipped(parts: Iterable[bytes | memoryview]) -> Iterator[bytes]:
    """The same as gzip, without a name and a time: the same bytes for the same voxels."""
    deflate = isal_zlib.compressobj(_LEVEL, isal_zlib.DEFLATED, isal_zlib.MAX_WBITS | 16)
    for part in parts:
        yield deflate.compress(part)
    yield deflate.flush()


def _contiguous(plane: NDArray[Any]) -> NDArray[Any]:
    """The same bytes, one after the other."""
    if plane.strides[1] == -1 and plane.shape[1] % 8 == 0:
        # A mask on a mirrored grid. NumPy reverses single bytes slowly, words of eight quickly.
        return plane[:, ::-1].view(np.uint64).byteswap()[:, ::-1].copy()
    return np.ascontiguousarray(plane)
