"""One 96^3 patch of the bundled model through each engine and precision, interleaved.

Writes results/engines.json: median milliseconds, the ratio to ONNX Runtime, and what it takes to
draw the patch's click channels, cues included.
"""

import time
from collections.abc import Callable
from functools import partial

import numpy as np
from contest import write

import clickseg_infer as cs
from clickseg_infer.engines import available, precisions
from clickseg_infer.model import DEFAULT_MODEL, read_network
from clickseg_infer.network_input import fill_click_channels

ROUNDS = 25
CHANNELS = "click channels"
ON, BESIDE = 5, 3  # clicks in the patch


def main() -> None:
    _, network = read_network(DEFAULT_MODEL)
    models = {
        f"{name} {precision}": cs.load_model(engine=name, precision=precision)
        for name in available(network)
        for precision in precisions(name, network)
    }
    spec = next(iter(models.values())).spec
    shape = (1, len(spec.channels), *spec.patch_size)
    batch = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    times: dict[str, list[float]] = {name: [] for name in (*models, CHANNELS)}
    rng = np.random.default_rng(0)
    clicks = [tuple(map(int, rng.integers(spec.patch_size))) for _ in range(ON + BESIDE)]
    previous = np.zeros(spec.patch_size, np.float32)
    runs: dict[str, Callable[[], object]] = {
        name: partial(model.engine.run, batch) for name, model in models.items()
    }
    runs[CHANNELS] = lambda: fill_click_channels(
        spec, clicks[:ON], clicks[ON:], previous, batch[0].copy()
    )
    for turn in range(ROUNDS + 3):
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            if turn >= 3:
                times[name].append((time.perf_counter() - began) * 1e3)
    medians = {name: float(np.median(values)) for name, values in times.items()}
    channels = medians.pop(CHANNELS)
    base = medians.get("onnxruntime float32")
    rows = {
        name: {"median_ms": round(ms, 1), "ratio": base and round(ms / base, 3)}
        for name, ms in medians.items()
    }
    content = {
        "patch": list(spec.patch_size),
        "engines": rows,
        "click_channels_ms": round(channels, 1),
        "clicks": ON + BESIDE,
    }
    write("engines", content)


if __name__ == "__main__":
    main()
