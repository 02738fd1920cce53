"""A model repository for NVIDIA Triton, which serves the network to many.

Layout and fields as in Triton's documentation: "Model Repository" and "Model Configuration"
(https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs).
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from clickseg_infer.atomic_write import make_folder, write_whole
from clickseg_infer.engines.plans import plan_path, read_plan
from clickseg_infer.errors import FileError
from clickseg_infer.model import read_network
from clickseg_infer.model_spec import ModelSpec

_ONNX_BATCH = 8
_VERSION = "1"
_CONFIG = """\
name: {name}
platform: {platform}
max_batch_size: {batch}
input [
  {{
    name: "input"
    data_type: TYPE_FP32
    dims: {input_dims}
  }}
]
output [
  {{
    name: "logits"
    data_type: TYPE_FP32
    dims: {output_dims}
  }}
]
dynamic_batching {{ }}
parameters {{
  key: "clickseg.spec"
  value: {{ string_value: {spec} }}
}}
"""


@dataclass(frozen=True)
class _Served:
    """One folder of the repository."""

    name: str
    platform: str
    file: str
    content: bytes
    batch: int


def write_repository(model: Path, folder: Path) -> list[Path]:
    """Write FOLDER/NAME for an exported model, and FOLDER/NAME_trt if TensorRT's plan is beside it.

    NAME is the spec's, and the graph's precision where that is not float32. A client sends network
    inputs (N, C, z, y, x) float32 as "input" and gets "logits" (N, 1, z, y, x); what the channels
    are is in the parameter "clickseg.spec".

    Args:
        model: an exported model.
        folder: the repository, made if it is not there; other models in it stay.

    Returns:
        The folders written.

    Raises:
        FileError, ModelError: the model cannot be read, or the repository cannot be written, or it
            holds a plan of this name that would be left without its model.
        EngineError: there is a plan, but it is damaged.
    """
    spec, network = read_network(model)
    suffix = "" if spec.precision == "float32" else f"_{spec.precision}"
    name = re.sub(r"[^A-Za-z0-9_]+", "_", f"clickseg_{spec.name}{suffix}")
    served = [_Served(name, "onnxruntime_onnx", "model.onnx", network.content, _ONNX_BATCH)]
    plan = _plan_for_triton(model, network.sha256)
    if plan is not None:
        served.append(_Served(f"{name}_trt", "tensorrt_plan", "model.plan", *plan))
    elif (folder / f"{name}_trt").exists():
        raise FileError(f"{folder / name}_trt: is of an earlier export; delete it, or use --trt")
    return [_write(part, spec, folder) for part in served]


def _plan_for_triton(model: Path, onnx_sha256: str) -> tuple[bytes, int] | None:
    """The plan beside a model and its largest batch; None if Triton's TensorRT cannot run it."""
    if not plan_path(model).exists():
        return None
    plan, record = read_plan(plan_path(model))
    if record.builder != "tensorrt" or record.onnx_sha256 != onnx_sha256:
        return None
    return plan, record.profile.largest


def _write(served: _Served, spec: ModelSpec, folder: Path) -> Path:
    target = folder / served.name
    make_folder(target / _VERSION, parents=True)
    config = _CONFIG.format(
        name=json.dumps(served.name),
        platform=json.dumps(served.platform),
        batch=served.batch,
        input_dims=[len(spec.channels), *spec.patch_size],
        output_dims=[1, *spec.patch_size],
        spec=json.dumps(spec.to_json()),
    )
    write_whole(target / _VERSION / served.file, served.content)
    write_whole(target / "config.pbtxt", config.encode())
    return target
