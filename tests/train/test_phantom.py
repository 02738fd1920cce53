"""The phantom: anatomy in millilitres, HU and millimetres, and the folder that it writes."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from clickseg_infer.errors import FileError
from clickseg_infer.volume import Volume
from clickseg_train.phantom import LABELS, PhantomCase, dataset, phantom, write_phantoms

NATURAL = 2  # the seed that is drawn with a shape and spacing of its own
COARSE_SEEDS = (0, 1)
COARSE = (44, 80, 80)

PLAUSIBLE_ML = {
    "liver": (700, 2500),
    "spleen": (70, 600),
    "kidney_left": (60, 350),
    "kidney_right": (60, 350),
    "lung_left": (300, 3000),
    "lung_right": (300, 3000),
    "aorta": (30, 250),
    "vena_cava": (20, 250),
    "spine": (150, 800),
    "ribs": (80, 600),
    "tumour": (0.5, 150),
}
PLAUSIBLE_HU = {
    "liver": (45, 125),
    "spleen": (40, 135),
    "kidney_left": (80, 205),
    "kidney_right": (80, 205),
    "lung_left": (-870, -680),
    "lung_right": (-870, -680),
    "aorta": (60, 260),
    "vena_cava": (25, 180),
    "spine": (100, 700),
    "ribs": (200, 1000),
    "tumour": (0, 190),
}


@pytest.fixture(scope="module")
def cases() -> dict[int, PhantomCase]:
    """Each seed's case, drawn once; a coarse grid shows the same anatomy in a third of the time."""
    coarse = {seed: phantom(seed, shape=COARSE) for seed in COARSE_SEEDS}
    return coarse | {NATURAL: phantom(NATURAL)}


@pytest.fixture(params=(*COARSE_SEEDS, NATURAL))
def case(cases: dict[int, PhantomCase], request: pytest.FixtureRequest) -> PhantomCase:
    """One of them after the other."""
    return cases[request.param]


def ras_mm(case: PhantomCase, name: str) -> np.ndarray:
    """The centroid of a label in RAS+ mm, through the affine."""
    z, y, x = (index.mean() for index in np.nonzero(case.label == LABELS[name]))
    return (case.volume.affine @ (x, y, z, 1))[:3]


def test_same_seed_same_bits(cases):
    first, again = cases[1], phantom(1, shape=COARSE)
    assert first.volume.voxels.tobytes() == again.volume.voxels.tobytes()
    assert first.label.tobytes() == again.label.tobytes()
    assert np.array_equal(first.volume.affine, again.volume.affine)


def test_seeds_draw_different_anatomy(cases):
    one, other = (cases[seed].label for seed in COARSE_SEEDS)
    for value in range(1, 12):
        both = (one == value) & (other == value)
        either = (one == value) | (other == value)
        assert both.sum() < 0.95 * either.sum(), value


def test_types(case):
    assert case.volume.voxels.dtype == np.int16
    assert case.label.dtype == np.uint8
    assert case.label.shape == case.volume.shape
    assert case.volume.voxels.min() >= -1024
    assert case.volume.voxels.max() <= 3071


def test_a_drawn_grid_is_that_of_a_scanner(cases):
    volume = cases[NATURAL].volume
    assert 60 <= volume.shape[0] <= 130
    assert 160 <= volume.shape[1] == volume.shape[2] <= 256
    z, y, x = volume.spacing_mm
    assert 2 <= z <= 5
    assert 1.2 <= y == x <= 2.0


def test_shape_and_spacing_may_be_fixed(cases):
    for seed in COARSE_SEEDS:
        shape, (z, y, x) = cases[seed].volume.shape, cases[seed].volume.spacing_mm
        assert shape == COARSE
        assert 240 <= z * COARSE[0] <= 341
        assert y == x
        assert 319 <= y * COARSE[1] <= 381
    free_shape = phantom(3, spacing_mm=(9.0, 7.5, 6.0)).volume
    assert free_shape.spacing_mm == (9.0, 7.5, 6.0)
    assert 26 <= free_shape.shape[0] <= 38
    assert free_shape.shape[2] > free_shape.shape[1]
    cropped = phantom(3, shape=(10, 20, 30), spacing_mm=(2.5, 2.0, 1.5))
    assert cropped.label.shape == cropped.volume.shape == (10, 20, 30)
    assert cropped.volume.spacing_mm == (2.5, 2.0, 1.5)


