"""The scans that benchmarks run on: 512 x 512, as many slices as asked for, always the same."""

import os
from pathlib import Path

import nibabel as nib
import numpy as np

import clickseg_infer as cs
from clickseg_train.phantom import phantom

ROOT = Path(__file__).resolve().parents[1]
CHEST = ROOT.parent / "shared" / "data" / "Task23_ChestOrgans" / "imagesTr" / "chest_001.nii.gz"
SPLEEN = (40, 198, 133)
"""A voxel (z, y, x) in the real chest's spleen; somewhere in the body of a phantom."""
FOLDER = ROOT / "data" / "bench"


def scan(slices: int) -> cs.Volume:
    """A CT of (slices, 512, 512) int16 HU: real slices, mirrored where they end.

    Without the real CT beside the checkout it is a phantom.
    """
    found = cs.read_volume(CHEST) if CHEST.exists() else _enlarged_phantom()
    missing = max(0, slices - len(found.voxels))
    voxels = np.pad(found.voxels, ((0, missing), (0, 0), (0, 0)), mode="reflect")
    return cs.Volume(voxels[:slices], found.affine)


def scan_file(slices: int) -> Path:
    """That scan as nibabel writes it, .nii.gz; made once and kept in data/bench."""
    kind = "chest" if CHEST.exists() else "phantom"
    path = FOLDER / f"{kind}_{slices}.nii.gz"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        volume = scan(slices)
        partial = path.with_name(f"partial_{path.name}")
        nib.save(nib.Nifti1Image(volume.voxels.T, volume.affine), partial)
        os.replace(partial, path)
    return path


def _enlarged_phantom() -> cs.Volume:
    drawn = phantom(0, shape=(96, 256, 256)).volume
    voxels = drawn.voxels.repeat(2, axis=1).repeat(2, axis=2)
    return cs.Volume(voxels, drawn.affine @ np.diag([0.5, 0.5, 1, 1]))
