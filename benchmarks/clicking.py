"""From a click to the mask: one patch, a whole volume DeepEdit's way, and long sessions.

The peer answers the same click with the same two networks: torch eager, MONAI's sliding-window
inferer, and torch's interpolation back to the scan's grid; it is given its input for nothing.
DeepEdit's way resamples the whole scan, draws MONAI's Gaussian guidance, slides over all of it and
interpolates all of it back at every click. Writes results/clicking.json.
"""

import time
from contextlib import suppress

import numpy as np
import torch
from bundled import torch_network
from contest import contest, write
from monai.apps.deepedit.transforms import AddGuidanceSignalDeepEditd
from monai.inferers import SlidingWindowInferer
from numpy.typing import NDArray
from scans import SPLEEN, scan
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

import clickseg_infer as cs
from clickseg_infer.boxes import Box, box_at, hull, shape_of
from clickseg_infer.latency import random_click
from clickseg_infer.look import Run
from clickseg_infer.patches import focus
from clickseg_infer.predicting import fitting_centre, fitting_spacing
from clickseg_infer.resample import network_grid

SLICES = 300
ROUNDS = 20
DEEPEDIT_MM = 1.5
DEEPEDIT_ROUNDS = 2
LOW, HIGH = 100, 600  # slices of two scans whose clicks must cost the same
SESSION_CLICKS, SESSIONS = 20, 8
LONG = 200
PRODUCT = 2048  # rows of the matrices whose product tells the machine's speed


def main() -> None:
    volume, network = scan(SLICES), torch_network()
    with cs.load_model() as model:
        deepedit = whole_volume_ms(network, model.spec, volume)
        both = BothNetworks(network, len(model.spec.hu_windows))
        content = {
            "click": click(model, both, volume, deepedit),
            "floor": floor(both, model.spec, model.engine.precision),
            "sessions": sessions(model),
            "long_session": long_session(model, volume),
        }
    write("clicking", content)


class BothNetworks(nn.Module):
    """The network and, for nothing but the time that it takes, its structure branch."""

    def __init__(self, network: nn.Module, windows: int) -> None:
        super().__init__()
        self.network, self.windows = network, windows

    def forward(self, x: Tensor) -> Tensor:
        """Network input to logits."""
        self.network.structures(x[:, : self.windows])
        logits: Tensor = self.network(x)
        return logits


def click(
    model: cs.Model, network: nn.Module, volume: cs.Volume, whole_ms: float
) -> dict[str, object]:
    """One click that takes away and that one patch answers, in a warm session."""
    session = cs.Session(model, volume)
    session.click(SPLEEN)
    # A patch that ran before would not run again, so no two of these clicks are alike.
    places = iter(places_in(session.mask, ROUNDS + 3))
    known = session.prediction
    box, batch = patch_of(model, volume, known, next(places))
    check_agreement(network, batch, box)
    stages, patches = [], []

    def ours() -> None:
        session.undo()
        session.click(next(places), positive=False)
        stages.append(session.prediction.ms)
        patches.append(session.prediction.patches)

    session.click(next(places), positive=False)
    result = contest(
        {
            "clickseg": ours,
            "torch and MONAI, back to the patch's box": lambda: peer(network, batch, shape_of(box)),
            "torch and MONAI, back to the whole scan": lambda: peer(network, batch, volume.shape),
        },
        ROUNDS,
    )
    ours_ms = result["clickseg"]["median_ms"]
    medians = {n: round(float(np.median([ms[n] for ms in stages])), 2) for n in stages[0]}
    rest = [sum(ms.values()) - ms["network"] - ms["maps"] for ms in stages]
    assert set(patches) == {1}
    return {
        "contest": result,
        "stages_ms": medians,
        "rest_ms": round(float(np.median(rest)), 2),
        "engine": {"name": model.engine.name, "precision": model.engine.precision},
        "deepedit_ms": round(whole_ms),
        "deepedit_ratio": round(whole_ms / ours_ms),
    }


def places_in(mask: NDArray[np.uint8], count: int) -> list[tuple[int, int, int]]:
    """Voxels of a mask, none twice."""
    voxels = np.argwhere(mask)
    chosen = np.random.default_rng(0).choice(len(voxels), count, replace=False)
    return [(int(z), int(y), int(x)) for z, y, x in voxels[chosen]]


