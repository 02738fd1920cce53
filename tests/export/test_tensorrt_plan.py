"""TensorRT-RTX compiles on the CPU: that proves parsing and compiling, not numbers or speed."""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path

import pytest
from clickseg_export.export_model import export_model
from clickseg_export.graph_precision import to_float16
from clickseg_export.tensorrt_plan import PlanOptions, export_plan

import clickseg_infer as cs
from clickseg_infer.engines.plans import read_plan, record_path
from clickseg_infer.model import DEFAULT_MODEL, read_model_file

trt = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")

CAPABILITIES = [(), ("SM86",), ("SM89",), ("SM120",)]


@pytest.fixture(scope="module")
def seed_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The width-64 network of the configuration `spleen`, untrained, for patches of 160^3."""
    import torch
    from clickseg_export.onnx_file import folded, serialised

    from clickseg_infer.model import with_spec
    from clickseg_train.config import read_config
    from clickseg_train.networks import build_network

    config = read_config("spleen")
    spec = config.model.spec()
    assert (config.network.width, spec.patch_size) == (64, (160, 160, 160))
    network = folded(build_network(config.network, len(spec.channels)).eval())
    batch = torch.zeros(2, len(spec.channels), *spec.patch_size)
    path = tmp_path_factory.mktemp("seed") / "seed.onnx"
    path.write_bytes(with_spec(serialised(network, batch), spec))
    return path


@pytest.fixture(scope="module", params=["bundled", "seed"])
def models(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The model in float32 and in float16, in a folder of their own."""
    folder = tmp_path_factory.mktemp(request.param)
    source = DEFAULT_MODEL if request.param == "bundled" else request.getfixturevalue("seed_onnx")
    paths = {"float32": folder / "m.onnx", "float16": folder / "h.onnx"}
    paths["float32"].write_bytes(source.read_bytes())
    paths["float16"].write_bytes(to_float16(*read_model_file(source))[1])
    return paths


@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("capabilities", CAPABILITIES, ids=lambda names: "".join(names) or "any")
def test_a_plan_and_its_record(
    precision: str, capabilities: tuple[str, ...], models: dict[str, Path]
) -> None:
    model = models[precision]
    path, written = export_plan(model, PlanOptions(capabilities=capabilities))
    plan, record = read_plan(path)
    # The header: a magic word, the plan's size, and the version of the builder.
    assert plan[:4] == b"vtrt"
    assert int.from_bytes(plan[16:24], "little") == len(plan)
    assert ".".join(str(number) for number in plan[24:28]) == trt.__version__
    assert path == model.with_suffix(".plan")
    assert record.plan_sha256 == written.plan_sha256 == hashlib.sha256(plan).hexdigest()
    assert record.onnx_sha256 == hashlib.sha256(model.read_bytes()).hexdigest()
    assert (record.builder, record.version) == ("tensorrt-rtx", trt.__version__)
    assert record.precision == precision
    assert record.compute_capabilities == capabilities
    assert asdict(record.profile) == {"smallest": 1, "usual": 1, "largest": 4}
    spec, _ = read_model_file(model)
    assert record.spec == json.loads(spec.to_json())
    # Strongly typed: a plan of a 16-bit graph holds its weights in 16 bits.
    weights = read_model_file(models["float16"])[1]
    assert (len(plan) < 1.5 * len(weights)) == (precision == "float16")


def test_a_plan_that_cannot_be_compiled_leaves_what_is_there(
    tiny_onnx: Path, tmp_path: Path
) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(tiny_onnx.read_bytes())
    path, _ = export_plan(model, PlanOptions(batch=2))
    before = path.read_bytes(), record_path(path).read_bytes()
    for arguments, reason in (
        ({"capabilities": ("SM75",)}, "FP32 3D convolution"),
        ({"capabilities": ("SM1",)}, "unknown compute capability SM1"),
        ({"batch": 0}, "must rise from 1 to 256, not 1, 1, 0"),
        ({"builder": "tvm"}, "unknown builder"),
    ):
        with pytest.raises(cs.EngineError, match=reason):
            export_plan(model, PlanOptions(**arguments))
    assert (path.read_bytes(), record_path(path).read_bytes()) == before
    export_model(tiny_onnx, tmp_path / "h.onnx", precision="fp16", force=True)
    _, record = export_plan(tmp_path / "h.onnx", PlanOptions(capabilities=("SM75",)))
    assert record.compute_capabilities == ("SM75",)