@pytest.mark.parametrize(
    "wrong", [{"shape": (0, 64, 64)}, {"shape": (64, 64)}, {"spacing_mm": (2.0, -1.0, 1.0)}]
)
def test_a_grid_of_other_than_three_positive_numbers_is_an_error(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be three positive numbers"):
        phantom(3, **wrong)


def test_every_label_has_a_plausible_size_and_hu(case):
    assert set(np.unique(case.label)) == set(LABELS.values())
    for name, (low, high) in PLAUSIBLE_ML.items():
        mask = case.label == LABELS[name]
        ml = mask.sum() * case.volume.voxel_ml
        assert low <= ml <= high, (name, ml)
        hu = np.median(case.volume.voxels[mask])
        assert PLAUSIBLE_HU[name][0] <= hu <= PLAUSIBLE_HU[name][1], (name, hu)
    assert (case.label == LABELS["tumour"]).sum() >= 150


def test_the_background_is_not_flat(case):
    """Air, fat and soft tissue are each a good part of what has no label."""
    hu = ndimage.uniform_filter(case.volume.voxels.astype(np.float32), 3)[case.label == 0]
    for low, high in ((-1024, -900), (-140, -60), (20, 90)):
        assert np.mean((hu >= low) & (hu <= high)) > 0.04, (low, high)


def test_there_is_gas_in_the_bowel(case):
    kidney = np.nonzero(case.label == LABELS["kidney_right"])[0]
    voxels = case.volume.voxels[kidney.min() : kidney.max()]
    body = np.array([ndimage.binary_fill_holes(level > -250) for level in voxels])
    body = ndimage.binary_erosion(body, iterations=3)
    gas = body & (voxels < -600) & (case.label[kidney.min() : kidney.max()] == 0)
    assert gas.sum() * case.volume.voxel_ml > 5


def test_label_edges_lie_where_the_voxels_change(cases):
    """A label shifted by three voxels would mix lung with chest wall."""
    case = cases[NATURAL]
    voxels = case.volume.voxels
    lung = np.isin(case.label, (LABELS["lung_left"], LABELS["lung_right"]))
    near = ndimage.binary_dilation(lung, iterations=2)
    rim = ndimage.binary_dilation(near) & ~near
    assert np.mean(voxels[ndimage.binary_erosion(lung)] < -400) > 0.97
    assert np.mean(voxels[rim & (case.label != LABELS["tumour"])] > -400) > 0.9


def test_organs_lie_where_they_do_in_a_patient(case):
    at = {name: ras_mm(case, name) for name in LABELS if name != "background"}
    right, anterior, superior = np.eye(3)
    assert right @ (at["liver"] - at["spine"]) > 20
    assert right @ (at["spleen"] - at["spine"]) < -50
    assert right @ (at["kidney_right"] - at["kidney_left"]) > 80
    assert right @ (at["lung_right"] - at["lung_left"]) > 80
    assert right @ (at["vena_cava"] - at["aorta"]) > 10
    assert anterior @ (at["aorta"] - at["spine"]) > 15
    assert anterior @ (at["liver"] - at["kidney_right"]) > 10
    assert superior @ (at["lung_right"] - at["liver"]) > 50
    assert superior @ (at["liver"] - at["kidney_right"]) > 10


def test_an_organ_is_one_piece(case):
    for name in ("liver", "spleen", "kidney_left", "kidney_right"):
        pieces, _ = ndimage.label(case.label == LABELS[name], np.ones((3, 3, 3)))
        sizes = np.bincount(pieces.ravel())[1:]
        assert sizes.max() >= 0.95 * sizes.sum(), name


@pytest.fixture
def noise_phantoms(monkeypatch):
    """Noise of the seed in place of anatomy, where a test is about files."""

    def noise(seed: int) -> PhantomCase:
        rng = np.random.default_rng(seed)
        voxels = rng.integers(-1024, 3071, (3, 4, 5), np.int16)
        return PhantomCase(Volume(voxels, np.eye(4)), rng.integers(0, 12, (3, 4, 5), np.uint8))

    monkeypatch.setattr(dataset, "phantom", noise)


@pytest.mark.usefixtures("noise_phantoms")
def test_writes_a_decathlon_folder(tmp_path: Path):
    seen = []
    write_phantoms(
        tmp_path, cases=5, seed=9, on_case=lambda done, total: seen.append((done, total))
    )
    assert seen == [(done, 5) for done in range(1, 6)]

    content = json.loads((tmp_path / "dataset.json").read_text())
    assert content["name"] == "ClicksegPhantom"
    assert content["licence"] == "Apache-2.0"
    assert content["tensorImageSize"] == "3D"
    assert content["modality"] == {"0": "CT"}
    assert content["labels"] == {str(value): name for name, value in LABELS.items()}
    assert (content["numTraining"], content["numTest"], content["test"]) == (5, 0, [])
    images = [tmp_path / pair["image"] for pair in content["training"]]
    assert [path.name for path in images] == [f"phantom_{index:03d}.nii.gz" for index in range(5)]

    splits = json.loads((tmp_path / "splits.json").read_text())
    assert len(splits["val"]) == 1
    assert sorted(splits["train"] + splits["val"]) == [path.name[:-7] for path in images]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"dataset.json", "splits.json", "imagesTr", "labelsTr"}


