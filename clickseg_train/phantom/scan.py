"""The scan while it is painted, and the brushes: a mask in a box, and a tube along a path."""

from dataclasses import dataclass

import numpy as np

from clickseg_train.phantom.geometry import Array, Vector, ellipsoid

TOP_MM = 230.0  # above any drawn field of view


@dataclass(frozen=True, eq=False)
class Scan:
    """A grid in the patient frame; `hu` and `label` are painted in place.

    Attributes:
        hu: (z, y, x) float32, HU.
        label: (z, y, x) uint8.
        axes: three 1-D float32 arrays, the voxel centres in the patient frame, mm.
        spacing: (z, y, x) mm.
        inside: (z, y, x) float32, mm inside the muscle wall; positive in the cavity.
        below: (z, y, x) float32, mm below the diaphragm; positive in the abdomen.
    """

    hu: Array
    label: Array
    axes: tuple[Array, ...]
    spacing: tuple[float, float, float]
    inside: Array
    below: Array


def box_around(scan: Scan, centre: Vector, reach: Vector | float) -> tuple[slice, ...]:
    """The voxels within `reach` (z, y, x) mm of a point, as slices; may be empty."""
    box = []
    for axis, mid, far in zip(scan.axes, centre, np.broadcast_to(reach, 3), strict=True):
        low, high = np.searchsorted(axis, (mid - far, mid + far))
        box.append(slice(int(low), int(high)))
    return tuple(box)


def crop(scan: Scan, box: tuple[slice, ...]) -> Scan:
    """The part of a scan in a box: views, so that painting it paints the scan."""
    axes = tuple(axis[part] for axis, part in zip(scan.axes, box, strict=True))
    return Scan(
        scan.hu[box], scan.label[box], axes, scan.spacing, scan.inside[box], scan.below[box]
    )


def abdomen(scan: Scan) -> Array:
    """Where an abdominal organ may be: in the cavity, 3 mm clear of the lungs for a diaphragm."""
    return (scan.inside > 1) & (scan.below > 3)


def paint(scan: Scan, mask: Array, hu: float | Array, label: int = 0) -> None:
    """Set HU (a number, or an array over the scan) and label where the mask is set."""
    np.copyto(scan.hu, hu, where=mask)
    np.copyto(scan.label, label, where=mask)


def tube(
    scan: Scan,
    path: Array,
    radius_mm: float | Array,
    hu: float,
    label: int = 0,
    over: Array | None = None,
) -> None:
    """Paint balls along a path (n, 3), a voxel thick at least, where the mask `over` is set."""
    for point, radius in zip(path, np.broadcast_to(radius_mm, len(path)), strict=True):
        radii = np.maximum(radius, 0.6 * np.asarray(scan.spacing))
        box = box_around(scan, point, radii)
        part = crop(scan, box)
        mask = ellipsoid(part.axes, point, radii) < 0
        if over is not None:
            mask &= over[box]
        paint(part, mask, hu, label)
