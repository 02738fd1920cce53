"""The abdomen: bowel, stomach, liver, spleen and kidneys."""

import numpy as np

from clickseg_train.phantom.geometry import bend, ellipsoid, field, grid, join, line
from clickseg_train.phantom.patient import LABELS, Patient
from clickseg_train.phantom.scan import Scan, abdomen, box_around, crop, paint, tube


def paint_bowel(rng: np.random.Generator, patient: Patient, scan: Scan) -> None:
    """Small bowel and colon, all background, so that fat is not all there is."""
    room = abdomen(scan)
    hu = patient.hu
    mesentery = room & (field(rng, scan.axes, 9) > 1.3)
    scan.hu[mesentery] += 25  # small vessels, finer than the grid
    for _ in range(16):
        start = rng.uniform((-205, -5, -75), (-95, 65, 75))
        path = line(rng, start + np.cumsum(rng.normal(0, (14, 14, 26), (7, 3)), axis=0), 8)
        path[:, 1] = np.maximum(path[:, 1], -8)  # before the kidneys and the great vessels
        radius = rng.uniform(9, 13) + bend(rng, np.arange(len(path)) * 2.0, 2)
        content = float(rng.choice([hu["fluid"], hu["bowel"] - 30, 30]))
        tube(scan, path, radius, hu["bowel"], over=room)
        tube(scan, path, radius - 3, content, over=room)
    right, left = ((-195, 8, 92), (-95, 15, 90)), ((-195, -10, -98), (-70, 0, -100))
    transverse = ((-95, 15, 90), (-125, 58, 45), (-130, 62, -20), (-70, 20, -92))
    for points in (right, left, transverse):
        path = line(rng, points, 6)
        haustra = rng.uniform(15, 19) + 2.5 * np.sin(np.arange(len(path)) / 2.8)
        tube(scan, path, haustra, hu["muscle"], over=room)
        tube(scan, path, haustra - 2.5, rng.uniform(0, 40), over=room)
        tube(scan, np.add(path, (0, 5, 0)), haustra - 8, hu["gas"], over=room)
        # Clumps of stool; they fall into fluid-filled small bowel too, which does no harm.
        stool = room & (scan.hu < 41) & (scan.hu > -1) & (field(rng, scan.axes, 4) > 1)
        scan.hu[stool] = -60


def paint_stomach(rng: np.random.Generator, patient: Patient, scan: Scan) -> None:
    """A walled sac under the left dome: fluid, and gas above it, for the patient lies supine."""
    centre = rng.uniform((-75, 22, -62), (-60, 34, -48))
    part = crop(scan, box_around(scan, centre, 75))
    bulk = ellipsoid(part.axes, centre, rng.uniform((36, 28, 34), (46, 36, 42)))
    tail = ellipsoid(part.axes, np.add(centre, (-28, 12, 42)), (20, 20, 38))
    sac = join(bulk, tail, 20) + 3 * field(rng, part.axes, 18)
    room = abdomen(part)
    gas = grid(part.axes)[1] > centre[1] + rng.uniform(6, 22)
    paint(part, room & (sac < 0), patient.hu["muscle"])
    paint(part, room & (sac < -4), patient.hu["fluid"])
    paint(part, room & (sac < -4) & gas, patient.hu["gas"])


