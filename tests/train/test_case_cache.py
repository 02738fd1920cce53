import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import clickseg_infer as cs
from clickseg_train import case_cache
from clickseg_train.case_cache import MANIFEST, CaseCache
from clickseg_train.cases import Dataset, load_case, read_dataset


@pytest.fixture
def dataset(phantoms: Path, tmp_path: Path) -> Dataset:
    """A copy that a test may change."""
    return read_dataset(Path(shutil.copytree(phantoms, tmp_path / "data")))


@pytest.fixture
def preprocessed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the cases that were really read."""
    names: list[str] = []

    def counted(case):
        names.append(case.name)
        return load_case(case)

    monkeypatch.setattr(case_cache, "load_case", counted)
    return names


def test_cases_come_back_as_they_are(dataset: Dataset, tmp_path: Path) -> None:
    cache = CaseCache(tmp_path / "cache", dataset.train)
    for case in dataset.train:
        ours, theirs = cache.load(case), load_case(case)
        assert np.array_equal(ours.volume.voxels, theirs.volume.voxels)
        assert np.array_equal(ours.volume.affine, theirs.volume.affine)
        assert np.array_equal(ours.label, theirs.label)
        assert ours.objects == theirs.objects == cache.objects(case)
        assert type(ours.volume.voxels) is type(ours.label) is np.ndarray
        with pytest.raises(ValueError, match="read-only"):
            ours.label[0, 0, 0] = 1


def test_cases_are_read_once(dataset: Dataset, preprocessed: list[str], tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    CaseCache(tmp_path / "cache", dataset.train, lambda *progress: done.append(progress))
    assert preprocessed == ["case_0", "case_1", "case_2"]
    assert done == [(1, 3), (2, 3), (3, 3)]
    CaseCache(tmp_path / "cache", dataset.train)
    assert len(preprocessed) == 3


def test_a_changed_file_is_noticed(
    dataset: Dataset, preprocessed: list[str], tmp_path: Path
) -> None:
    CaseCache(tmp_path / "cache", dataset.train)
    case = dataset.train[1]
    volume = cs.read_volume(case.image)
    cs.write_mask(case.label, np.ones(volume.shape, np.uint8), like=volume)
    cache = CaseCache(tmp_path / "cache", dataset.train)
    assert preprocessed[3:] == ["case_1"]
    assert cache.load(case).label.all()


def test_a_file_that_was_only_touched_is_not_read_again(
    dataset: Dataset, preprocessed: list[str], tmp_path: Path
) -> None:
    CaseCache(tmp_path / "cache", dataset.train)
    os.utime(dataset.train[0].image, ns=(1, 1))
    CaseCache(tmp_path / "cache", dataset.train)
    assert len(preprocessed) == 3


@pytest.mark.parametrize("damage", ["lost", "manifest"])
def test_a_damaged_cache_is_made_again(
    damage: str, dataset: Dataset, preprocessed: list[str], tmp_path: Path
) -> None:
    CaseCache(tmp_path / "cache", dataset.train)
    if damage == "lost":
        next((tmp_path / "cache").glob("case_2*.npy")).unlink()
    else:
        (tmp_path / "cache" / MANIFEST).write_text("{")
    CaseCache(tmp_path / "cache", dataset.train)
    assert preprocessed[3:] == (["case_2"] if damage == "lost" else ["case_0", "case_1", "case_2"])


def test_the_manifest_names_the_hashes(dataset: Dataset, tmp_path: Path) -> None:
    import hashlib

    CaseCache(tmp_path / "cache", dataset.train)
    cases = json.loads((tmp_path / "cache" / MANIFEST).read_text())["cases"]
    digests = {source["sha256"] for case in cases.values() for source in case["sources"]}
    for case in dataset.train:
        assert hashlib.sha256(case.image.read_bytes()).hexdigest() in digests


def test_a_folder_that_cannot_be_made(dataset: Dataset, tmp_path: Path) -> None:
    with pytest.raises(cs.FileError, match="cannot be made"):
        CaseCache(tmp_path / "no" / "cache", dataset.train)
