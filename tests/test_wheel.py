"""What a user installs."""

import email
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ("light", "finetune", "structures", "spleen", "liver", "lung")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(out)]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    return zipfile.ZipFile(next(out.glob("*.whl")))


def test_the_wheel_holds_our_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    top = {name.split("/")[0] for name in wheel.namelist()}
    info = {name for name in top if name.endswith(".dist-info")}
    assert top - info == {"clickseg_infer", "clickseg_train", "clickseg_export", "clickseg_cli"}
    names = set(wheel.namelist())
    for needed in (
        "clickseg_infer/models/light.onnx",
        "clickseg_infer/models/light.md",
        "clickseg_infer/py.typed",
        *(
            f"clickseg_infer/server/static/{name}"
            for name in ("index.html", "main.js", "style.css")
        ),
        "clickseg_infer/server/viewer/package-lock.json",
        *(f"clickseg_train/configs/{name}.toml" for name in CONFIGS),
    ):
        assert needed in names
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_the_runtime_brings_no_training_framework(wheel: zipfile.ZipFile) -> None:
    path = next(name for name in wheel.namelist() if name.endswith("/METADATA"))
    metadata = email.message_from_bytes(wheel.read(path))
    always = [r for r in metadata.get_all("Requires-Dist") if "extra ==" not in r]
    assert any(r.startswith("openvino") for r in always)  # a plain install has an engine
    for heavy in ("torch", "onnx", "monai", "onnxruntime", "fastapi", "uvicorn"):
        assert not any(r.split(">")[0].split(";")[0].strip() == heavy for r in always)


def test_the_bundled_model_is_small_enough(wheel: zipfile.ZipFile) -> None:
    sizes = [info.file_size for info in wheel.infolist() if info.filename.endswith(".onnx")]
    assert len(sizes) == 1
    assert sizes[0] <= 16e6
