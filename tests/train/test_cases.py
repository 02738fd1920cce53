import json
from pathlib import Path

import numpy as np
import pytest
from stand_ins import write_dataset_json

import clickseg_infer as cs
from clickseg_train.cases import load_case, read_dataset


def test_a_decathlon_folder_with_its_misspelt_key(phantoms: Path) -> None:
    dataset = read_dataset(phantoms)
    assert dataset.name == "Small"
    assert dataset.release == "1.0"
    assert dataset.licence == "CC0"
    assert dataset.labels == {1: "liver", 2: "spleen"}
    assert [case.name for case in dataset.train] == ["case_0", "case_1", "case_2"]
    assert dataset.val == ()


def test_loaded_objects_are_the_labels_and_their_boxes(phantoms: Path) -> None:
    case = load_case(read_dataset(phantoms).train[0])
    assert case.label.shape == case.volume.shape
    assert [o.value for o in case.objects] == [v for v in np.unique(case.label) if v > 0]
    for found in case.objects:
        where = np.argwhere(case.label == found.value)
        assert [low for low, _ in found.box] == where.min(axis=0).tolist()
        assert [high for _, high in found.box] == (where.max(axis=0) + 1).tolist()
        assert found.voxels == len(where)


def test_scans_without_labels(phantoms: Path, tmp_path: Path) -> None:
    image = next((phantoms / "imagesTr").glob("*.nii.gz"))
    content = {"training": [{"image": str(image)}]}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    dataset = read_dataset(tmp_path)
    assert dataset.labels == {}
    (case,) = dataset.train
    loaded = load_case(case)
    assert loaded.objects == ()
    assert loaded.label.shape == loaded.volume.shape
    assert not loaded.label.any()


def make(folder: Path, names: list[str], **changes: object) -> Path:
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True, exist_ok=True)
        for name in names:
            (folder / part / f"{name}.nii.gz").touch()
    write_dataset_json(folder, names, **changes)
    return folder


def test_apple_double_files_are_ignored(tmp_path: Path) -> None:
    dataset = read_dataset(make(tmp_path, ["._a", "a", "b"]))
    assert [case.name for case in dataset.train] == ["a", "b"]


def test_nnunet_labels(tmp_path: Path) -> None:
    labels = {"background": 0, "liver": 1, "tumour": 2}
    assert read_dataset(make(tmp_path, ["a"], labels=labels)).labels == {1: "liver", 2: "tumour"}


def test_splits(tmp_path: Path) -> None:
    names = [f"c{n}" for n in range(10)]
    folder = make(tmp_path, names)
    dataset = read_dataset(folder)
    assert [case.name for case in dataset.val] == ["c4", "c9"]
    (folder / "splits.json").write_text(json.dumps({"train": ["c9"], "val": ["c0", "c1"]}))
    dataset = read_dataset(folder)
    assert [case.name for case in dataset.train] == ["c9"]
    assert [case.name for case in dataset.val] == ["c0", "c1"]
    (folder / "splits.json").write_text(json.dumps({"train": ["x"]}))
    with pytest.raises(cs.DatasetError, match="unknown cases"):
        read_dataset(folder)
    (folder / "splits.json").write_text(json.dumps({"train": ["c1", "c2"], "val": ["c2"]}))
    with pytest.raises(cs.DatasetError, match=r"\['c2'\] are in train and in val"):
        read_dataset(folder)


def test_splits_need_names_that_differ(tmp_path: Path) -> None:
    folder = make(tmp_path, ["a", "b"])
    description = json.loads((folder / "dataset.json").read_text())
    (folder / "elsewhere").mkdir()
    (folder / "elsewhere" / "a.nii.gz").touch()
    description["training"].append({"image": "elsewhere/a.nii.gz"})
    (folder / "dataset.json").write_text(json.dumps(description))
    assert len(read_dataset(folder).train) == 3
    (folder / "splits.json").write_text(json.dumps({"train": ["a", "b"]}))
    with pytest.raises(cs.DatasetError, match="share a name"):
        read_dataset(folder)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"labels": None}, "'labels' names no object"),
        ({"labels": {}}, "'labels' names no object"),
        ({"labels": {"0": "background"}}, "'labels' names no object"),
        ({"labels": ["liver"]}, "'labels' names no object"),
        ({"training": []}, "lists no cases"),
        ({"training": None}, "lists no cases"),
        ({"training": 5}, "lists no cases"),
        ({"labels": {"liver": float("inf")}}, "'labels' names no object"),
        ({"training": ["./imagesTr/a.nii.gz"]}, "needs an image, not"),
        ({"training": [{"label": "./labelsTr/a.nii.gz"}]}, "needs an image, not"),
        (
            {"training": [{"image": "./imagesTr/z.nii.gz", "label": "./labelsTr/a.nii.gz"}]},
            "1 files are missing.*z.nii.gz",
        ),
    ],
)
def test_incomplete_folders(changes: dict, complaint: str, tmp_path: Path) -> None:
    make(tmp_path, ["a"], **changes)
    with pytest.raises(cs.DatasetError, match=complaint):
        read_dataset(tmp_path)


def test_no_folder_no_json(tmp_path: Path) -> None:
    with pytest.raises(cs.DatasetError, match="cannot be read"):
        read_dataset(tmp_path / "nowhere")
    (tmp_path / "dataset.json").write_text("[1")
    with pytest.raises(cs.DatasetError, match="not JSON"):
        read_dataset(tmp_path)
    (tmp_path / "dataset.json").write_text("[" * 100_000)
    with pytest.raises(cs.DatasetError, match="not JSON"):
        read_dataset(tmp_path)
