import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nibabel.orientations import apply_orientation, inv_ornt_aff
from stand_ins import ORIENTATIONS

import clickseg_infer as cs
from clickseg_infer.files import read_label


def save(path: Path, voxels: np.ndarray, affine: np.ndarray, **codes: int) -> Path:
    image = nib.Nifti1Image(voxels, affine)
    image.set_qform(affine, code=codes.get("qform", 1))
    image.set_sform(affine, code=codes.get("sform", 2))
    nib.save(image, path)
    return path


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=str)
def test_every_orientation_gives_the_same_volume_and_its_own_file_back(
    orientation: np.ndarray, tmp_path: Path, rng: np.random.Generator
) -> None:
    reference = rng.integers(-1000, 1000, (5, 6, 7)).astype(np.int16)  # x, y, z
    affine = np.array([[1.5, 0, 0, -10], [0, 2, 0, 20], [0, 0, 3, -30], [0, 0, 0, 1.0]])
    stored = apply_orientation(reference, orientation)
    stored_affine = affine @ inv_ornt_aff(orientation, reference.shape)
    path = save(tmp_path / "a.nii.gz", stored, stored_affine)

    volume = cs.read_volume(path)
    assert np.array_equal(volume.voxels, reference.T)
    assert np.allclose(volume.affine, affine)
    assert volume.spacing_mm == pytest.approx((3, 2, 1.5))

    cs.write_mask(tmp_path / "m.nii.gz", volume.voxels > 0, like=volume)
    mask = nib.load(tmp_path / "m.nii.gz")
    assert np.array_equal(np.asarray(mask.dataobj), stored > 0)
    assert np.array_equal(mask.affine, nib.load(path).affine)

    ijk = (1, 2, 3) if min(stored.shape) > 3 else (1, 2, 1)
    zyx = volume.zyx_of_ijk(ijk)
    assert volume.voxels[zyx] == stored[ijk]
    assert volume.ijk_of_zyx(zyx) == ijk
    ras = tuple((stored_affine @ [*ijk, 1])[:3])
    assert volume.zyx_of_ras(ras) == zyx
    assert volume.ras_of_zyx(zyx) == pytest.approx(ras)


