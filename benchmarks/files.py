"""A scan is loaded and a mask is saved, beside nibabel and SimpleITK.

Writes results/files.json. What the contenders read and write is compared before it is timed.
"""

import tempfile
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk  # noqa: N813
from contest import contest, write
from numpy.typing import NDArray
from scans import scan_file

import clickseg_infer as cs

SLICES = 300
ROUNDS = 15


def loading(path: Path) -> dict[str, object]:
    contenders = {
        "clickseg": lambda: cs.read_volume(path).voxels,
        "nibabel dataobj": lambda: np.asanyarray(nib.load(path).dataobj).T,
        "nibabel get_fdata": lambda: nib.load(path).get_fdata().T,
        "SimpleITK": lambda: sitk.GetArrayFromImage(sitk.ReadImage(path)),
    }
    expected = contenders["nibabel dataobj"]()
    for name, load in contenders.items():
        assert np.array_equal(load(), expected), name
    return contest(contenders, ROUNDS)


def saving(path: Path, folder: Path) -> dict[str, object]:
    volume, affine = cs.read_volume(path), nib.load(path).affine
    mask = ellipsoid(volume.shape)

    def with_sitk(out: Path) -> None:
        image = sitk.GetImageFromArray(mask)
        image.SetSpacing(volume.spacing_mm[::-1])
        sitk.WriteImage(image, out, useCompression=True)

    savers = {
        "clickseg": lambda out: cs.write_mask(out, mask, like=volume),
        "nibabel": lambda out: nib.save(nib.Nifti1Image(mask.T, affine), out),
        "SimpleITK": with_sitk,
    }
    contenders = {}
    for name, save in savers.items():
        out = folder / f"{name}.nii.gz"
        save(out)
        assert np.array_equal(np.asanyarray(nib.load(out).dataobj).T, mask), name
        contenders[name] = partial(save, out)
    return contest(contenders, ROUNDS)


def ellipsoid(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """An object of a third of the volume's size along each axis."""
    grids = np.ogrid[tuple(slice(-3, 3, n * 1j) for n in shape)]
    return (sum(grid**2 for grid in grids) < 1).astype(np.uint8)


def main() -> None:
    path = scan_file(SLICES)
    with tempfile.TemporaryDirectory() as folder:
        saved = saving(path, Path(folder))
    write("files", {"shape": [SLICES, 512, 512], "load": loading(path), "save": saved})


if __name__ == "__main__":
    main()
