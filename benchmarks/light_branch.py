"""The bundled model with the structure branch learnt so far, as a checkpoint to begin with.

    python benchmarks/light_branch.py runs/branch.ckpt
    clickseg train $(python benchmarks/light_data.py) --config benchmarks/light_likeness.toml \
        --init runs/branch.ckpt --out runs/light

The branch's weights lie in light_structures.npz, the large ones in 16 bits.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from clickseg_export.onnx_weights import read_initial

from clickseg_infer.model import DEFAULT_MODEL
from clickseg_train.checkpoint import Checkpoint, write_checkpoint
from clickseg_train.config import read_config

HERE = Path(__file__).resolve().parent
BRANCH = "likeness.structures."


def main(out: str) -> None:
    config = read_config(HERE / "light_structures.toml")
    state, spec = read_initial(DEFAULT_MODEL, config)
    with np.load(HERE / "light_structures.npz") as branch:
        for name in branch:
            kept = state[BRANCH + name]
            state[BRANCH + name] = torch.from_numpy(branch[name]).to(kept.dtype)
    nothing: dict[str, object] = {}
    checkpoint = Checkpoint(config, 0, state, state, nothing, nothing, spec.trained_on)
    write_checkpoint(Path(out), checkpoint)


if __name__ == "__main__":
    main(sys.argv[1])
