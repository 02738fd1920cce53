"""The chest: the lungs, and the airway, the gullet and the heart between them."""

import numpy as np

from clickseg_train.phantom.geometry import ellipsoid, field, grid, line
from clickseg_train.phantom.patient import LABELS, Patient
from clickseg_train.phantom.scan import TOP_MM, Scan, box_around, crop, paint, tube


def paint_lung(rng: np.random.Generator, patient: Patient, scan: Scan, side: int) -> None:
    """One lung above the diaphragm; its vessels are part of it. `side` is 1 for the right."""
    label = LABELS["lung_right" if side > 0 else "lung_left"]
    x = grid(scan.axes)[2]
    margin = 24 + 3 * field(rng, scan.axes, 30)
    chest = (scan.inside > 0) & (side * x > -2)
    paint(scan, chest & (scan.below < 3) & (scan.below > -60), patient.hu["muscle"])
    paint(scan, chest & (scan.below < 0), patient.hu["fat"])
    mask = (scan.inside > 1) & (scan.below < 0) & (side * x > margin)
    paint(scan, mask, patient.hu["lung"] + 25 * field(rng, scan.axes, 14), label)
    root = np.array((45.0, -8, side * 28))
    top = float(scan.axes[0][-1])
    for _ in range(26):
        tip = rng.uniform((-45, -70, 40), (max(top, 60), 60, 115)) * (1, 1, side)
        path = line(rng, (root, 0.5 * (root + tip) + rng.normal(0, 7, 3), tip), 5)
        tube(scan, path, np.linspace(rng.uniform(3, 6), 0.8, len(path)), 35, label, mask)


def paint_airway(rng: np.random.Generator, patient: Patient, scan: Scan) -> None:
    """Oesophagus, windpipe and main bronchi, background, between the lungs."""
    front = patient.spine_y + 17
    gullet = line(rng, ((-35, front + 21, -12), (TOP_MM, front + 17, -2)), 3)
    tube(scan, gullet, 7, patient.hu["muscle"])
    carina = (84, front + 34, 2)
    ends = ((TOP_MM, front + 34, 2), (58, front + 30, 36), (58, front + 30, -36))
    for radius, tissue in ((9, "muscle"), (7, "gas")):
        for end in ends:
            path = line(rng, (carina, end), 0)
            tube(scan, path, radius, patient.hu[tissue], over=scan.label == 0)


def paint_heart(rng: np.random.Generator, patient: Patient, scan: Scan) -> None:
    """The heart in its fat and its great vessels, background, between the lungs."""
    centre = rng.uniform((24, 16, -34), (34, 26, -24))
    part = crop(scan, box_around(scan, centre, 85))
    # Tall enough for the diaphragm to cut it flat: a heart rests on the dome.
    heart = ellipsoid(part.axes, centre, rng.uniform((54, 38, 46), (64, 44, 54)))
    heart = heart + 3 * field(rng, part.axes, 20)
    room = (part.inside > 3) & (part.below < -3)
    blood = 0.5 * (patient.hu["aorta"] + patient.hu["vena_cava"])
    paint(part, room & (heart < 4), patient.hu["fat"])
    paint(part, room & (heart < 0), max(70.0, 0.7 * blood))
    paint(part, room & (heart < -9) & (field(rng, part.axes, 18) > -0.6), blood)  # chambers
    # A fat pad under it, where the dome is lower than the heart reaches.
    z, y, x = grid(part.axes)
    under = ((y - centre[1]) / 34) ** 2 + ((x - centre[2]) / 42) ** 2 < 1
    pad = under & (z < centre[0]) & (part.inside > 3) & (part.below < 0) & (heart > 4)
    paint(part, pad, patient.hu["fat"])
    for name, across in (("aorta", 6), ("vena_cava", 24)):  # as they leave and enter the heart
        path = line(rng, ((55, 30, across - 8), (TOP_MM, 14, across)), 2)
        tube(scan, path, 11, patient.hu[name])