def paint_liver(rng: np.random.Generator, patient: Patient, scan: Scan) -> None:
    """Two lobes under the right dome, cut obliquely below, with vessels and a gallbladder."""
    part = crop(scan, box_around(scan, (-75, 0, 40), (115, 120, 125)))
    axes = part.axes
    z, y, x = grid(axes)
    bulk = ellipsoid(axes, rng.uniform((-72, -4, 55), (-62, 6, 63)), rng.uniform(70, 80, 3))
    lobe = ellipsoid(
        axes, rng.uniform((-62, 34, -2), (-52, 44, 14)), rng.uniform((28, 26, 52), (36, 32, 68))
    )
    body = join(bulk, lobe, 25)
    # The visceral surface rises to the left and to the back.
    lowest = rng.uniform(-138, -118) + 0.55 * (60 - x) - 0.12 * y
    body = np.maximum(body, 0.85 * (lowest - z))
    body = body + 5 * field(rng, axes, 26) + 1.5 * field(rng, axes, 10)
    hu, liver = patient.hu["liver"], LABELS["liver"]
    paint(part, (body < 0) & abdomen(part), hu + 3 * field(rng, axes, 9), liver)
    porta, veins = np.array((-85.0, 8, 24)), np.array((-32.0, -20, 24))
    over = scan.label == liver
    for root in (porta, veins):
        for _ in range(7):
            tip = rng.uniform((-125, -45, -20), (-20, 55, 110))
            path = line(rng, (root, (root + tip) / 2 + rng.normal(0, 8, 3), tip), 4)
            radius = np.linspace(rng.uniform(3.5, 5.5), 1.2, len(path))
            tube(scan, path, radius, hu + 0.5 * (patient.hu["vena_cava"] - hu) + 12, liver, over)
    sac = rng.uniform((-118, 30, 35), (-105, 42, 50))
    part = crop(scan, box_around(scan, sac, 40))
    bile = ellipsoid(part.axes, sac, rng.uniform((20, 11, 11), (28, 16, 15)))
    paint(part, (bile < 0) & abdomen(part), patient.hu["fluid"])


def paint_spleen(rng: np.random.Generator, patient: Patient, scan: Scan) -> None:
    """A crescent at the back of the left dome, hollow towards the stomach."""
    centre = rng.uniform((-80, -34, -94), (-68, -24, -87))
    part = crop(scan, box_around(scan, centre, 85))
    body = ellipsoid(part.axes, centre, rng.uniform((50, 46, 32), (62, 58, 38)))
    hollow = ellipsoid(part.axes, centre + rng.uniform((-8, 12, 30), (4, 24, 38)), (48, 36, 22))
    body = np.maximum(body, -hollow) + 2.5 * field(rng, part.axes, 20)
    room = abdomen(part)
    paint(part, (body < 4) & room, patient.hu["fat"])  # between the spleen and the stomach
    pulp = patient.hu["spleen"] + 4 * field(rng, part.axes, 8)
    paint(part, (body < 0) & room, pulp, LABELS["spleen"])


def paint_kidney(rng: np.random.Generator, patient: Patient, scan: Scan, side: int) -> None:
    """A bean in its capsule of fat, hilum towards the midline. `side` is 1 for the right."""
    label, low = (LABELS["kidney_right"], -105) if side > 0 else (LABELS["kidney_left"], -92)
    up, forward = low + rng.uniform(-6, 8), patient.spine_y + rng.uniform(10, 16)
    centre = np.array((up, forward, side * rng.uniform(54, 60)))
    part = crop(scan, box_around(scan, centre, 80))
    z, y, x = (axis - mid for axis, mid in zip(grid(part.axes), centre, strict=True))
    # The upper pole leans to the midline and to the back.
    lean = z * np.float32(rng.uniform(0.12, 0.28))
    radii = rng.uniform((46, 25, 25), (56, 29, 30))
    u, v, w = z / radii[0], (y + 0.8 * lean) / radii[1], (x + side * lean) / radii[2]
    body = (np.sqrt(u**2 + v**2 + w**2) - 1) * float(radii[1])
    body = body + 1.6 * field(rng, part.axes, 14)
    sinus = centre - (0, -3, side * radii[2])
    hilum = ellipsoid(part.axes, sinus, (22, 9, rng.uniform(15, 19)))
    hilum = hilum + 1.5 * field(rng, part.axes, 7)
    room = (part.inside > -3) & (part.below > 3)
    bean = (body < 0) & (hilum > 0) & room
    pyramids = (body < -6) & (hilum < 13) & (field(rng, part.axes, 6) > -0.5)
    paint(part, (body < 6) & room, patient.hu["fat"])
    paint(part, bean, patient.hu["cortex"], label)
    paint(part, bean & pyramids, patient.hu["medulla"], label)
