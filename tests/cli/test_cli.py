"""Segmenting, training, evaluating, replaying and measuring from the command line."""

import gzip
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from running import Run, refused

import clickseg_infer as cs
from clickseg_infer.engines import NAMES


def clicks_file(folder: Path, *positions: list, positive: bool = True) -> Path:
    path = folder / "clicks.json"
    path.write_text(json.dumps({"foreground" if positive else "background": list(positions)}))
    return path


def test_segment(run: Run, image: Path, tmp_path: Path, tiny_onnx: Path) -> None:
    mask, picture = tmp_path / "mask.nii.gz", tmp_path / "p.png"
    clicks = clicks_file(tmp_path, [50, 40, 20])
    code, out, _ = run(
        *("segment", image, "--clicks", clicks, "-o", mask, "--preview", picture, "--json"),
        *("--negative", "10,10,5"),
    )
    assert code == 0
    beside = tmp_path / "beside.json"
    beside.write_text('{"foreground": [], "background": [[10, 10, 5]]}')
    code, again, _ = run(
        *("segment", image, "--clicks", clicks, "--clicks", beside, "-o", mask, "--json")
    )
    assert code == 0
    assert json.loads(again)["mask"] == json.loads(out)["mask"]
    report = json.loads(out)
    assert set(NAMES[:3]) <= set(report["engine"]["passed_over"]) | {report["engine"]["name"]}
    written = nib.load(mask)
    voxels = int(np.asarray(written.dataobj).sum())
    assert report["mask"]["voxels"] == voxels > 0
    assert report["mask"]["ml"] == pytest.approx(voxels * 1.2 * 1.5 * 3 / 1000)
    assert report["engine"]["name"] == "openvino"
    assert report["patches"] >= 2
    stages = {"open", "resample", "maps", "network", "structures", "stitch", "weigh", "components"}
    assert {*stages, "back", "write", "total"} == set(report["ms"])
    assert report["structure"] is None or 0.5 < report["structure"]["chance"] <= 1
    parts = sum(ms for stage, ms in report["ms"].items() if stage != "total")
    assert parts <= report["ms"]["total"] * 1.01
    assert written.shape == nib.load(image).shape
    assert picture.stat().st_size > 1000

    same = run(
        *("segment", image, "-o", mask, "--positive", "50,40,20", "--negative", "10,10,5"),
        *("--model", tiny_onnx, "--engine", "onnxruntime", "--whole-volume"),
    )
    assert same[0] == 0
    assert "onnxruntime, float32" in same[1]


