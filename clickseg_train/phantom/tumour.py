"""The tumour: one mass of a visible size, in an organ or in the wall."""

import numpy as np
from scipy import ndimage

from clickseg_train.phantom.geometry import ellipsoid, field
from clickseg_train.phantom.patient import LABELS, Patient
from clickseg_train.phantom.scan import Scan, box_around, crop, paint

_LEAST_VOXELS = 150
_HOSTS = ("liver", "liver", "kidney_left", "kidney_right", "lung_left", "lung_right", "wall")


def paint_tumour(rng: np.random.Generator, patient: Patient, scan: Scan) -> None:
    """One lumpy mass in a host drawn at random, wide enough for its least number of voxels."""
    # The radius of a ball of 2.2 times the least volume, for the host's border cuts some off.
    least_mm = float(3 * 2.2 * _LEAST_VOXELS * np.prod(scan.spacing) / (4 * np.pi)) ** (1 / 3)
    wall = (scan.label == 0) & (np.abs(scan.inside + 0.5 * patient.muscle_mm) < 5)
    for host in rng.permutation(_HOSTS):
        home = wall if host == "wall" else scan.label == LABELS[host]
        places = np.argwhere(ndimage.binary_erosion(home))
        if len(places) == 0:
            continue
        at = rng.choice(places)
        centre = np.array([axis[k] for axis, k in zip(scan.axes, at, strict=True)])
        radius = max(rng.uniform(8, 20 if host != "wall" else 14), least_mm)
        box = box_around(scan, centre, 1.9 * radius)
        part = crop(scan, box)
        blob = ellipsoid(part.axes, centre, radius * rng.uniform(0.85, 1.15, 3))
        blob = blob + 0.18 * radius * field(rng, part.axes, 0.45 * radius)
        # It may bulge out of its host, but not into another organ or out of the skin.
        free = (part.label == 0) & (part.inside > -patient.muscle_mm)
        mask = (blob < 0) & (home[box] | free)
        if np.count_nonzero(mask) < _LEAST_VOXELS:
            continue
        hu = _tumour_hu(rng, str(host), float(np.median(scan.hu[home])))
        paint(part, mask, hu + 4 * field(rng, part.axes, 6), LABELS["tumour"])
        if rng.random() < 0.4:  # necrosis
            paint(part, mask & (blob < -0.5 * radius), hu - 15, LABELS["tumour"])
        return


def _tumour_hu(rng: np.random.Generator, host: str, host_hu: float) -> float:
    """Soft tissue in a lung, brighter than a muscle, darker than an organ."""
    contrast = float(rng.uniform(15, 60))
    if host.startswith("lung"):
        return contrast
    return host_hu + contrast if host == "wall" else max(host_hu - contrast, 15.0)
