"""One 96^3 patch of the bundled model through each engine and precision, interleaved.

Writes results/engines.json: median milliseconds, and the ratio to ONNX Runtime.
"""

import json
import time
from pathlib import Path

import numpy as np
from machine import machine

import clickseg_infer as cs
from clickseg_infer.engines import available, precisions

HERE = Path(__file__).resolve().parent
ROUNDS = 25


def main() -> None:
    models = {
        f"{name} {precision}": cs.load_model(engine=name, precision=precision)
        for name in available()
        for precision in precisions(name)
    }
    spec = next(iter(models.values())).spec
    shape = (1, len(spec.channels), *spec.patch_size)
    batch = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    times: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(ROUNDS + 3):
        for name, model in models.items():
            began = time.perf_counter()
            model.engine.run(batch)
            if turn >= 3:
                times[name].append((time.perf_counter() - began) * 1e3)
    medians = {name: float(np.median(values)) for name, values in times.items()}
    base = medians.get("onnxruntime float32")
    rows = {
        name: {"median_ms": round(ms, 1), "ratio": base and round(ms / base, 3)}
        for name, ms in medians.items()
    }
    content = {"patch": list(spec.patch_size), "machine": machine(), "engines": rows}
    (HERE / "results" / "engines.json").write_text(json.dumps(content, indent=1) + "\n")
    print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
