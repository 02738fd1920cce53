"""The trunk: skin, fat, the muscle wall, the diaphragm, and the bones in the wall."""

import numpy as np

from clickseg_train.phantom.geometry import Array, bend, field, grid
from clickseg_train.phantom.patient import LABELS, LEVEL_MM, Patient
from clickseg_train.phantom.scan import Scan, paint


def draw_trunk(
    rng: np.random.Generator,
    patient: Patient,
    shape: tuple[int, int, int],
    spacing: tuple[float, float, float],
) -> Scan:
    """Air, couch, skin, fat, the muscle wall and a cavity of fat; nothing is labelled yet."""
    axes = _lay_axes(rng, shape, spacing)
    z, y, x = grid(axes)
    waist = 1 - 0.04 * np.cos((z + 120) / 70) - 0.0004 * np.maximum(z, 0)
    width, depth = patient.half_width * waist, patient.half_depth * waist
    level = (np.abs(x / width) ** 2.5 + np.abs(y / depth) ** 2.3) ** np.float32(1 / 2.4)
    within = (1 - level) * (0.5 * (patient.half_width + patient.half_depth))
    within += 2.5 * field(rng, axes, 45)
    # More fat over the flanks and the belly than over the back and the chest.
    belly = 1 + 0.5 * np.tanh(y / 60) * (z < 0) - 0.2 * np.tanh(z / 40)
    fat = patient.fat_mm * np.clip(belly + 0.25 * field(rng, axes, 40), 0.4, 2)
    # The shoulder girdle: the wall thickens upwards and the chest narrows within it.
    muscle = patient.muscle_mm + 0.0018 * np.maximum(z, 0) ** 2
    inside = within - fat - muscle

    hu = np.full(shape, -1000, np.float32)
    np.copyto(hu, -350, where=np.abs(y - x**2 / 900 + patient.half_depth + 14) < 3)  # the couch
    hu[within > 0] = patient.hu["skin"]
    hu[within > 2.2] = patient.hu["fat"]
    hu[within > fat] = patient.hu["muscle"]
    # Muscles lie in layers: thin fat planes between them.
    hu[(np.abs(inside + 0.55 * patient.muscle_mm) < 0.8) & (field(rng, axes, 22) > 0.3)] = -30
    hu[inside > 0] = patient.hu["fat"]
    for side in (-1, 1):
        back = ((x - side * 31) / 27) ** 2 + ((y - patient.spine_y + 33) / 20) ** 2 < 1
        back = back & (inside > -3)
        hu[back] = patient.hu["muscle"] - 5
        inside[back] = -3
    return Scan(hu, np.zeros(shape, np.uint8), axes, spacing, inside, _below_dome(rng, axes))


def _lay_axes(
    rng: np.random.Generator, shape: tuple[int, int, int], spacing: tuple[float, float, float]
) -> tuple[Array, ...]:
    """The voxel centres: two thirds of the field of view lie below the dome."""
    foot = -shape[0] * spacing[0] * rng.uniform(0.63, 0.67)
    middle = rng.uniform(-4, 4, 2)
    starts = (foot, *(middle - np.multiply(shape[1:], spacing[1:]) / 2))
    return tuple(
        (start + step * np.arange(size)).astype(np.float32)
        for start, step, size in zip(starts, spacing, shape, strict=True)
    )


def _below_dome(rng: np.random.Generator, axes: tuple[Array, ...]) -> Array:
    """Mm below the diaphragm, (z, y, x) float32: two domes, the right one higher."""
    z, y, x = grid(axes)
    domes = []
    for side, peak in ((1, 0.0), (-1, rng.uniform(-20, -8))):
        across = side * x - rng.uniform(56, 66)
        along = y - rng.uniform(5, 15)
        fall = 45 * (across / np.where(across > 0, 55, 85)) ** 2
        fall = fall + np.where(along > 0, 30, 38) * (along / 80) ** 2
        domes.append(peak - np.minimum(fall, rng.uniform(52, 66)))
    height = np.maximum(*domes) + 3.5 * field(rng, axes[1:], 30)[None]
    below: Array = (height - z).astype(np.float32)
    return below


def paint_spine(rng: np.random.Generator, patient: Patient, scan: Scan) -> None:
    """Vertebral bodies with cortical shells, discs, arches and processes, and the canal."""
    z, y, x = grid(scan.axes)
    y = y - patient.spine_y - bend(rng, z, 4)
    x = x - bend(rng, z, 3)
    hu, spine = patient.hu, LABELS["spine"]
    # Mm from the middle of the nearest vertebral body; the disc lies beyond 13 mm.
    level = np.abs((z + patient.spine_phase) % LEVEL_MM - LEVEL_MM / 2)
    waist = 0.93 + 0.07 * (level / 13) ** 2
    body = np.sqrt((x / (22 * waist)) ** 2 + (y / (16.5 * waist)) ** 2)
    core = (1 - body) * 17
    body, disc = body < 1, level > 13
    psoas = np.clip((-z - 80) / 6, 0, 19)
    for side in (-1, 1):
        belly = ((x - side * (24 + 0.6 * psoas)) ** 2 + (y + 2) ** 2) < psoas**2
        paint(scan, belly & (scan.inside > -3), hu["muscle"])
    behind = y + 26
    ring = np.sqrt(x**2 + behind**2)
    arch = (ring < 14) & (ring > 8) & (level < 9)
    process = (np.abs(x) < 3.5) & (behind < -8) & (behind > -25 - level) & (level < 10)
    wings = (np.abs(x) < 40) & (np.abs(x) > 8) & (np.abs(behind - 4) < 4.5) & (level < 6)
    back = (arch | process | wings) & (ring > 8) & ~body & (scan.inside > -patient.muscle_mm)
    marrow = hu["marrow"] + 25 * field(rng, scan.axes, 4)
    shell = body & ~disc & ((core < 2.2) | (level > 11))
    paint(scan, back, 0.6 * hu["cortical"] + 0.4 * marrow, spine)
    paint(scan, body, marrow, spine)
    paint(scan, shell, hu["cortical"] * rng.uniform(0.6, 1), spine)
    paint(scan, body & disc, hu["disc"], spine)
    paint(scan, (ring < 8) & ~body, hu["fluid"] + 15)


def paint_ribs(rng: np.random.Generator, patient: Patient, scan: Scan) -> None:
    """Twelve or fewer pairs of arcs in the muscle wall, lower at the side than at the back."""
    middle = -0.5 * patient.muscle_mm
    shell = np.nonzero(np.abs(scan.inside - middle) < 4.5)
    z, y, x = (axis[index] for axis, index in zip(scan.axes, shell, strict=True))
    angle = np.degrees(np.arctan2(np.abs(x), -(y + 10)))  # 0 at the back, 180 in front
    pitch, lowest = rng.uniform(27, 31), rng.uniform(-85, -65)
    drop = rng.uniform(42, 55) * np.sin(np.radians(np.clip(angle * 0.8, 0, 115)))
    count = (z + drop - lowest) / pitch
    nearest = np.round(count)
    across = np.hypot((count - nearest) * pitch / 6.5, (scan.inside[shell] - middle) / 3.8)
    reach = np.minimum(75 + 30 * nearest, 142)
    rib = (nearest >= 0) & (across < 1) & (angle < reach) & (np.abs(x) > 26)
    place = tuple(index[rib] for index in shell)
    marrow = across[rib] < 0.5
    scan.hu[place] = np.where(marrow, patient.hu["marrow"], 0.75 * patient.hu["cortical"])
    scan.label[place] = LABELS["ribs"]
