"""The bundled model follows clicks on real scans."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

import clickseg_infer as cs
from clickseg_train.cases import read_dataset
from clickseg_train.evaluate import Protocol, evaluate


def test_sarcomas_after_five_clicks(shared_data: Path) -> None:
    cases = read_dataset(shared_data / "Task20_SoftTissueSarcoma").val
    assert len(cases) == 3
    with cs.load_model() as model:
        result = evaluate(model, cases, Protocol(5, surfaces=False))
    assert result.mean_dice[4] >= 0.70
    assert result.mean_dice[4] > result.mean_dice[0]


@pytest.mark.parametrize(
    ("image", "label", "value"),
    [
        ("fixtures/ts_aorta_image.nii.gz", "fixtures/ts_aorta_label.nii.gz", 1),
        (
            "Task21_AbdomenPelvis/imagesTr/abdomen_001.nii.gz",
            "Task21_AbdomenPelvis/labelsTr/abdomen_001.nii.gz",
            5,  # liver
        ),
    ],
)
def test_masks_of_real_scans_keep_their_geometry(
    image: str, label: str, value: int, shared_data: Path, tmp_path: Path
) -> None:
    volume = cs.read_volume(shared_data / image)
    truth = cs.read_label(shared_data / label, like=volume) == value
    with cs.load_model() as model:
        session = cs.Session(model, volume)
        for _ in range(4):
            click = cs.next_click(truth, session.mask, volume.spacing_mm)
            assert click is not None
            session.click(click.zyx, click.positive)
    assert cs.dice(truth, session.mask) > 0.6
    cs.write_mask(tmp_path / "mask.nii.gz", session.mask, like=volume)
    ours, theirs = nib.load(tmp_path / "mask.nii.gz"), nib.load(shared_data / image)
    assert ours.shape == theirs.shape
    assert np.array_equal(ours.affine, theirs.affine)
    for field in ("qform_code", "sform_code", "srow_x", "quatern_b", "qoffset_x", "xyzt_units"):
        assert np.array_equal(ours.header[field], theirs.header[field]), field
    assert np.array_equal(np.asarray(ours.dataobj).sum(), session.mask.sum())
