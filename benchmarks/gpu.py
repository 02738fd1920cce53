"""The bundled model on an NVIDIA GPU: the network, and from the click to the mask.

Torch eager, torch.compile, ONNX Runtime CUDA and TensorRT, in one process: the network of each in
turns, then a hundred clicks with each, and the device memory that each takes. Writes
results/gpu.json with the card's name; without a card, or with --cpu, the same on the CPU, which is
printed and not written. Reads the real CT beside the checkout (../shared/data), or a phantom.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clickseg_export.graph_precision import to_float16
from clickseg_export.onnx_weights import read_initial
from clickseg_export.parity import example_batch
from clickseg_export.tensorrt_plan import PlanOptions, export_plan
from contest import contest, write
from scans import scan

import clickseg_infer as cs
from clickseg_infer.engines.nvidia import find_gpu
from clickseg_infer.latency import measure
from clickseg_infer.model import DEFAULT_MODEL, Model, read_model_file
from clickseg_infer.model_spec import ModelSpec
from clickseg_train.config import read_config
from clickseg_train.networks import build_network

ROUNDS = 50
CLICKS = 100
SLICES = 133
ON_GPU = ("onnxruntime-cuda", "tensorrt", "tensorrt-rtx")
ON_CPU = ("onnxruntime", "openvino")
LARGEST = 0.1
"""By how much a logit may differ from torch's, in any precision."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cpu", action="store_true", help="On the CPU, to try the script.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--clicks", type=int, default=CLICKS)
    arguments = parser.parse_args()
    try:
        card = "" if arguments.cpu else find_gpu().name
    except cs.EngineError as error:
        print(f"{error}; on the CPU instead")
        card = ""
    with tempfile.TemporaryDirectory() as folder:
        models, missing, memory = opened("cuda" if card else "cpu", Path(folder))
        spec = models["torch"].spec
        batch = example_batch(spec)[:1]
        answers = {name: model.engine.run(batch) for name, model in models.items()}
        worst = {name: float(np.abs(a - answers["torch"]).max()) for name, a in answers.items()}
        assert all(value <= LARGEST for value in worst.values()), worst
        runs = {name: partial(model.engine.run, batch) for name, model in models.items()}
        network = contest(runs, arguments.rounds, warm=5)
        volume = scan(SLICES)
        clicks = {name: measure(m, volume, arguments.clicks) for name, m in models.items()}
    rows = {
        name: {
            "network": network[name],
            "click_ms": clicks[name]["click_ms"],
            "overhead_ms": clicks[name]["overhead_ms"],
            "memory_mb": round(memory[name], 1),
            "largest_logit_difference": round(worst[name], 5),
        }
        for name in models
    }
    content = {"card": card, "patch": list(spec.patch_size), "engines": rows, "missing": missing}
    if card:
        write("gpu", content, by_cpu=False)
    else:
        print(json.dumps(content, indent=1))


def opened(device: str, folder: Path) -> tuple[dict[str, Model], dict[str, str], dict[str, float]]:
    """Every contender that can be had, why the others cannot, and the memory that each took."""
    spec, content = read_model_file(DEFAULT_MODEL)
    paths = {"float32": folder / "float32.onnx", "float16": folder / "float16.onnx"}
    paths["float32"].write_bytes(content)
    paths["float16"].write_bytes(to_float16(spec, content)[1])
    makers: dict[str, Callable[[], Model]] = {
        "torch": partial(with_torch, spec, device),
        "torch.compile": partial(with_torch, spec, device, compiled=True),
    }
    for name in ON_GPU if device == "cuda" else ON_CPU:
        for precision, path in paths.items():
            # OpenVINO computes a graph of 16 bits in what the CPU has.
            computed = precision if precision == "float32" else "auto"
            makers[f"{name} {precision}"] = partial(with_engine, name, path, computed)
    models, missing, memory = {}, {}, {}
    batch = example_batch(spec)[:1]
    for name, make in makers.items():
        before = used_mb(device)
        try:
            models[name] = make()
            models[name].engine.run(batch)
        except (cs.EngineError, RuntimeError) as error:
            missing[name] = " ".join(str(error).split())[:300]
            models.pop(name, None)
        else:
            memory[name] = used_mb(device) - before
    return models, missing, memory


def with_engine(name: str, path: Path, precision: str) -> Model:
    """An engine on a model file; for TensorRT with a plan beside it."""
    if name.startswith("tensorrt"):
        export_plan(path, PlanOptions(name))
    return cs.load_model(path, engine=name, precision=precision)


def with_torch(spec: ModelSpec, device: str, *, compiled: bool = False) -> Model:
    """The same network in torch, float32, with its input and output on the host as engines have."""
    config = read_config("light")
    network: Any = build_network(config.network, len(spec.channels))
    network.load_state_dict(read_initial(DEFAULT_MODEL, config)[0])
    network = network.eval().to(device)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    if compiled:
        network = torch.compile(network)

    def run(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(batch).to(device)).cpu().numpy()

    return Model(spec, cs.FunctionEngine(run))


def used_mb(device: str) -> float:
    """Memory in use, in MiB: of the card by anybody, or resident in this process."""
    if device == "cuda":
        free, total = torch.cuda.mem_get_info()
        return (total - free) / 2**20
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


if __name__ == "__main__":
    main()
