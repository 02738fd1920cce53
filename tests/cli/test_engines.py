"""Engines, plans and precisions from the command line."""

import importlib.util
import json
from pathlib import Path

import pytest
from running import Run, refused

import clickseg_infer as cs
from clickseg_infer.engines import NAMES
from clickseg_infer.engines.nvidia import find_gpu


def test_an_exported_model_is_compiled_and_served_without_torch(
    run: Run, tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "onnx", None)
    model = tmp_path / "m.onnx"
    model.write_bytes(tiny_onnx.read_bytes())
    code, out, err = run(
        *("export", model, "--trt", "--builder", "tensorrt-rtx", "--batch", 2),
        *("--compute-capability", "SM86", "--compute-capability", "SM89"),
        *("--triton", tmp_path / "models"),
    )
    assert (code, err) == (0, "")
    assert "compiled by tensorrt-rtx" in out
    assert "for SM86, SM89, float32, up to 2 patches" in out
    record = json.loads((tmp_path / "m.plan.json").read_text())
    assert record["compute_capabilities"] == ["SM86", "SM89"]
    assert (tmp_path / "models" / "clickseg_tiny" / "config.pbtxt").exists()


def test_a_16_bit_model(run: Run, tiny_onnx: Path, image: Path, tmp_path: Path) -> None:
    half = tmp_path / "h.onnx"
    code, out, _ = run("export", tiny_onnx, "-o", half, "--precision", "fp16", "--force")
    assert code == 0
    assert "fp16 moves logits by at most" in out
    code, out, _ = run("info", half)
    assert code == 0
    assert 'precision: "float16"' in out
    assert (
        run(
            "segment", image, "--positive", "50,40,20", "-o", tmp_path / "m.nii.gz", "--model", half
        )[0]
        == 0
    )


def test_the_ladder_and_the_cache_are_shown(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLICKSEG_CACHE", str(tmp_path))
    code, out, _ = run("info")
    assert code == 0
    ladder = [line for line in out.splitlines() if line.startswith("engine ")]
    assert [line.split()[1] for line in ladder] == [f"{name}:" for name in NAMES]
    (taken,) = [line for line in ladder if "(auto takes it)" in line]
    for line in ladder[: ladder.index(taken)]:
        assert "not installed" in line or "no NVIDIA GPU" in line or "no plan" in line
    assert "2 compiled models" in run("info", "--cache")[1]  # clicks, and structures
    assert "2 files deleted" in run("info", "--clear-cache")[1]
    assert "0 compiled models" in run("info", "--cache")[1]
    assert list(tmp_path.iterdir()) == []


def test_what_needs_a_gpu_is_refused_in_one_line_where_there_is_none(
    run: Run, image: Path, tiny_onnx: Path, tmp_path: Path
) -> None:
    try:
        find_gpu()
    except cs.EngineError:
        pass
    else:
        pytest.skip("there is a GPU")
    out = tmp_path / "m.nii.gz"
    for engine in NAMES[:3]:
        options = ("--engine", engine, "--positive", "50,40,20", "-o", out)
        line = refused(run, "segment", image, *options)
        assert "no NVIDIA GPU" in line or "not installed" in line
        line = refused(run, "bench", image, "--engine", engine)
        assert "no NVIDIA GPU" in line or "not installed" in line
    assert not out.exists()
    model = tmp_path / "m.onnx"
    model.write_bytes(tiny_onnx.read_bytes())
    line = refused(run, "export", model, "--trt", "--builder", "tensorrt")
    assert "no NVIDIA GPU" in line or "not installed" in line
    for options, reason in (
        ((), "nothing to do"),
        (("--compute-capability", "SM89"), "go with --trt"),
        (("--batch", 2, "--triton", tmp_path / "t"), "go with --trt"),
        (("--force", "--triton", tmp_path / "t"), "cases and force are for"),
        (("--trt", "--batch", 999), "must rise from 1 to 256"),
        (("--trt", "--compute-capability", "SM75"), "FP32 3D convolution"),
        (("--trt", "--compute-capability", "SM1"), "allowed are SM75"),
        (("--trt", "--builder", "tvm"), "unknown builder 'tvm'"),
        (("--patch", "32,32", "--triton", tmp_path / "t"), "three whole numbers"),
        (("--precision", "fp16", "--triton", tmp_path / "t"), "name the model to write"),
    ):
        if importlib.util.find_spec("tensorrt_rtx") or "--trt" not in options:
            assert reason in refused(run, "export", model, *options)
            if options and "--triton" not in options and "SM75" not in options:
                later = ("-o", tmp_path / "n.onnx", *options)  # and nothing is written before
                assert reason in refused(run, "export", model, *later)
    for options in (("--cache", "--clear-cache"), (model, "--cache")):
        assert "give a model, --cache or --clear-cache" in refused(run, "info", *options)
    assert [path.name for path in tmp_path.iterdir()] == ["ball.nii.gz", "m.onnx"]
