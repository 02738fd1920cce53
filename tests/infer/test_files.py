import gzip
import tracemalloc
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
    negative = bytearray(good)
    negative[42:44] = np.array([-4], "<i2").tobytes()
    odd = bytearray(good)
    odd[40:42] = np.array([9], "<i2").tobytes()
    nowhere = bytearray(good)
    nowhere[108:112] = np.array([np.inf], "<f4").tobytes()
    return {
        "begins_nowhere.nii": bytes(nowhere),
        "truncated.nii": good[:-50],
        "claims_16_gigabytes.nii": bytes(claims),
        "claims_16_gigabytes.nii.gz": gzip.compress(bytes(claims)),
        "claims_too_much.nii.gz": gzip.compress(good[:-50]),
        "nine_dimensions.nii": bytes(odd),
        "negative_dimension.nii": bytes(negative),
        "metres.nii": content(np.ones((4, 4, 4), np.int16), units="meter"),
        "kilometres.nii": content(np.ones((4, 4, 4), np.int16), np.diag([1e6, 1e6, 1e6, 1])),
        "truncated.nii.gz": gzip.compress(good)[:-20],
        "no_trailer.nii.gz": gzip.compress(good)[:-4],
        "checksum.nii.gz": gzip.compress(good)[:-8] + b"abcd" + gzip.compress(good)[-4:],
        "trailing_text.nii.gz": gzip.compress(good) + b"text",
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


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_wherever_a_file_ends_early_or_is_damaged_it_is_refused(
    suffix: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    path = save(tmp_path / f"a{suffix}", rng.integers(0, 99, (9, 9, 9)).astype("i2"), np.eye(4))
    good = path.read_bytes()
    for length in (0, 1, 2, 3, 9, 18, 347, 352, len(good) - 1, *rng.integers(0, len(good), 20)):
        path.write_bytes(good[:length])
        with pytest.raises(cs.FileError, match=r"truncated|not a NIfTI"):
            cs.read_volume(path)
    for position in rng.integers(20, len(good), 50 if suffix == ".nii.gz" else 0):
        damaged = bytearray(good)
        damaged[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        with pytest.raises(cs.FileError, match="damaged"):
            cs.read_volume(path)


def test_a_gzip_file_may_have_several_members_and_zeros_behind_them(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", np.arange(60, dtype="i2").reshape(3, 4, 5), np.eye(4))
    content = path.read_bytes()
    parts = [gzip.compress(content[:100]), gzip.compress(content[100:400])]
    parts += [gzip.compress(b""), gzip.compress(content[400:]), bytes(7)]
    (tmp_path / "b.nii.gz").write_bytes(b"".join(parts))
    expected = cs.read_volume(path).voxels
    assert np.array_equal(cs.read_volume(tmp_path / "b.nii.gz").voxels, expected)
    (tmp_path / "gzip_all_the_same.nii").write_bytes(b"".join(parts))
    assert np.array_equal(cs.read_volume(tmp_path / "gzip_all_the_same.nii").voxels, expected)


@pytest.mark.parametrize("stored", ["u1", "<i2", ">i2", "<u2", ">i4", "<i8", ">f4", "<f8"])
@pytest.mark.parametrize(
    "scaling", [(0, 9), (1, 0), (1, -1024), (2, 3), (-3, 70000), (0.5, 0.25), (7e4, 1)], ids=str
)
def test_voxels_are_what_nibabel_reads(
    stored: str, scaling: tuple[float, float], tmp_path: Path, rng: np.random.Generator
) -> None:
    header = nib.Nifti1Header(endianness=">" if stored[0] == ">" else "<")
    header.set_data_dtype(stored)
    content = bytearray(
        nib.Nifti1Image(rng.integers(0, 99, (3, 4, 5)), np.eye(4), header).to_bytes()
    )
    content[112:120] = np.array(scaling, f"{header.endianness}f4").tobytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content))
    expected = np.asarray(nib.load(tmp_path / "a.nii.gz").dataobj).T
    voxels = cs.read_volume(tmp_path / "a.nii.gz").voxels
    whole = "f" not in stored and np.array_equal(expected, expected.astype("i2"))
    assert voxels.dtype == (np.int16 if whole else np.float32)
    assert voxels.dtype.isnative
    assert np.array_equal(voxels, expected.astype(voxels.dtype))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("endianness", "<>")
def test_reading_holds_one_copy_of_the_voxels(
    suffix: str, endianness: str, tmp_path: Path, rng: np.random.Generator
) -> None:
    header = nib.Nifti1Header(endianness=endianness)
    header.set_data_dtype("i2")
    voxels = rng.integers(-9, 9, (256, 256, 128)).astype("i2")
    path = tmp_path / f"a{suffix}"
    nib.save(nib.Nifti1Image(voxels, np.eye(4), header), path)
    content = bytearray(gzip.decompress(path.read_bytes()) if suffix == ".nii.gz" else b"")
    if content:
        content[112:120] = np.array([1, -1024], f"{endianness}f4").tobytes()
        path.write_bytes(gzip.compress(content, 1))
    tracemalloc.start()
    try:
        assert cs.read_volume(path).voxels.dtype == np.int16
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert voxels.nbytes < peak < 1.25 * voxels.nbytes


def test_the_checksum_counts_though_much_lies_behind_the_voxels(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    path = save(tmp_path / "a.nii", np.zeros((3, 4, 5), np.int16), np.eye(4))
    content = bytearray(gzip.compress(path.read_bytes() + rng.bytes(1 << 20)))
    (tmp_path / "a.nii.gz").write_bytes(content)
    assert not cs.read_volume(tmp_path / "a.nii.gz").voxels.any()
    content[-5] ^= 1
    (tmp_path / "a.nii.gz").write_bytes(content)
    with pytest.raises(cs.FileError, match=r"a\.nii\.gz: damaged or truncated: CRC"):
        cs.read_volume(tmp_path / "a.nii.gz")


@pytest.mark.parametrize("name", ["claims_16_gigabytes.nii", "claims_16_gigabytes.nii.gz"])
def test_no_memory_is_taken_for_more_than_a_file_can_hold(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(BAD_FILES[name])
    with pytest.raises(cs.FileError, match="holds at most"):
        cs.read_volume(tmp_path / name)


def test_what_does_not_fit_into_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def empty(*arguments: object, **options: object) -> np.ndarray:
        raise MemoryError

    path = save(tmp_path / "a.nii", np.ones((3, 4, 5), np.int16), np.eye(4))
    monkeypatch.setattr(np, "empty", empty)
    with pytest.raises(cs.FileError, match=r"a\.nii: 472 bytes do not fit into memory"):
        cs.read_volume(path)


@pytest.mark.parametrize("width", [7, 8, 24])
@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.float32])
def test_masks_on_a_mirrored_grid_are_written_as_they_are(
    width: int, dtype: type, tmp_path: Path, rng: np.random.Generator
) -> None:
    stored = np.zeros((width, 4, 5), np.int16)
    volume = cs.read_volume(save(tmp_path / "a.nii.gz", stored, np.diag([-1.0, -1, 2, 1])))
    mask = rng.integers(0, 2 if dtype is bool else 256, volume.shape).astype(dtype)
    before = mask.copy()
    for name in ("b.nii.gz", "c.nii.gz", "d.nii"):
        cs.write_mask(tmp_path / name, mask, like=volume)
        written = np.asarray(nib.load(tmp_path / name).dataobj)
        assert np.array_equal(written, mask[:, ::-1, ::-1].T)
    assert (tmp_path / "b.nii.gz").read_bytes() == (tmp_path / "c.nii.gz").read_bytes()
    assert np.array_equal(mask, before)


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


def test_nibabels_own_messages_are_held_back_and_come_back(
    tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    from nibabel.imageglobals import logger

    odd = bytearray(nib.Nifti1Image(np.ones((4, 4, 4), np.int16), np.eye(4)).to_bytes())
    odd[70:72] = np.array([1536], "<i2").tobytes()  # a data type that nibabel complains about
    (tmp_path / "odd.nii").write_bytes(odd)
    handlers, level = list(logger.handlers), logger.level
    with pytest.raises(cs.ClicksegError, match="odd"):
        cs.read_volume(tmp_path / "odd.nii")
    assert capfd.readouterr() == ("", "")
    assert (list(logger.handlers), logger.level) == (handlers, level)
