"""The volume: HU voxels in (z, y, x) and where they lie in the patient."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clickseg_infer.errors import VolumeError
from clickseg_infer.file_grid import FileGrid, Index
from clickseg_infer.interpolate import has_rows

Spacing = tuple[float, float, float]

_SPACINGS_MM = (0.01, 50.0)


@dataclass(frozen=True, eq=False)
class Volume:
    """One CT scan.

    Attributes:
        voxels: (z, y, x) int16 or float32, Hounsfield units, finite. Made read-only; any strides.
        affine: (4, 4) float64, voxel (x, y, z, 1) -> RAS+ mm, as in NIfTI.
        file_grid: how the file stored it, or None for a volume made from an array.

    Raises:
        VolumeError: voxels that are not 3D, empty, not numeric, NaN or infinite; an affine that
            is not (4, 4), not finite, singular, or of a spacing that cannot be in millimetres.
    """

    voxels: NDArray[Any]
    affine: NDArray[np.float64]
    file_grid: FileGrid | None = None

    def __post_init__(self) -> None:
        voxels = _as_hounsfield(np.asarray(self.voxels))
        voxels = (voxels if has_rows(voxels) else np.ascontiguousarray(voxels)).view()
        voxels.flags.writeable = False
        affine = _checked_affine(self.affine)
        affine.flags.writeable = False
        object.__setattr__(self, "voxels", voxels)
        object.__setattr__(self, "affine", affine)

    @property
    def shape(self) -> Index:
        """The shape (z, y, x)."""
        z, y, x = self.voxels.shape
        return z, y, x

    @property
    def spacing_mm(self) -> Spacing:
        """Distance between voxel centres along (z, y, x), in mm."""
        x, y, z = np.sqrt((self.affine[:3, :3] ** 2).sum(axis=0)).tolist()
        return z, y, x

    @property
    def voxel_ml(self) -> float:
        """The volume of one voxel in millilitres."""
        return abs(float(np.linalg.det(self.affine[:3, :3]))) / 1000.0

    def contains(self, zyx: Index) -> bool:
        """Whether voxel (z, y, x) lies inside."""
        return all(0 <= p < n for p, n in zip(zyx, self.shape, strict=True))

    def zyx_of_ijk(self, ijk: Index) -> Index:
        """The voxel (z, y, x) that NIfTI tools show as (i, j, k) in this volume's file."""
        return self.file_grid.zyx_of(ijk) if self.file_grid else (ijk[2], ijk[1], ijk[0])

    def ijk_of_zyx(self, zyx: Index) -> Index:
        """The (i, j, k) under which NIfTI tools show voxel (z, y, x)."""
        return self.file_grid.ijk_of(zyx) if self.file_grid else (zyx[2], zyx[1], zyx[0])

    def zyx_of_ras(self, ras_mm: tuple[float, float, float]) -> Index:
        """The voxel (z, y, x) nearest to a RAS+ position in mm; it may lie outside."""
        xyz = np.linalg.solve(self.affine, [*ras_mm, 1.0])[:3]
        x, y, z = (int(np.floor(p + 0.5)) for p in xyz)
        return z, y, x

    def ras_of_zyx(self, zyx: Index) -> tuple[float, float, float]:
        """The RAS+ position in mm of the centre of voxel (z, y, x)."""
        r, a, s = (self.affine @ [zyx[2], zyx[1], zyx[0], 1.0])[:3].tolist()
        return r, a, s


def _as_hounsfield(voxels: NDArray[Any]) -> NDArray[Any]:
    """The same voxels as int16 where that is exact, else float32; copies only if it must."""
    if voxels.ndim != 3:
        raise VolumeError(f"a volume needs 3 dimensions, this one has shape {voxels.shape}")
    if voxels.size == 0:
        raise VolumeError(f"the volume is empty: shape {voxels.shape}")
    if voxels.dtype.kind not in "biuf":
        raise VolumeError(f"voxels must be real numbers, not {voxels.dtype}")
    if voxels.dtype.kind == "f":
        # min and max carry NaN and infinities along, without a mask of the volume's size.
        if not (np.isfinite(voxels.min()) and np.isfinite(voxels.max())):
            raise VolumeError("voxels must be finite, this volume holds NaN or infinity")
        if np.abs([voxels.min(), voxels.max()]).max() > np.finfo(np.float32).max:
            raise VolumeError("voxel values are beyond the range of float32")
        return voxels.astype(np.float32, copy=False)
    limits = np.iinfo(np.int16)
    exact = np.can_cast(voxels.dtype, np.int16) or (
        voxels.min() >= limits.min and voxels.max() <= limits.max
    )
    return voxels.astype(np.int16 if exact else np.float32, copy=False)


def _checked_affine(affine: Any) -> NDArray[np.float64]:
    matrix = np.array(affine, dtype=np.float64)
    if matrix.shape != (4, 4):
        raise VolumeError(f"the affine must be (4, 4), not {matrix.shape}")
    if not np.isfinite(matrix).all():
        raise VolumeError("the affine holds NaN or infinity")
    lengths = np.sqrt((matrix[:3, :3] ** 2).sum(axis=0))
    least, most = _SPACINGS_MM
    if lengths.min() > 0 and not (least <= lengths.min() and lengths.max() <= most):
        raise VolumeError(
            f"a spacing of {lengths.tolist()} cannot be millimetres, allowed are {least} to {most}"
        )
    # The volume of the unit cell relative to its edges: independent of the spacing's size.
    if lengths.min() <= 0 or abs(np.linalg.det(matrix[:3, :3] / lengths)) < 1e-3:
        raise VolumeError(f"the affine is singular: columns {matrix[:3, :3].T.tolist()}")
    return matrix
