"""A DICOM series that a page sends becomes a NIfTI file, by SimpleITK."""

import math
import shutil
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from clickseg_infer.errors import FileError, ServerError, VolumeError, one_line
from clickseg_infer.server.refusals import TooLargeError

_MOST_FILES = 5000
_CHUNK = 1 << 20
_POSITION, _DIRECTIONS, _MODALITY = "0020|0032", "0020|0037", "0008|0060"
_UNEVEN = 0.02  # of the distance between slices
_TILT = 0.999  # cosine of the angle that slices may be shifted by


def series_to_nifti(archive: Path, folder: Path, most_voxels: int, most_bytes: int) -> Path:
    """Write the largest CT series of a tar archive of DICOM files as NIfTI.

    Args:
        archive: uncompressed; its names are not used.
        folder: an empty one, for the result, which is all that stays in it.
        most_voxels: that a scan may have.
        most_bytes: that the archive's files may have, taken together.

    Raises:
        FileError: no tar archive, no series that can be read in it, or SimpleITK is not installed.
        VolumeError: slices that are missing, unevenly spaced or tilted, which no grid describes.
        TooLargeError: too many files, bytes or voxels.
        OSError: the files cannot be kept.
    """
    sitk = _import_simpleitk()
    with TemporaryDirectory(dir=folder) as unpacked:
        _extract(archive, Path(unpacked), most_bytes)
        path = folder / "scan.nii"
        _convert(sitk, Path(unpacked), path, most_voxels)
    return path


def _convert(sitk: Any, folder: Path, path: Path, most_voxels: int) -> None:
    """Write the largest CT series among the files of a folder as NIfTI."""
    reader = sitk.ImageSeriesReader()
    names = _largest_series(sitk, reader, folder)
    try:
        first = _header(sitk, names[0])
        voxels = math.prod(first.GetSize()[:2]) * len(names)
        if voxels > most_voxels:
            raise TooLargeError(f"a scan may have {most_voxels} voxels, this one has {voxels}")
        headers = [first, *(_header(sitk, name) for name in names[1:])]
        _check_slices([_numbers(h, _POSITION) for h in headers], _numbers(first, _DIRECTIONS))
        reader.SetFileNames(names)
        sitk.WriteImage(reader.Execute(), str(path))
    except ServerError:
        raise
    except RuntimeError as error:  # SimpleITK's
        raise FileError(f"the DICOM series cannot be read: {one_line(error)}") from error


def _import_simpleitk() -> Any:
    try:
        import SimpleITK
    except ImportError as error:
        raise FileError("DICOM needs SimpleITK: pip install 'clickseg[demo]'") from error
    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)  # what is wrong is an exception
    return SimpleITK


def _extract(archive: Path, folder: Path, most_bytes: int) -> None:
    """Unpack the plain files of an archive under names of our own."""
    try:
        with tarfile.open(archive, "r:") as tar:
            for number, member in enumerate(tar):
                if number >= _MOST_FILES:
                    raise TooLargeError(f"a series may have {_MOST_FILES} files")
                # A sparse file promises more bytes than were sent.
                if member.size < 0 or member.issparse():
                    raise FileError("not a tar archive of plain files")
                if not member.isreg():
                    continue
                most_bytes -= member.size
                if most_bytes < 0:
                    raise TooLargeError("the files of this series have too many bytes")
                _copy(tar, member, folder / f"{number:05}.dcm")
    except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
        raise FileError(f"not a tar archive: {one_line(error)}") from error


def _copy(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    content = tar.extractfile(member)
    assert content is not None  # of a regular file
    with content, open(path, "wb") as file:
        shutil.copyfileobj(content, file, _CHUNK)


def _largest_series(sitk: Any, reader: Any, folder: Path) -> tuple[str, ...]:
    """The files, in order, of the series with the most CT slices."""
    series = [
        reader.GetGDCMSeriesFileNames(str(folder), key)
        for key in reader.GetGDCMSeriesIDs(str(folder))
    ]
    ct = [names for names in series if _is_ct(sitk, names[0])]
    if not ct:
        raise FileError("no CT series among these files")
    return max(ct, key=len)


def _is_ct(sitk: Any, name: str) -> bool:
    try:
        header = _header(sitk, name)
    except RuntimeError:
        return False
    return bool(header.HasMetaDataKey(_MODALITY)) and header.GetMetaData(_MODALITY).strip() == "CT"


def _header(sitk: Any, name: str) -> Any:
    reader = sitk.ImageFileReader()
    reader.SetFileName(name)
    reader.ReadImageInformation()
    return reader


def _numbers(header: Any, key: str) -> list[float]:
    """A DICOM value of several numbers."""
    try:
        return [float(part) for part in header.GetMetaData(key).split("\\")]
    except (RuntimeError, ValueError) as error:
        raise VolumeError(f"a slice does not say where it lies ({key})") from error


def _check_slices(positions: list[list[float]], directions: list[float]) -> None:
    """Raise VolumeError unless the slices lie evenly, one straight behind the other."""
    if len(positions) < 2:
        return
    steps = np.diff(np.array(positions), axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    typical = float(np.median(lengths))
    if not typical > 0 or np.abs(lengths - typical).max() > _UNEVEN * typical:
        raise VolumeError(
            f"the slices are {lengths.min():.2f} to {lengths.max():.2f} mm apart; some are missing"
        )
    normal = np.cross(directions[:3], directions[3:])
    if np.abs(steps @ normal / lengths).min() < _TILT:
        raise VolumeError("the gantry was tilted: the slices are shifted against each other")
