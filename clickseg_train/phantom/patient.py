"""The patient: the labels of a phantom, and what is drawn once for all of its tissues."""

from dataclasses import dataclass

import numpy as np

LABELS: dict[str, int] = {
    "background": 0,
    "liver": 1,
    "spleen": 2,
    "kidney_left": 3,
    "kidney_right": 4,
    "lung_left": 5,
    "lung_right": 6,
    "aorta": 7,
    "vena_cava": 8,
    "spine": 9,
    "ribs": 10,
    "tumour": 11,
}

LEVEL_MM = 34.0  # one vertebra and the disc above it

# Ranges in HU; one value per tissue is drawn for a case.
_TISSUE_HU = {
    "skin": (10, 50),
    "fat": (-110, -80),
    "muscle": (45, 65),
    "lung": (-850, -700),
    "fluid": (0, 20),
    "gas": (-930, -870),
    "marrow": (110, 230),
    "cortical": (700, 1200),
    "disc": (65, 100),
    "bowel": (30, 90),
}
_PHASE_HU = {
    "arterial": {
        "aorta": (180, 250),
        "vena_cava": (40, 90),
        "liver": (52, 75),
        "spleen": (70, 130),
        "cortex": (140, 200),
        "medulla": (60, 90),
    },
    "portal": {
        "aorta": (120, 170),
        "vena_cava": (110, 160),
        "liver": (85, 118),
        "spleen": (90, 130),
        "cortex": (150, 200),
        "medulla": (110, 145),
    },
    "late": {
        "aorta": (85, 115),
        "vena_cava": (75, 110),
        "liver": (60, 95),
        "spleen": (50, 90),
        "cortex": (110, 150),
        "medulla": (85, 105),
    },
}


@dataclass(frozen=True)
class Patient:
    """One patient.

    Attributes:
        half_width: of the trunk, mm, skin included.
        half_depth: of the trunk, mm, skin included.
        fat_mm: the layer under the skin.
        muscle_mm: the wall between that fat and the cavity.
        spine_y: the middle of the vertebral bodies, mm.
        spine_phase: how far the vertebrae are shifted along z, mm, below LEVEL_MM.
        hu: tissue -> HU.
    """

    half_width: float
    half_depth: float
    fat_mm: float
    muscle_mm: float
    spine_y: float
    spine_phase: float
    hu: dict[str, float]


def draw_patient(rng: np.random.Generator) -> Patient:
    """Draw the sizes and, for one contrast phase, the HU of every tissue."""
    phase = _PHASE_HU[str(rng.choice(list(_PHASE_HU)))]
    hu = {name: float(rng.uniform(*span)) for name, span in (_TISSUE_HU | phase).items()}
    half_depth = rng.uniform(100, 118)
    return Patient(
        half_width=rng.uniform(142, 160),
        half_depth=half_depth,
        fat_mm=rng.uniform(8, 18),
        muscle_mm=rng.uniform(13, 17),
        spine_y=-half_depth + rng.uniform(56, 62),
        spine_phase=rng.uniform(0, LEVEL_MM),
        hu=hu,
    )