def test_the_whole_path(run: Run, tmp_path: Path, tiny_config: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    assert run("phantom", data, "--cases", 2, "--seed", 5)[0] == 0
    code, _, err = run("train", data, "--out", out, "--config", tiny_config)
    assert code == 0
    assert "loss" in err
    more = run("train", data, "--out", out, "--resume", "--steps", 6)  # remembers its settings
    assert more[0] == 0
    assert "6 steps" in more[1]
    model = tmp_path / "m.onnx"
    code, printed, _ = run("export", out / "last.ckpt", "-o", model)
    assert code == 0
    assert "differ by at most" in printed
    code, printed, _ = run("info", model)
    assert code == 0
    assert '"ClicksegPhantom"' in printed
    assert "engine openvino" in printed
    code, printed, _ = run(
        *("evaluate", data, "--model", model, "--max-clicks", 2, "--object", 1, "--json")
    )
    assert code == 0
    result = json.loads(printed)
    assert {"cases", "mean_dice", "mean_surface_dice", "clicks_to", "failures"} <= set(result)
    assert len(result["cases"]) == 1
    case = result["cases"][0]
    assert case["label_value"] == 1
    assert len(case["dice"]) == len(result["mean_dice"]) == 2
    assert case["dice"] == result["mean_dice"]
    assert set(result["clicks_to"]) == {"0.85", "0.90", "0.95"}


def test_evaluate_one_image(run: Run, image: Path, tmp_path: Path) -> None:
    volume = cs.read_volume(image)
    label = (volume.voxels > 0).astype(np.uint8)
    label[5:9, 5:15, 5:15] = 3
    cs.write_mask(tmp_path / "label.nii.gz", label, like=volume)
    pair = ("--image", image, "--label", tmp_path / "label.nii.gz", "--max-clicks", 3)
    code, out, _ = run("evaluate", *pair, "--json")
    assert code == 0
    assert [case["label_value"] for case in json.loads(out)["cases"]] == [1, 3]
    code, out, _ = run("evaluate", *pair, "--object", 1)
    assert code == 0
    assert "mean Dice  " in out
    assert "surface Dice at 2 mm" in out
    assert "region growing" not in out
    assert "ms a click" in out
    assert run("evaluate", *pair, "--object", 9)[0] == 2
    report = tmp_path / "report"
    code, out, _ = run(
        "evaluate", *pair, "--object", 1, "--baseline", "--user", "fbrs", "-o", report
    )
    assert code == 0
    assert "region growing" in out
    assert {path.name for path in report.iterdir()} == {
        "clicks.csv",
        "dice_by_click.png",
        "worst.png",
    }


def test_the_cvpr_protocol(run: Run, image: Path, tmp_path: Path) -> None:
    volume = cs.read_volume(image)
    (tmp_path / "cases").mkdir()
    np.savez(
        tmp_path / "cases" / "ball.npz",
        imgs=volume.voxels,
        gts=(volume.voxels > 0).astype(np.uint8),
        spacing=np.array(volume.spacing_mm),
    )
    protocol = ("--protocol", "cvpr2025")
    code, out, _ = run("evaluate", tmp_path / "cases", *protocol, "-o", tmp_path / "out", "--json")
    assert code == 0
    assert set(json.loads(out)) == {"DSC_AUC", "NSD_AUC", "DSC_Final", "NSD_Final"}
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["ball.npz", "scores.csv"]
    assert "needs a folder" in refused(run, "evaluate", tmp_path / "cases", *protocol)
    assert "unknown protocol" in refused(run, "evaluate", tmp_path, "--protocol", "eye")
    given = ("evaluate", tmp_path / "cases", "-o", tmp_path / "out")
    assert "without --baseline" in refused(run, *given, *protocol, "--baseline")
    assert "without --max-clicks" in refused(run, *given, *protocol, "--max-clicks", 3)
    assert "--truths goes with" in refused(run, *given, "--truths", tmp_path)


def test_training_options_that_contradict(
    run: Run, phantoms: Path, tiny_config: Path, tmp_path: Path
) -> None:
    train = ("train", phantoms, "--out", tmp_path / "run", "--config", tiny_config)
    assert "not both" in refused(run, *train, "--steps", 1, "--epochs", 1)
    assert "not both" in refused(run, *train, "--resume", "--init", "bundled")
    assert "does not fit" in refused(run, *train, "--init", "bundled")
    assert "'fpga' cannot be used" in refused(run, *train, "--device", "fpga")


def test_bad_input_of_segment_gets_one_line_and_writes_nothing(
    run: Run, image: Path, tmp_path: Path, tiny_onnx: Path
) -> None:
    inputs = tmp_path / "in"
    outputs = tmp_path / "out"
    inputs.mkdir()
    outputs.mkdir()
    good = image.read_bytes()
    voxels = np.ones((6, 6, 6), np.float32)

    def nifti(name: str, array: np.ndarray, sform: np.ndarray | None = None) -> Path:
        picture = nib.Nifti1Image(array, np.eye(4))
        if sform is not None:
            picture.set_qform(np.eye(4), code=0)
            picture.set_sform(sform, code=1)
        (inputs / name).write_bytes(picture.to_bytes())
        return inputs / name

    def put(name: str, content: bytes) -> Path:
        (inputs / name).write_bytes(content)
        return inputs / name

    holes, endless = voxels.copy(), voxels.copy()
    holes[2, 2, 2], endless[2, 2, 2] = np.nan, np.inf
    click = ("--positive", "2,2,2")
    model = tiny_onnx.read_bytes()
    newer = model.replace(b'"format_version": 5', b'"format_version": 7')
    click_files = {
        "unknown.json": b'{"schema": "other/1", "clicks": []}',
        "broken.json": b'{"schema"',
        "outside.json": b'{"foreground": [[500, 0, 0]]}',
        "negative.json": b'{"foreground": [], "background": [[1, 1, 1]]}',
        "contradiction.json": b'{"foreground": [[1, 1, 1]], "background": [[1, 1, 1]]}',
    }
    bad = [
        (inputs / "missing.nii.gz", *click),
        (put("truncated.nii.gz", good[: len(good) // 2]), *click),
        (put("text.nii", b"not an image at all" * 30), *click),
        (put("image.dcm", good), *click),
        (nifti("four.nii", np.ones((4, 4, 4, 3), np.int16)), *click),
        (nifti("empty.nii", np.ones((4, 4, 0), np.int16)), *click),
        (nifti("nan.nii", holes), *click),
        (nifti("infinite.nii", endless), *click),
        (nifti("singular.nii", voxels, np.diag([1.0, 0, 1, 1])), *click),
        (image,),
        (image, "--positive", "1,2"),
        (image, "--positive", "1,2,x"),
        (image, "--positive", "500,2,2"),
        (image, "--positive=-1,2,2"),
        (image, "--negative", "2,2,2"),
        (image, *click, "--negative", "2,2,2"),
        (image, "--clicks", inputs / "missing.json"),
        *((image, "--clicks", put(name, content)) for name, content in click_files.items()),
        (image, *click, "--model", inputs / "missing.onnx"),
        (image, *click, "--model", put("text.onnx", b"I am a model")),
        (image, *click, "--model", put("newer.onnx", newer)),
        (image, *click, "--model", put("damaged.onnx", model[:-100])),
        (image, *click, "--engine", "abacus"),
        (image, *click, "--precision", "float8"),
        (image, *click, "--preview", outputs / "p.jpg"),
        (image, *click, "--preview", outputs / "no" / "p.png"),
    ]
    for arguments in bad:
        line = refused(run, "segment", *arguments, "-o", outputs / "mask.nii.gz")
        named = [a.name for a in arguments if isinstance(a, Path) and a != image]
        named = [name for name in named if name != "negative.json"]  # refused later, for all files
        assert all(name in line for name in named), line
        assert list(outputs.iterdir()) == [], arguments
    for out in (outputs / "mask.png", outputs / "no" / "mask.nii.gz", outputs):
        assert out.name in refused(run, "segment", image, *click, "-o", out)
    assert list(outputs.iterdir()) == []
    assert "would overwrite" in refused(run, "segment", image, *click, "-o", image)
    assert image.read_bytes() == good
    too_long = outputs / f"{'m' * 300}.nii"
    assert "written" in refused(run, "segment", image, *click, "-o", too_long)


def test_bad_input_of_the_other_commands(
    run: Run, image: Path, tmp_path: Path, phantoms: Path, tiny_checkpoint: Path, tiny_config: Path
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    no_labels, holes = tmp_path / "no_labels", tmp_path / "holes"
    for folder, change in ((no_labels, "labels"), (holes, "file")):
        shutil.copytree(phantoms, folder)
        content = json.loads((folder / "dataset.json").read_text())
        if change == "labels":
            del content["labels"]
            (folder / "dataset.json").write_text(json.dumps(content))
        else:
            (folder / "labelsTr" / "case_1.nii.gz").unlink()
    unknown = tmp_path / "unknown.toml"
    unknown.write_text("speed = 3\n")
    other_batch = tmp_path / "other_batch.toml"
    other_batch.write_text(tiny_config.read_text().replace("batch = 2", "batch = 3"))
    text = tmp_path / "text.ckpt"
    text.write_text("hello")
    train = ("--out", out / "run", "--config", tiny_config)
    bad = {
        "nowhere": ("train", tmp_path / "nowhere", *train),
        "'labels'": ("train", no_labels, *train),
        "case_1.nii.gz": ("train", holes, *train),
        "speed": ("train", phantoms, "--out", out / "run", "--config", unknown),
        "missing.toml": ("train", phantoms, "--out", out / "run", "--config", "missing.toml"),
        "resume": ("train", phantoms, *train, "--resume"),
        "no/run": ("train", phantoms, "--out", out / "no" / "run", "--config", tiny_config),
        "text.ckpt": ("export", text, "-o", out / "m.onnx"),
        "missing.ckpt": ("export", tmp_path / "missing.ckpt", "-o", out / "m.onnx"),
        "does not exist": ("export", tiny_checkpoint, "-o", out / "no" / "m.onnx"),
        "dataset, or an image": ("evaluate",),
        "not both": ("evaluate", phantoms, "--image", image),
        "another configuration (batch)": (
            *("train", phantoms, "--out", tiny_checkpoint.parent, "--resume"),
            *("--config", other_batch),
        ),
        "'test'": ("evaluate", phantoms, "--split", "test"),
        "--split all": ("evaluate", phantoms, "--split", "val"),
        "differs": ("evaluate", "--image", image, "--label", phantoms / "labelsTr/case_0.nii.gz"),
        "cannot be made": ("phantom", image),
        "holds a dataset": ("phantom", phantoms),
        "end in .onnx": ("export", tiny_checkpoint, "-o", tiny_checkpoint),
        "nowhere.onnx": ("info", tmp_path / "nowhere.onnx"),
    }
    for complaint, arguments in bad.items():
        assert complaint in refused(run, *arguments)
        assert list(out.iterdir()) == [], arguments


def test_a_click_that_is_not_obeyed_is_said(
    run: Run, image: Path, tmp_path: Path, tiny_onnx: Path
) -> None:
    model = ("--model", tiny_onnx)  # it learnt for four steps, and knows nothing
    code, _, err = run("segment", image, "--positive", "3,3,3", "-o", tmp_path / "m.nii", *model)
    assert code == 0
    mask = cs.read_label(tmp_path / "m.nii", like=cs.read_volume(image))
    assert ("1 positive clicks lie outside the mask" in err) == (mask[3, 3, 3] == 0)


def test_a_missing_trainer_is_said_in_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "clickseg_export.onnx_file", raising=False)
    monkeypatch.setitem(sys.modules, "onnx", None)
    line = refused(run, "export", tmp_path / "a.ckpt", "-o", tmp_path / "m.onnx")
    assert "clickseg[train]" in line


def test_a_plain_nii_is_fine(run: Run, image: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain.nii"
    plain.write_bytes(gzip.decompress(image.read_bytes()))
    code, out, _ = run("segment", plain, "-o", tmp_path / "mask.nii", "--positive", "50,40,20")
    assert code == 0
    assert "ml" in out


def test_a_recording_is_replayed(run: Run, image: Path, tmp_path: Path) -> None:
    mask, again, recorded = tmp_path / "m.nii.gz", tmp_path / "n.nii.gz", tmp_path / "r.json"
    clicks = ("--positive", "50,40,20", "--positive", "55,40,20", "--negative", "10,10,5")
    assert run("segment", image, *clicks, "-o", mask, "--record", recorded)[0] == 0
    options = ("replay", recorded, "--image", image)
    code, out, err = run(*options, "--expect", "-o", again, "--json")
    assert (code, err) == (0, "")
    assert [step["after"] for step in json.loads(out)["steps"]] == [1, 2, 3]
    stored = [np.asarray(nib.load(path).dataobj) for path in (mask, again)]
    assert np.array_equal(*stored)
    assert "click 3" in run(*options)[1]

    content = json.loads(recorded.read_text())
    content["expect"][1]["mask_sha256"] = "0" * 64
    recorded.write_text(json.dumps(content))
    code, out, err = run(*options, "--expect")
    assert code == 2
    assert "the mask after click 2 differs" in err
    assert "click 1: " in out
    assert "click 2" not in out
    code, out, _ = run(*options)
    assert code == 0
    assert "not as recorded" in out.splitlines()[1]
    code, _, err = run(*options, "--expect", "--precision", "float32", "--engine", "onnxruntime")
    assert code == 2
    assert "another engine" in err


def test_a_mask_is_corrected(run: Run, image: Path, tmp_path: Path) -> None:
    first, second, recorded = (tmp_path / name for name in ("a.nii.gz", "b.nii.gz", "r.json"))
    run("segment", image, "--positive", "50,40,20", "-o", first)
    cut = ("--mask", first, "--negative", "50,40,24", "-o", second, "--record", recorded)
    assert run("segment", image, *cut)[0] == 0
    before, after = (np.asarray(nib.load(path).dataobj) for path in (first, second))
    assert 0 < after.sum() < before.sum()
    replayed = ("replay", recorded, "--image", image, "--expect")
    assert run(*replayed, "--mask", first)[0] == 0
    assert "first mask" in run(*replayed)[2]
    code, _, err = run(
        *("segment", image, "--positive", "50,40,20", "-o", first),
        *("--record", recorded, "--whole-volume"),
    )
    assert code == 2
    assert "exclude" in err


def test_bench(run: Run, image: Path) -> None:
    code, out, _ = run("bench", image, "--clicks", "3", "--json")
    assert code == 0
    report = json.loads(out)
    assert set(report["click_ms"]) == {"p50", "p95", "p99"}
    assert {"overhead_ms", "stages_ms", "patches", "peak_mb", "machine", "engine"} <= set(report)
    assert report["open_ms"] > 0
    code, out, _ = run("bench", image, "--clicks", "3")
    assert code == 0
    assert out.splitlines()[1].startswith("click ")
    assert run("bench", image, "--clicks", "0")[0] == 2
