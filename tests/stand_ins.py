"""Small stand-ins for what clickseg works on: a spec, a network, a scan, a dataset."""

import itertools
import json
import zlib
from pathlib import Path

import numpy as np

import clickseg_infer as cs
from clickseg_infer.meaning import Meaning

ORIENTATIONS = [
    np.stack([axes, flips], axis=1)
    for axes in itertools.permutations(range(3))
    for flips in itertools.product((1, -1), repeat=3)
]
"""All 48 axis orders and directions, as nibabel writes them."""


def make_spec(**changes: object) -> cs.ModelSpec:
    values: dict = {
        "name": "test",
        "patch_size": (32, 32, 32),
        "spacing_mm": (2.0, 2.0, 2.0),
        "overview_spacing_mm": (4.0, 4.0, 4.0),
        "hu_windows": {"ct": (-200.0, 200.0)},
        "channels": ("ct", "positive", "negative", "previous", "geodesic_positive"),
        "click_radius": 2,
        **changes,
    }
    return cs.ModelSpec(**values)


def bright(batch: np.ndarray) -> np.ndarray:
    """A stand-in network: voxels above 0 HU near what is known, and never near negative clicks."""
    ct, positive, negative, previous = (batch[:, n : n + 1] for n in range(4))
    there = (positive.max() > 0) | (previous.max() > 0)
    logits = np.where((ct > 0) & there, 4.0, -4.0) + 0.3 * previous
    return (logits - 20 * negative).astype(np.float32)


def touchy(batch: np.ndarray) -> np.ndarray:
    """As `bright`, with holes whose places depend on every bit of the input."""
    field = np.random.default_rng(zlib.crc32(batch.tobytes())).random(batch.shape[2:])
    return np.where(field < 0.1, -4.0, bright(batch)).astype(np.float32)


def make_ball(radius_mm: float, shape: tuple[int, int, int] = (40, 80, 100)) -> cs.Volume:
    spacing = np.array([3.0, 1.5, 1.2])
    grid = np.indices(shape).reshape(3, -1).T - np.array(shape) // 2
    inside = np.linalg.norm(grid * spacing, axis=1).reshape(shape) <= radius_mm
    voxels = np.where(inside, 100, -100).astype(np.int16)
    return cs.Volume(voxels, np.diag([1.2, 1.5, 3.0, 1.0]))


def write_dataset_json(folder: Path, names: list[str], **changes: object) -> None:
    training = [
        {"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in names
    ]
    content = {
        "name": "Small",
        "licence": "CC0",
        "relase": "1.0",
        "labels": {"0": "background", "1": "liver", "2": "spleen"},
        "training": training,
        **changes,
    }
    (folder / "dataset.json").write_text(json.dumps(content))


# In float32: on some CPUs oneDNN's bfloat16 gradients for maps of 2^3 voxels are not repeatable.
TINY_TOML = """
autocast = "float32"
steps = 4
batch = 2
patch_size = [32, 32, 32]
checkpoint_every = 2
warm_up = 1

[network]
width = 4
stem_size = 3
pyramid_width = 8
decoder_width = 4
middle_width = 4
refine_width = 4
detail_width = 4

[sampling]
labels = 0.6
regions = 0.2
supervoxels = 0.1
pasted = 0.2
spacing_mm = [3.0, 5.0]

[model]
name = "tiny"
patch_size = [32, 32, 32]
spacing_mm = [3.0, 3.0, 3.0]
overview_spacing_mm = [6.0, 6.0, 6.0]
hu_windows = { ct = [-160, 240], ct_wide = [-1000, 600] }
click_channels = ["positive", "negative", "previous", "geodesic_positive", "intensity_difference"]
click_radius = 2
"""


def chances_of(*named: float, cells: int = 4) -> np.ndarray:
    """The same chances everywhere; what is left has no name."""
    everywhere = np.array([1 - sum(named), *named], np.float32)
    return np.tile(everywhere[:, None, None, None], (1, cells, cells, cells))


def meaning_of(none: float, whole: list[float], part: list[float]) -> Meaning:
    return Meaning(none, np.array(whole, np.float32), np.array(part, np.float32))