def patch_of(
    model: cs.Model, volume: cs.Volume, known: cs.Prediction, place: tuple[int, int, int]
) -> tuple[Box, Tensor]:
    """The box of the scan that a click's patch covers, and the input that the network is given."""
    seen = []

    def remember(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        seen.append(batch.copy())
        return np.zeros((1, 1, *batch.shape[2:]), np.float32)

    spy = cs.Model(model.spec, cs.FunctionEngine(remember))
    clicks = (*known.clicks, cs.Click(place, positive=False))
    cs.predict(spy, volume, clicks, known)
    run, extent = Run(model, volume), hull(known.box, box_at(place))
    spacing = fitting_spacing(run, extent)
    grid = network_grid(volume.shape, volume.spacing_mm, spacing)
    centre = grid.of_volume(fitting_centre(run, extent, spacing, place))
    start = focus(centre, grid.shape, model.spec.patch_size)
    return grid.volume_box(start, model.spec.patch_size), torch.from_numpy(seen[0])


@torch.inference_mode()
def peer(network: nn.Module, batch: Tensor, shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """The mask of a patch, interpolated to `shape` voxels of the scan."""
    logits = SlidingWindowInferer(batch.shape[2:], sw_batch_size=1)(batch, network)
    logits = functional.interpolate(logits, size=shape, mode="trilinear")
    return (logits[0, 0] > 0).to(torch.uint8).numpy()


def check_agreement(network: nn.Module, batch: Tensor, box: Box) -> None:
    """The engine and the peer give the same mask of the same input, in bfloat16 nearly so.

    Whether our interpolation is torch's is for resampling.py to say.
    """
    theirs = peer(network, batch, shape_of(box))
    assert theirs.any()
    for precision, least in (("float32", 0.999), ("auto", 0.98)):
        with cs.load_model(precision=precision) as model:
            logits = torch.from_numpy(model.engine.run(batch.numpy()))
        logits = functional.interpolate(logits, size=shape_of(box), mode="trilinear")
        assert cs.dice((logits[0, 0] > 0).numpy(), theirs) > least


@torch.inference_mode()
def whole_volume_ms(network: nn.Module, spec: cs.ModelSpec, volume: cs.Volume) -> float:
    """Median milliseconds of one click DeepEdit's way."""
    size = [
        round(n * own / DEEPEDIT_MM) for n, own in zip(volume.shape, volume.spacing_mm, strict=True)
    ]
    scale = [n / own for n, own in zip(size, volume.shape, strict=True)]
    at = [int(p * s) for p, s in zip(SPLEEN, scale, strict=True)]
    guide = AddGuidanceSignalDeepEditd("image", guidance="guidance", sigma=3, number_intensity_ch=2)
    inferer = SlidingWindowInferer(spec.patch_size, sw_batch_size=1, overlap=0.25, mode="gaussian")
    times = []
    for _ in range(DEEPEDIT_ROUNDS):
        began = time.perf_counter()
        hu = torch.from_numpy(volume.voxels.astype(np.float32))[None, None]
        hu = functional.interpolate(hu, size=size, mode="trilinear")[0]
        windows = [
            ((hu - low) * (2 / (high - low)) - 1).clamp(-1, 1)
            for low, high in spec.hu_windows.values()
        ]
        clicks = {"object": [[*at]], "background": []}
        guided = guide({"image": torch.cat(windows), "guidance": clicks})["image"]
        missing = len(spec.channels) - len(guided)
        batch = functional.pad(torch.as_tensor(guided)[None], (0,) * 6 + (0, missing))
        logits = inferer(batch, network)
        logits = functional.interpolate(logits, size=volume.shape, mode="trilinear")
        (logits[0, 0] > 0).to(torch.uint8).numpy()
        times.append((time.perf_counter() - began) * 1e3)
    return float(np.median(times))


def floor(network: nn.Module, spec: cs.ModelSpec, precision: str) -> dict[str, float]:
    """What the network would take at the speed of a large product of matrices."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(torch.zeros(1, len(spec.channels), *spec.patch_size))
    matrix = torch.ones(PRODUCT, PRODUCT, dtype=getattr(torch, precision))
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        torch.mm(matrix, matrix)
        times.append(time.perf_counter() - began)
    speed = 2 * PRODUCT**3 / float(np.median(times))
    return {
        "network_gflop": round(counter.get_total_flops() / 1e9, 1),
        "product_gflop_per_s": round(speed / 1e9),
        "network_ms": round(counter.get_total_flops() / speed * 1e3, 1),
    }


def sessions(model: cs.Model) -> dict[str, object]:
    """The same clicks on the same object in a short and in a tall scan."""
    volumes = {n: scan(n) for n in (LOW, HIGH)}
    clicks = session_clicks(model, volumes[LOW], SESSION_CLICKS)
    times: dict[int, list[float]] = {LOW: [], HIGH: []}
    patches: dict[int, list[int]] = {LOW: [], HIGH: []}
    for turn in range(SESSIONS + 1):
        for slices, volume in volumes.items():
            session = cs.Session(model, volume)
            for one in clicks:
                began = time.perf_counter()
                session.click(one.zyx, one.positive)
                if turn > 0:
                    times[slices].append((time.perf_counter() - began) * 1e3)
                    patches[slices].append(session.prediction.patches)
    rows = {
        f"{slices} slices": {
            "p50_ms": round(float(np.percentile(own, 50)), 1),
            "p95_ms": round(float(np.percentile(own, 95)), 1),
            "patches_per_click": round(float(np.mean(patches[slices])), 2),
        }
        for slices, own in times.items()
    }
    p95 = [rows[f"{n} slices"]["p95_ms"] for n in (HIGH, LOW)]
    return {**rows, "p95_ratio": round(p95[0] / p95[1], 3)}


def session_clicks(model: cs.Model, volume: cs.Volume, count: int) -> tuple[cs.Click, ...]:
    """A first click in the spleen, then corrections in or near the mask."""
    rng = np.random.default_rng(0)
    session = cs.Session(model, volume)
    session.click(SPLEEN)
    while len(session.clicks) < count:
        one = random_click(session, rng)
        with suppress(cs.ClickError):
            session.click(one.zyx, one.positive)
    return session.clicks


def long_session(model: cs.Model, volume: cs.Volume) -> dict[str, float]:
    """Resident memory in the course of a long session."""
    clicks = session_clicks(model, volume, LONG)
    session, found = cs.Session(model, volume), {}
    for number, one in enumerate(clicks, start=1):
        session.click(one.zyx, one.positive)
        if number in (LONG // 4, LONG):
            found[f"resident_mb_after_{number}"] = resident_mb()
    return found


def resident_mb() -> float:
    with open("/proc/self/status") as file:
        line = next(line for line in file if line.startswith("VmRSS"))
    return round(int(line.split()[1]) / 1024, 1)


if __name__ == "__main__":
    main()
