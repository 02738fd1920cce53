"""Patches of 96^3 with half of their length overlapping become one volume of 100 x 512 x 512.

Writes results/stitching.json: the time of each contender, and the memory beyond its input that it
takes in a process of its own. The network copies what it is given, so that only cutting and
blending are timed, and every contender must give back what went in. Ours are NumPy's copies, as
engines give arrays: torch's threads spin for a while after each of its operations and would take a
core from our own, which have no torch beside them in real life. Peers need two channels for
background and object; clickseg's networks have one. nnU-Net accumulates in float16, in which the
least weights of corners drown: a few voxels there come back wrong.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from contest import contest, write
from numpy.typing import NDArray

from clickseg_infer.file_grid import Index
from clickseg_infer.machine import cores
from clickseg_infer.patches import cover
from clickseg_infer.stitch import blend

SHAPE = (100, 512, 512)
PATCH = (96, 96, 96)
OVERLAP = 0.5
ROUNDS = 7
NNUNET = "nnU-Net, 2 channels"
FLOOR = "adding without weights"


def clickseg(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    starts = cover(SHAPE, PATCH, OVERLAP)
    return blend(patches(volume, starts), starts, SHAPE, (0, 0, 0))


def patches(volume: NDArray[np.float32], starts: list[Index]) -> Iterator[NDArray[np.float32]]:
    """What the network gives: a copy, as the peers' does."""
    for start in starts:
        yield volume[tuple(slice(a, a + n) for a, n in zip(start, PATCH, strict=True))].copy()


def adding(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """What is read and written in any case: every patch is made and added by NumPy, in threads."""
    starts, block = cover(SHAPE, PATCH, OVERLAP), np.zeros(SHAPE, np.float32)
    with ThreadPoolExecutor(cores()) as pool:
        for patch, (z, y, x) in zip(patches(volume, starts), starts, strict=True):
            place = block[z : z + PATCH[0], y : y + PATCH[1], x : x + PATCH[2]]
            slabs = zip(np.array_split(place, cores()), np.array_split(patch, cores()), strict=True)
            list(pool.map(lambda slab: np.add(slab[0], slab[1], out=slab[0]), slabs))
    return block


def copies(channels: int, patch: torch.Tensor) -> torch.Tensor:
    return torch.cat([patch] * channels, 1)


def monai(channels: int, volume: NDArray[np.float32]) -> torch.Tensor:
    from monai.inferers import sliding_window_inference

    with torch.inference_mode():
        return sliding_window_inference(
            torch.from_numpy(volume)[None, None],
            PATCH,
            1,
            partial(copies, channels),
            overlap=OVERLAP,
            mode="gaussian",
        )


def nnunet() -> Callable[[NDArray[np.float32]], torch.Tensor]:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    class Doubled(torch.nn.Module):
        def forward(self, patch: torch.Tensor) -> torch.Tensor:
            return copies(2, patch)

    configuration = {"patch_size": list(PATCH), "architecture": {}}
    plans = PlansManager({"configurations": {"3d_fullres": configuration}})
    predictor = nnUNetPredictor(
        tile_step_size=1 - OVERLAP,
        use_mirroring=False,
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        allow_tqdm=False,
    )
    predictor.manual_initialization(
        Doubled(),
        plans,
        plans.get_configuration("3d_fullres"),
        None,
        {"labels": {"background": 0, "object": 1}, "channel_names": {"0": "CT"}},
        "nnUNetTrainer",
        None,
    )
    return lambda volume: predictor.predict_sliding_window_return_logits(
        torch.from_numpy(volume)[None]
    )


def contenders() -> dict[str, Callable[[], Callable[[NDArray[np.float32]], object]]]:
    """How each is made ready; what that gives takes a volume (z, y, x) in [0, 1]."""
    return {
        "clickseg": lambda: clickseg,
        "MONAI, 1 channel": lambda: partial(monai, 1),
        "MONAI, 2 channels": lambda: partial(monai, 2),
        NNUNET: nnunet,
    }


def memory_mb(name: str) -> float:
    """The most memory that a contender holds at once, beyond its input, in a fresh process."""
    command = [sys.executable, __file__, name]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return float(json.loads(lines[-1]))


def measure_memory(name: str) -> None:
    run = contenders()[name]()
    volume = np.random.default_rng(0).random(SHAPE, np.float32)
    run(volume)  # what is imported or compiled at the first call is not counted
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = status_kb("VmRSS")
    run(volume)
    print(json.dumps((status_kb("VmHWM") - before) / 1024))


def status_kb(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1])


def main() -> None:
    volume = np.random.default_rng(0).random(SHAPE, np.float32)
    runs = {name: partial(make(), volume) for name, make in contenders().items()}
    wrong = {}
    for name, run in runs.items():
        found = np.asarray(run(), np.float32).reshape(-1, *SHAPE)
        wrong[name] = float((np.abs(found - volume) > (1e-2 if name == NNUNET else 1e-4)).mean())
        assert wrong[name] <= (1e-2 if name == NNUNET else 0), name
    output_mb = volume.nbytes / 2**20
    rows = contest({**runs, FLOOR: partial(adding, volume)}, ROUNDS)
    for name in runs:
        row = rows[name]
        row["memory_in_outputs"] = round(memory_mb(name) / output_mb, 2)
        row["wrong_voxels"] = wrong[name]
    write(
        "stitching",
        {
            "shape": SHAPE,
            "patch": PATCH,
            "overlap": OVERLAP,
            "patches": len(cover(SHAPE, PATCH, OVERLAP)),
            "output_mb": output_mb,
            "contenders": rows,
        },
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure_memory(sys.argv[1])
    else:
        main()
