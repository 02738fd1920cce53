"""Contenders side by side: run in turns within one process, compared turn by turn."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from machine import machine

from clickseg_infer.engines import precisions
from clickseg_infer.model import DEFAULT_MODEL, read_network

RESULTS = Path(__file__).resolve().parent / "results"


def contest(
    contenders: dict[str, Callable[[], object]], rounds: int, warm: int = 1
) -> dict[str, dict[str, object]]:
    """Run every contender once a round, so that whatever else the machine does meets them all.

    Args:
        contenders: what to time, by name. What they return is dropped.
        rounds: how often each is timed.
        warm: rounds before those, which are not timed.

    Returns:
        For each name `median_ms`, and `ratio`: for each other name the median over the rounds of
        its own time over the other's in the same round.
    """
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(warm + rounds):
        for name, run in contenders.items():
            began = time.perf_counter()
            run()
            if turn >= warm:
                times[name].append((time.perf_counter() - began) * 1e3)
    return {
        name: {
            "median_ms": _rounded(np.median(own)),
            "ratio": {
                other: _rounded(np.median(np.divide(own, theirs)))
                for other, theirs in times.items()
                if other != name
            },
        }
        for name, own in times.items()
    }


def write(name: str, content: dict[str, object], *, by_cpu: bool = True) -> None:
    """Store what was measured, and on what, as results/<name>.json; print it too.

    What was measured on a CPU that computes in bfloat16 is kept beside that of others, in
    results/bfloat16, unless the CPU does not matter.
    """
    described = machine()
    folder = RESULTS
    if by_cpu and "bfloat16" in precisions("openvino", read_network(DEFAULT_MODEL)[1]):
        folder = RESULTS / "bfloat16"
    text = json.dumps({**content, "machine": described}, indent=1)
    (folder / f"{name}.json").write_text(text + "\n")
    print(text)


def _rounded(value: float) -> float:
    """Three significant digits: more would be noise."""
    return float(f"{value:.3g}")
