"""From the start of a process to a first mask, and the memory of a session.

Writes results/start.json. Beside `clickseg segment`, with warm caches, stands a process that
imports PyTorch and MONAI, loads the scan with nibabel, and runs one patch of the same network.
"""

import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import torch
from clickseg_export.onnx_weights import read_initial
from contest import contest, write
from scans import SPLEEN, scan_file

from clickseg_infer.engines import open_engine
from clickseg_infer.model import DEFAULT_MODEL, read_network
from clickseg_train.config import read_config

SLICES = 300
ROUNDS = 9

CLICKSEG = "from clickseg_cli.main import main; main()"

TORCH = """
import sys
import monai, nibabel, numpy, torch
from clickseg_train.config import read_config
from clickseg_train.networks import build_network
voxels = numpy.asanyarray(nibabel.load(sys.argv[1]).dataobj)
config = read_config("light")
channels = len(config.model.spec().channels)
network = build_network(config.network, channels).eval()
network.load_state_dict(torch.load(sys.argv[2]))
with torch.inference_mode():
    network(torch.zeros(1, channels, *config.model.patch_size))
"""

SESSION = """
import json, sys

def resident(field="VmRSS:"):
    lines = [line.split() for line in open("/proc/self/status")]
    return next(int(line[1]) for line in lines if line[0] == field) / 1024

grown = [("python", resident())]
import numpy
import clickseg_infer as cs
from clickseg_infer import start
from clickseg_infer.model import DEFAULT_MODEL, read_model_file
spec, _ = read_model_file(DEFAULT_MODEL)
grown.append(("numpy", resident()))
volume = cs.read_volume(sys.argv[1])
grown.append(("scan", resident()))
start._load_kernels(cs.Model(spec, cs.FunctionEngine(abs)))
grown.append(("kernels", resident()))
model = cs.load_model()
grown.append(("engine", resident()))
session = cs.Session(model, volume)
z, y, x = map(int, sys.argv[2:])
for number in range(5):
    session.click((z, y + 9 * number, x + 9 * number), number % 2 == 0)
grown.append(("clicks", resident()))
print(json.dumps([grown, resident("VmHWM:"), volume.voxels.nbytes / 2**20]))
"""


def python(*arguments: object) -> str:
    """What a fresh interpreter prints."""
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def first_mask(scan: Path, folder: Path) -> dict[str, object]:
    state, _ = read_initial(DEFAULT_MODEL, read_config("light"))
    torch.save(state, folder / "state.pt")
    click = ("--positive", ",".join(map(str, SPLEEN[::-1])))
    segment = ("-c", CLICKSEG, "segment", scan, *click, "-o", folder / "mask.nii.gz")
    return contest(
        {
            "clickseg segment": lambda: python(*segment),
            "torch, monai, nibabel": lambda: python("-c", TORCH, scan, folder / "state.pt"),
        },
        ROUNDS,
    )


def memory(scan: Path) -> dict[str, object]:
    """Of a process with a scan, an engine and a session after five clicks, in MiB, by what came."""
    grown, peak, scan_mb = json.loads(python("-c", SESSION, scan, *SPLEEN))
    resident = grown[-1][1]
    before = [0.0, *(mb for _, mb in grown)]
    parts = {name: round(mb - less, 1) for (name, mb), less in zip(grown, before, strict=False)}
    return {
        "resident_mb": round(resident),
        "peak_mb": round(peak),
        "scan_mb": round(scan_mb),
        "resident_to_scan": round(resident / scan_mb, 2),
        "parts_mb": parts,
    }


def opening(folder: Path) -> dict[str, object]:
    """Engines opened anew, and OpenVINO from the cache."""
    _, network = read_network(DEFAULT_MODEL)

    def opened(name: str, cache: Path | str) -> None:
        os.environ["CLICKSEG_CACHE"] = str(cache)
        open_engine(network, name).close()

    opened("openvino", folder)
    return contest(
        {
            "openvino": partial(opened, "openvino", ""),
            "openvino, cached": partial(opened, "openvino", folder),
            "onnxruntime": partial(opened, "onnxruntime", ""),
        },
        ROUNDS,
    )


def main() -> None:
    scan = scan_file(SLICES)
    with tempfile.TemporaryDirectory() as folder:
        content = {"first_mask": first_mask(scan, Path(folder)), "memory": memory(scan)}
        content["opening"] = opening(Path(folder))  # last: it changes where the cache is
    write("start", {"shape": [SLICES, 512, 512], **content})


if __name__ == "__main__":
    main()
