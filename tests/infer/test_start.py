import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import clickseg_infer as cs


@pytest.fixture
def scan(tmp_path: Path, ball_volume: cs.Volume) -> Path:
    cs.write_volume(tmp_path / "scan.nii.gz", ball_volume)
    return tmp_path / "scan.nii.gz"


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[cs.Model]:
    """Every model that was closed."""
    seen: list[cs.Model] = []
    monkeypatch.setattr(cs.Model, "close", lambda model: seen.append(model))
    return seen


def test_it_opens_what_reading_and_loading_open(
    scan: Path, tiny_onnx: Path, closed: list[cs.Model]
) -> None:
    volume, model = cs.open_scan(scan, tiny_onnx, engine="onnxruntime", precision="float32")
    expected = cs.read_volume(scan)
    assert np.array_equal(volume.voxels, expected.voxels)
    assert np.array_equal(volume.affine, expected.affine)
    assert (model.engine.name, model.engine.precision) == ("onnxruntime", "float32")
    assert model.spec.name == "tiny"
    assert cs.Session(model, volume).click((20, 40, 50)).shape == volume.shape
    assert closed == []


def test_errors_are_those_of_reading_and_loading(
    scan: Path, tiny_onnx: Path, tmp_path: Path, closed: list[cs.Model]
) -> None:
    (tmp_path / "text.onnx").write_text("hello, I am a model")
    for model, options, error, complaint in (
        (tmp_path / "none.onnx", {}, cs.FileError, r"none\.onnx"),
        (tmp_path / "text.onnx", {}, cs.ModelError, r"text\.onnx"),
        (tiny_onnx, {"engine": "cuda"}, cs.EngineError, "unknown engine 'cuda'"),
        (tiny_onnx, {"precision": "float8"}, cs.EngineError, "unknown precision"),
    ):
        with pytest.raises(error, match=complaint):
            cs.open_scan(scan, model, **options)
        with pytest.raises(cs.FileError, match=r"gone\.nii"):
            cs.open_scan(tmp_path / "gone.nii", model, **options)
    assert closed == []


def test_a_scan_that_cannot_be_read_leaves_no_model_open(
    tiny_onnx: Path, tmp_path: Path, closed: list[cs.Model]
) -> None:
    (tmp_path / "bad.nii.gz").write_bytes(b"\x1f\x8b" + bytes(50))
    with pytest.raises(cs.FileError, match=r"bad\.nii\.gz"):
        cs.open_scan(tmp_path / "bad.nii.gz", tiny_onnx)
    assert [model.spec.name for model in closed] == ["tiny"]


def test_a_first_click_finds_its_kernels_loaded(scan: Path) -> None:
    code = (
        "import clickseg_infer as cs\n"
        f"volume, model = cs.open_scan({str(scan)!r})\n"
        "from clickseg_infer import boxes, click_maps, distances, interpolate, mixing\n"
        "kernels = (interpolate._read, interpolate._threshold, click_maps._relax, boxes._bounds,"
        " distances._take_back, mixing._inform)\n"
        "before = [list(kernel.signatures) for kernel in kernels]\n"
        "assert all(before)\n"
        "session = cs.Session(model, volume)\n"
        "for x, positive in ((50, True), (80, False), (51, True), (52, True)):\n"
        "    session.click((20, 40, x), positive)\n"
        "assert before == [list(kernel.signatures) for kernel in kernels]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_numba_imports_blas_when_it_is_needed_and_not_before(tiny_onnx: Path, scan: Path) -> None:
    code = (
        "import sys, numba, numpy as np, clickseg_infer as cs\n"
        f"cs.open_scan({str(scan)!r}, {str(tiny_onnx)!r}, engine='onnxruntime')\n"
        "assert 'numba.np.arraymath' in sys.modules and 'scipy.linalg' not in sys.modules\n"
        "product = numba.njit(lambda a: np.dot(a, a))(np.full((2, 2), 3.0))\n"
        "assert (product == 18).all() and 'scipy.linalg' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
