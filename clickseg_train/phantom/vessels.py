"""The great vessels of the abdomen and their branches, and the pancreas that they cross."""

from collections.abc import Iterator

import numpy as np

from clickseg_train.phantom.geometry import Array, Vector, bend, line
from clickseg_train.phantom.patient import LABELS, Patient
from clickseg_train.phantom.scan import Scan, tube


def paint_great_vessels(rng: np.random.Generator, patient: Patient, scan: Scan) -> None:
    """Aorta and vena cava before the spine, with iliac, renal and visceral branches."""
    front, top = patient.spine_y + 17, float(scan.axes[0][-1]) + 5
    fork = -196.0
    aorta = line(rng, ((fork, front + 12, -4), (-20, front + 15, -12), (top, front + 4, -24)), 3)
    cava = line(rng, ((fork, front + 10, 16), (-90, front + 14, 20), (20, front + 32, 24)), 3)
    aorta_mm, cava_mm = rng.uniform(8.5, 11.5), rng.uniform(9.5, 12.5)
    _paint_pancreas(rng, patient, scan)
    room = (scan.inside > 0) & (scan.label != LABELS["spine"])
    for name, trunk, radius_mm in (("vena_cava", cava, cava_mm), ("aorta", aorta, aorta_mm)):
        hu, label = patient.hu[name], LABELS[name]
        for points, branch_mm in _branches(patient, name, trunk, radius_mm):
            tube(scan, line(rng, points, 2), branch_mm, hu, label, room)
        tube(scan, trunk, radius_mm, hu, label, room)


def _branches(
    patient: Patient, name: str, trunk: Array, radius_mm: float
) -> Iterator[tuple[tuple[Vector, ...], float]]:
    """The points and the radius of each branch of a great vessel."""
    for side in (-1, 1):
        hilum = (-98 if side > 0 else -88, patient.spine_y + 14, side * 44)
        root = _at_height(trunk, hilum[0] + 5)
        # The left renal vein passes before the aorta.
        lift = (0, 24 if name == "vena_cava" and side < 0 else 6, 0)
        yield (root, (root + hilum) / 2 + lift, hilum), 3.6
        yield (trunk[0], trunk[0] + (-80, -8, side * 50 + 6)), 0.7 * radius_mm
    if name == "aorta":
        coeliac = _at_height(trunk, -62)
        yield (coeliac, np.add(coeliac, (-4, 26, 2)), (-70, 10, -70)), 2.8
        yield (coeliac - (14, 0, 0), np.add(coeliac, (-40, 30, 6)), (-150, 25, 8)), 3.2


def _at_height(path: Array, z_mm: float) -> Array:
    """The point (z, y, x) of a path nearest to a height."""
    point: Array = path[np.argmin(np.abs(path[:, 0] - z_mm))]
    return point


def _paint_pancreas(rng: np.random.Generator, patient: Patient, scan: Scan) -> None:
    """The pancreas and the portal vein, both background, where no organ is."""
    room = (scan.label == 0) & (scan.inside > 0)
    pancreas = line(rng, ((-105, 8, 36), (-85, 22, 0), (-72, 4, -55)), 4)
    tube(scan, pancreas, 9 + bend(rng, np.arange(len(pancreas)) * 6.0, 2.5), 75, over=room)
    portal = line(rng, ((-140, 22, 16), (-85, 8, 24)), 2)
    tube(scan, portal, 5, patient.hu["vena_cava"] + 10, over=room)
