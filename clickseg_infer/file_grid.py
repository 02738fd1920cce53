"""How a volume lies in its file: axis order, flips, and the header to give back."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Index = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class FileGrid:
    """The stored grid of a file, and the way between it and the volume's (z, y, x).

    The volume's axes are the closest to superior, anterior and right; a file may store them in
    any of 48 orders and directions. Both directions of the mapping are views, never copies.

    Attributes:
        shape: stored shape (i, j, k).
        axes: for each of z, y, x the stored axis that it is.
        flips: for each of z, y, x whether that stored axis runs against it.
        affine: (4, 4) float64, stored (i, j, k) -> RAS+ mm.
        header: the file's own header; its geometry fields are written back untouched.
    """

    shape: Index
    axes: Index
    flips: tuple[bool, bool, bool]
    affine: NDArray[np.float64]
    header: Any

    def to_zyx(self, stored: NDArray[Any]) -> NDArray[Any]:
        """View an (i, j, k) array as (z, y, x)."""
        return stored.transpose(self.axes)[self._reversal]

    def from_zyx(self, array: NDArray[Any]) -> NDArray[Any]:
        """View a (z, y, x) array as the file's (i, j, k)."""
        i, j, k = np.argsort(self.axes)
        return array[self._reversal].transpose(i, j, k)

    def zyx_of(self, ijk: Index) -> Index:
        """The volume's voxel (z, y, x) of stored voxel (i, j, k)."""
        z, y, x = (
            self.shape[axis] - 1 - ijk[axis] if flip else ijk[axis]
            for axis, flip in zip(self.axes, self.flips, strict=True)
        )
        return z, y, x

    def ijk_of(self, zyx: Index) -> Index:
        """The stored voxel (i, j, k) of the volume's voxel (z, y, x)."""
        ijk = [0, 0, 0]
        for position, axis, flip in zip(zyx, self.axes, self.flips, strict=True):
            ijk[axis] = self.shape[axis] - 1 - position if flip else position
        return ijk[0], ijk[1], ijk[2]

    @property
    def _reversal(self) -> tuple[slice, slice, slice]:
        z, y, x = (slice(None, None, -1 if flip else 1) for flip in self.flips)
        return z, y, x
