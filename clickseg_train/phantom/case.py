"""One case, from its seed to the scanner's voxels: the order in which its parts are painted."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from clickseg_infer.volume import Volume
from clickseg_train.phantom.abdomen import (
    paint_bowel,
    paint_kidney,
    paint_liver,
    paint_spleen,
    paint_stomach,
)
from clickseg_train.phantom.chest import paint_airway, paint_heart, paint_lung
from clickseg_train.phantom.geometry import Array, field
from clickseg_train.phantom.patient import Patient, draw_patient
from clickseg_train.phantom.scan import Scan
from clickseg_train.phantom.trunk import draw_trunk, paint_ribs, paint_spine
from clickseg_train.phantom.tumour import paint_tumour
from clickseg_train.phantom.vessels import paint_great_vessels


@dataclass(frozen=True, eq=False)
class PhantomCase:
    """A phantom and its ground truth.

    Attributes:
        volume: int16 HU voxels (z, y, x), affine from voxel (x, y, z) to RAS+ mm.
        label: (z, y, x) uint8, values of `LABELS`.
    """

    volume: Volume
    label: NDArray[np.uint8]


def phantom(
    seed: int,
    *,
    shape: tuple[int, int, int] | None = None,
    spacing_mm: tuple[float, float, float] | None = None,
) -> PhantomCase:
    """Draw one case; the same arguments give the same bits.

    The patient has a natural size whatever the grid is. With the shape or the spacing free the
    field of view holds the patient and every label is present; with both fixed the field of view
    is their product, and a small one crops the patient.

    Args:
        seed: A non-negative integer.
        shape: (z, y, x) voxels, or None to draw it.
        spacing_mm: (z, y, x) mm, or None to draw it.

    Raises:
        ValueError: `shape` or `spacing_mm` is not three positive numbers.
    """
    rng = np.random.default_rng(seed)
    patient = draw_patient(rng)
    shape, spacing = _draw_grid(rng, patient, shape, spacing_mm)
    scan = draw_trunk(rng, patient, shape, spacing)
    paint_bowel(rng, patient, scan)
    paint_stomach(rng, patient, scan)
    paint_liver(rng, patient, scan)
    paint_spleen(rng, patient, scan)
    for side in (-1, 1):
        paint_lung(rng, patient, scan, side)
    for side in (-1, 1):
        paint_kidney(rng, patient, scan, side)
    paint_airway(rng, patient, scan)
    paint_heart(rng, patient, scan)
    paint_spine(rng, patient, scan)
    paint_great_vessels(rng, patient, scan)
    paint_ribs(rng, patient, scan)
    paint_tumour(rng, patient, scan)
    affine = np.diag([spacing[2], spacing[1], spacing[0], 1.0])
    return PhantomCase(Volume(_acquire(rng, scan), affine), scan.label)


def _draw_grid(
    rng: np.random.Generator,
    patient: Patient,
    shape: tuple[int, int, int] | None,
    spacing_mm: tuple[float, float, float] | None,
) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    """Shape and spacing (z, y, x), of which the caller may have fixed either."""
    for name, given in (("shape", shape), ("spacing_mm", spacing_mm)):
        if given is not None and (len(given) != 3 or min(given) <= 0):
            raise ValueError(f"{name} must be three positive numbers (z, y, x), got {given}")
    tall = float(rng.uniform(240, 340))
    wide = float(np.clip(2 * patient.half_width + rng.uniform(10, 50), 320, 380))
    if spacing_mm is None:
        if shape is None:
            across = rng.uniform(max(1.2, wide / 256), min(2.0, wide / 160))
            along = rng.uniform(max(2.0, tall / 130), min(5.0, tall / 60))
        else:
            across, along = wide / min(shape[1:]), tall / shape[0]
        # A NIfTI header holds the spacing as float32; multiples of 1/256 mm survive that.
        along, across = max(1, round(along * 256)) / 256, max(1, round(across * 256)) / 256
        spacing_mm = (along, across, across)
    if shape is None:
        z, y, x = spacing_mm
        shape = (max(1, round(tall / z)), max(1, round(wide / y)), max(1, round(wide / x)))
    return shape, spacing_mm


def _acquire(rng: np.random.Generator, scan: Scan) -> Array:
    """What a scanner makes of it: texture, partial volume and correlated noise; int16 HU."""
    hu = scan.hu + np.where(scan.hu > -300, 3 * field(rng, scan.axes, 16), 0)
    blur_mm = np.array((0.4 * scan.spacing[0], *[rng.uniform(0.6, 1.0)] * 2))
    hu = ndimage.gaussian_filter(hu, blur_mm / scan.spacing, truncate=3)
    noise = rng.standard_normal(hu.shape, dtype=np.float32)
    noise = ndimage.gaussian_filter(noise, (0.3, 0.7, 0.7), truncate=2.5)
    hu += rng.uniform(8, 25) / max(float(noise.std()), 1e-3) * noise
    voxels: Array = np.clip(np.rint(hu), -1024, 3071).astype(np.int16)
    return voxels
