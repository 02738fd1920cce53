"""How the network in training does on the validation cases, through the runtime's own code."""

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from clickseg_infer.clicks import Click, Clicks
from clickseg_infer.engines.function import FunctionEngine
from clickseg_infer.look import sweep
from clickseg_infer.metrics import dice
from clickseg_infer.model import Model
from clickseg_infer.patch_run import Run
from clickseg_infer.prediction import Prediction
from clickseg_train.cases import Case, LoadedCase, load_case
from clickseg_train.config import TrainConfig
from clickseg_train.evaluate import Protocol, click_object
from clickseg_train.reports import ValidationReport


def validate(
    network: nn.Module, cases: Iterable[Case], config: TrainConfig, step: int
) -> ValidationReport:
    """Segment every object of the cases, one case in memory at a time.

    By "clicks" the simulated user corrects each answer, as at run time. By "sliding_window" random
    clicks on the object are given at once, and the whole volume is swept patch by patch.
    """
    model = torch_model(network, config)
    scores = []
    for case in cases:
        loaded = load_case(case)
        for found in loaded.objects:
            truth = loaded.label == found.value
            if config.validate_by == "clicks":
                protocol = Protocol(config.validate_clicks, surfaces=False)
                scores.append(click_object(model, loaded.volume, truth, protocol)["dice"])
            else:
                scores.append([_sweep_dice(model, loaded, truth, config)])
    means = np.mean(scores, axis=0) if scores else []
    return ValidationReport(step, tuple(float(mean) for mean in means))


def torch_model(network: nn.Module, config: TrainConfig) -> Model:
    """The network as the runtime's model, in float32, where its weights are."""
    network.eval()
    device = next(network.parameters()).device

    def run(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return network(torch.from_numpy(batch).to(device)).float().cpu().numpy()

    return Model(config.model.spec(), FunctionEngine(run, "torch"))


def _sweep_dice(
    model: Model, case: LoadedCase, truth: NDArray[np.bool_], config: TrainConfig
) -> float:
    clicks = random_clicks(truth, config.validate_clicks, config.seed)
    nothing = Prediction((), case.volume.shape)
    return dice(truth, sweep(Run(model, case.volume), clicks, nothing).mask)


def random_clicks(truth: NDArray[np.bool_], count: int, seed: int) -> Clicks:
    """Positive clicks at random voxels of the object, the same ones for the same seed."""
    voxels = np.argwhere(truth)
    chosen = np.random.default_rng(seed).choice(len(voxels), min(count, len(voxels)), replace=False)
    return tuple(Click((int(z), int(y), int(x))) for z, y, x in voxels[np.sort(chosen)])