def test_files_read_back_to_the_same_voxels(tmp_path: Path, monkeypatch):
    made = []

    def draw(seed: int) -> PhantomCase:
        made.append(phantom(seed, shape=(12, 24, 28)))
        return made[-1]

    monkeypatch.setattr(dataset, "phantom", draw)
    write_phantoms(tmp_path, cases=2, seed=9)
    training = json.loads((tmp_path / "dataset.json").read_text())["training"]
    for case, pair in zip(made, training, strict=True):
        image, label = nib.load(tmp_path / pair["image"]), nib.load(tmp_path / pair["label"])
        assert np.array_equal(np.asanyarray(image.dataobj).T, case.volume.voxels)
        assert np.array_equal(np.asanyarray(label.dataobj).T, case.label)
        assert label.get_data_dtype() == np.uint8
        # Exactly: the spacing survives the header's float32.
        assert np.array_equal(image.affine, case.volume.affine)
        assert np.array_equal(label.affine, case.volume.affine)
    assert not np.array_equal(made[0].label, made[1].label)


@pytest.mark.usefixtures("noise_phantoms")
def test_same_seed_writes_the_same_bytes(tmp_path: Path):
    for folder in ("one", "two"):
        write_phantoms(tmp_path / folder, cases=2, seed=4)
    write_phantoms(tmp_path / "other", cases=2, seed=5)
    files = [path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*")]
    assert len(files) == 6
    for file in files:
        content = (tmp_path / "one" / file).read_bytes()
        assert content == (tmp_path / "two" / file).read_bytes(), file
        same = content == (tmp_path / "other" / file).read_bytes()
        assert same == (file.suffix == ".json"), file


@pytest.mark.usefixtures("noise_phantoms")
def test_an_interrupted_folder_has_no_dataset_json(tmp_path: Path):
    write_phantoms(tmp_path / "one", cases=1, seed=0)
    assert json.loads((tmp_path / "one" / "splits.json").read_text())["val"] == []
    with pytest.raises(FileError, match="holds a dataset already"):
        write_phantoms(tmp_path / "one", cases=1, seed=0)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantoms(tmp_path / "two", cases=2, seed=1, on_case=interrupt)
    assert not (tmp_path / "two" / "dataset.json").exists()


def test_no_cases_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match="at least 1, got 0"):
        write_phantoms(tmp_path, cases=0, seed=0)
