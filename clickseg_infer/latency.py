"""How long a click takes, from the click to the mask, and where the time goes."""

import platform
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from clickseg_infer.boxes import box_at
from clickseg_infer.clicks import Click
from clickseg_infer.errors import ClickError, VolumeError
from clickseg_infer.machine import machine
from clickseg_infer.model import Model
from clickseg_infer.session import Session
from clickseg_infer.volume import Volume

CLICKS_PER_OBJECT = 10
_WARM_UP = 2  # clicks that are not counted
_BODY_HU = -300
_TRIES = 10_000
_REACH = 5  # voxels beyond the mask within which a correcting click is placed
_PERCENTILES = (50, 95, 99)


def measure(
    model: Model,
    volume: Volume,
    clicks: int,
    seed: int = 0,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Click random objects, ten clicks each, and measure every click.

    The first click on an object is anywhere in the body; the others correct its mask near its
    border. What was clicked depends on the seed and the masks alone.

    Args:
        model: to answer with.
        volume: the scan.
        clicks: how many are counted, after two that are not.
        seed: of the clicks.
        report: called with (done, total) after each click.

    Returns:
        Plain values: the first click's milliseconds, in all and by stage; for the counted ones
        "click_ms" (what `Session.click` took), "overhead_ms" (the same without the network) and
        each stage of "stages_ms", as "p50", "p95" and "p99"; the mean number of "patches";
        "peak_mb" of the process; "machine" and "engine".
    """
    rng = np.random.default_rng(seed)
    totals, stages, patches = [], [], []
    session = Session(model, volume)
    for done in range(_WARM_UP + clicks):
        if len(session.clicks) == CLICKS_PER_OBJECT:
            session = Session(model, volume)
        totals.append(_timed_click(session, rng))
        stages.append(session.prediction.ms)
        patches.append(session.prediction.patches)
        report(done + 1, _WARM_UP + clicks)
    counted, split = totals[_WARM_UP:], stages[_WARM_UP:]
    names = sorted({name for ms in split for name in ms})
    network = [ms.get("network", 0.0) for ms in split]
    return {
        "clicks": clicks,
        "first_click_ms": round(totals[0], 1),
        "first_click_stages_ms": {name: round(ms, 2) for name, ms in stages[0].items()},
        "click_ms": _percentiles(counted),
        "overhead_ms": _percentiles(np.subtract(counted, network).tolist()),
        "stages_ms": {name: _percentiles([ms.get(name, 0.0) for ms in split]) for name in names},
        "patches": round(float(np.mean(patches[_WARM_UP:])), 2),
        "peak_mb": round(peak_mb(), 1),
        "machine": machine(),
        "engine": {"name": model.engine.name, "precision": model.engine.precision},
    }


def _timed_click(session: Session, rng: np.random.Generator) -> float:
    """Make one click that the session takes; returns milliseconds."""
    for _ in range(_TRIES):
        click = random_click(session, rng)
        began = time.perf_counter()
        try:
            session.click(click.zyx, click.positive)
        except ClickError:  # a voxel that was clicked already, say
            continue
        return (time.perf_counter() - began) * 1e3
    raise VolumeError(f"{_TRIES} places in a row could not be clicked")


def random_click(session: Session, rng: np.random.Generator) -> Click:
    """A first click anywhere in the body, or a correction in or near the mask.

    It depends on the generator and the mask alone, and may be one that the session does not take.

    Raises:
        VolumeError: there is no body to be found.
    """
    volume, answer = session.volume, session.prediction
    if answer.box is None:
        for _ in range(_TRIES):
            z, y, x = (int(p) for p in rng.integers(volume.shape))
            if volume.voxels[z, y, x] > _BODY_HU:
                return Click((z, y, x))
        raise VolumeError(f"no body: {_TRIES} random voxels are below {_BODY_HU} HU")
    low = [max(0, begin - _REACH) for begin, _ in answer.box]
    high = [min(n, end + _REACH) for (_, end), n in zip(answer.box, volume.shape, strict=True)]
    z, y, x = (int(p) for p in rng.integers(low, high))
    inside = answer.within(box_at((z, y, x))).any()
    return Click((z, y, x), positive=not inside)


def _percentiles(values: list[float]) -> dict[str, float]:
    found = np.percentile(values, _PERCENTILES)
    return {f"p{p}": round(float(v), 2) for p, v in zip(_PERCENTILES, found, strict=True)}


def peak_mb() -> float:
    """The most memory that this process has had resident so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in KiB, on macOS in bytes
    return peak / (2**20 if platform.system() == "Darwin" else 2**10)