@pytest.mark.parametrize(("qform", "sform"), [(0, 0), (1, 0), (0, 1), (1, 1), (3, 4)])
def test_header_codes_survive(tmp_path: Path, qform: int, sform: int) -> None:
    affine = np.diag([-1.0, -1.0, 2.5, 1.0])
    path = save(tmp_path / "a.nii", np.ones((3, 4, 5), np.int16), affine, qform=qform, sform=sform)
    volume = cs.read_volume(path)
    cs.write_mask(tmp_path / "m.nii", volume.voxels > 0, like=volume)
    image, mask = nib.load(path).header, nib.load(tmp_path / "m.nii").header
    for field in ("qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "pixdim", "quatern_b"):
        assert np.array_equal(image[field], mask[field]), field
    assert mask.get_data_dtype() == np.uint8
    assert mask["scl_slope"] in (0, 1) or np.isnan(mask["scl_slope"])


def test_scaled_integers_become_hounsfield_units(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.arange(24, dtype=np.uint16).reshape(2, 3, 4) * 100, np.eye(4))
    image.header.set_slope_inter(1, -1024)
    nib.save(image, tmp_path / "a.nii.gz")
    raw = gzip.decompress((tmp_path / "a.nii.gz").read_bytes())
    assert np.frombuffer(raw[112:120], "<f4").tolist() == [1, -1024]
    # nibabel scales back while saving: what is stored times the slope is what was given.
    expected = np.asarray(nib.load(tmp_path / "a.nii.gz").dataobj)
    volume = cs.read_volume(tmp_path / "a.nii.gz")
    assert volume.voxels.dtype == np.int16
    assert np.array_equal(volume.voxels, expected.T)


def test_nifti2_stays_nifti2(tmp_path: Path) -> None:
    nib.save(nib.Nifti2Image(np.ones((3, 4, 5), np.int16), np.eye(4)), tmp_path / "a.nii")
    volume = cs.read_volume(tmp_path / "a.nii")
    cs.write_mask(tmp_path / "m.nii", volume.voxels, like=volume)
    assert isinstance(nib.load(tmp_path / "m.nii"), nib.Nifti2Image)


def bad_files() -> dict[str, bytes]:
    def content(voxels: np.ndarray, affine: np.ndarray | None = None, units: str = "mm") -> bytes:
        image = nib.Nifti1Image(voxels, np.eye(4))
        image.header.set_xyzt_units(units)
        if affine is not None:
            image.set_qform(np.eye(4), code=0)
            image.set_sform(affine, code=1)
        return image.to_bytes()

    good = content(np.ones((4, 4, 4), np.int16))
    holes = np.ones((4, 4, 4), np.float32)
    holes[1, 1, 1] = np.nan
    endless = np.ones((4, 4, 4), np.float32)
    endless[1, 1, 1] = np.inf
    singular = np.diag([1.0, 1.0, 0.0, 1.0])
    claims = bytearray(good)
    claims[40:56] = np.array([3, 2000, 2000, 2000, 1, 1, 1, 1], "<i2").tobytes()
    odd = bytearray(good)
    odd[40:42] = np.array([9], "<i2").tobytes()
    return {
        "truncated.nii": good[:-50],
        "claims_16_gigabytes.nii": bytes(claims),
        "nine_dimensions.nii": bytes(odd),
        "metres.nii": content(np.ones((4, 4, 4), np.int16), units="meter"),
        "kilometres.nii": content(np.ones((4, 4, 4), np.int16), np.diag([1e6, 1e6, 1e6, 1])),
        "truncated.nii.gz": gzip.compress(good)[:-20],
        "no_trailer.nii.gz": gzip.compress(good)[:-4],
        "text.nii": b"this is not an image\n" * 50,
        "nothing.nii": b"",
        "nothing.nii.gz": b"",
        "wrong_name.mha": good,
        "four_d.nii": content(np.ones((4, 4, 4, 2), np.int16)),
        "two_d.nii": content(np.ones((4, 4), np.int16)),
        "empty.nii": content(np.ones((4, 4, 0), np.int16)),
        "nan.nii.gz": gzip.compress(content(holes)),
        "infinite.nii": content(endless),
        "complex.nii": content(np.ones((4, 4, 4), np.complex64)),
        "singular.nii": content(np.ones((4, 4, 4), np.int16), singular),
    }


BAD_FILES = bad_files()


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_images_are_refused_by_name(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    (tmp_path / name).write_bytes(BAD_FILES[name])
    with pytest.raises(cs.ClicksegError, match=name) as caught:
        cs.read_volume(tmp_path / name)
    assert str(caught.value).count(name) == 1
    assert capfd.readouterr() == ("", "")


def test_a_slope_beyond_integers_stays_a_float(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.full((3, 4, 5), 2, np.int16), np.eye(4))
    content = bytearray(image.to_bytes())
    content[112:120] = np.array([1e10, 5], "<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(content)
    voxels = cs.read_volume(tmp_path / "a.nii").voxels
    assert voxels.dtype == np.float32
    assert voxels == pytest.approx(np.full((5, 4, 3), 2e10), rel=1e-6)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(cs.FileError, match=r"nowhere\.nii"):
        cs.read_volume(tmp_path / "nowhere.nii")
    assert issubclass(cs.FileError, OSError)


def test_mask_needs_the_volumes_shape_and_an_existing_folder(
    ball_volume: cs.Volume, tmp_path: Path
) -> None:
    with pytest.raises(cs.VolumeError, match="shape"):
        cs.write_mask(tmp_path / "m.nii", np.zeros((1, 2, 3)), like=ball_volume)
    for value in (256, -1, 0.5, np.nan):
        with pytest.raises(cs.VolumeError, match=r"values|whole numbers"):
            cs.write_mask(tmp_path / "m.nii", np.full(ball_volume.shape, value), like=ball_volume)
    with pytest.raises(cs.FileError, match="does not exist"):
        cs.write_mask(tmp_path / "no" / "m.nii", np.ones(ball_volume.shape), like=ball_volume)
    assert list(tmp_path.iterdir()) == []


def test_label_must_lie_on_the_images_grid(tmp_path: Path) -> None:
    image = save(tmp_path / "a.nii", np.zeros((3, 4, 5), np.int16), np.eye(4))
    other = save(tmp_path / "b.nii", np.zeros((3, 4, 5), np.int16), np.diag([1, 1, 2, 1.0]))
    smaller = save(tmp_path / "c.nii", np.zeros((3, 4, 4), np.int16), np.eye(4))
    fractions = save(tmp_path / "d.nii", np.full((3, 4, 5), 0.5, np.float32), np.eye(4))
    negative = save(tmp_path / "e.nii", np.full((3, 4, 5), -1, np.int16), np.eye(4))
    endless = save(tmp_path / "f.nii", np.full((3, 4, 5), np.inf, np.float32), np.eye(4))
    colour = np.zeros((3, 4, 5), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    colours = save(tmp_path / "g.nii", colour, np.eye(4))
    volume = cs.read_volume(image)
    for path, complaint in (
        (other, "affine"),
        (smaller, "shape"),
        (fractions, "fractions"),
        (negative, "from 0"),
        (endless, "from 0"),
        (colours, "whole numbers"),
    ):
        with pytest.raises(cs.VolumeError, match=complaint):
            read_label(path, like=volume)
    assert read_label(image, like=volume).shape == volume.shape


@settings(max_examples=30, deadline=None)
@given(
    number=st.integers(0, 47),
    angles=st.tuples(*[st.floats(-0.4, 0.4)] * 3),
    spacing=st.tuples(*[st.floats(0.5, 6)] * 3),
)
def test_oblique_files_keep_their_geometry(
    number: int, angles: tuple, spacing: tuple, tmp_path_factory: pytest.TempPathFactory
) -> None:
    rotation = np.linalg.qr(np.eye(3) + np.cross(np.eye(3), angles))[0]
    rotation *= np.sign(np.diag(rotation))
    affine = np.eye(4)
    affine[:3, :3] = rotation * spacing
    reference = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    folder = tmp_path_factory.mktemp("oblique")
    orientation = ORIENTATIONS[number]
    stored_affine = affine @ inv_ornt_aff(orientation, reference.shape)
    path = save(folder / "a.nii", apply_orientation(reference, orientation), stored_affine)
    volume = cs.read_volume(path)
    stored = np.asarray(nib.load(path).dataobj)
    for ijk in np.ndindex(*stored.shape):
        zyx = volume.zyx_of_ijk(ijk)
        assert volume.voxels[zyx] == stored[ijk]
        expected = (nib.load(path).affine @ [*ijk, 1])[:3]
        assert np.allclose(volume.ras_of_zyx(zyx), expected, atol=1e-3)
