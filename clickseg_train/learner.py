"""A network, the moving average of its weights, and what moves them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from clickseg_infer.errors import TrainingError
from clickseg_infer.model_spec import ModelSpec, Source
from clickseg_train.checkpoint import Checkpoint, load_state
from clickseg_train.config import TrainConfig
from clickseg_train.lessons import Lesson
from clickseg_train.networks import build_network
from clickseg_train.parallel import Place, join_norms, share_buffers
from clickseg_train.unfolding import measure_norms

_PRECISIONS = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float32": torch.float32,
}


class Learner:
    """Takes optimiser steps; its moving average is what is exported."""

    def __init__(
        self,
        config: TrainConfig,
        spec: ModelSpec,
        lesson: Lesson,
        place: Place,
        before: Checkpoint | None = None,
        initial: Mapping[str, Tensor] | None = None,
        examples: Sequence[NDArray[np.float32]] = (),
    ) -> None:
        """Build everything, from nothing, from a checkpoint, or from weights to begin with.

        Args:
            config: of the run.
            spec: of its model.
            lesson: what to teach.
            place: where to train.
            before: the checkpoint to go on from.
            initial: a state of the network to begin with where there is no checkpoint.
            examples: inputs that the taught part's normalisation is measured on.

        Raises:
            CheckpointError: the checkpoint or the weights belong to another network.
        """
        torch.manual_seed(config.seed)
        self._config, self._lesson, self._place = config, lesson, place
        network = build_network(config.network, len(spec.channels))
        if initial is not None and before is None:
            load_state(network, dict(initial))
            inputs = (torch.from_numpy(example) for example in examples)
            measure_norms(lesson.taught(network), inputs)
        join_norms(network, place)
        self.network = network.to(place.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        share_buffers(self.network, place)
        self._taught = lesson.taught(self.network)
        self._parallel: nn.Module = self._taught
        if place.processes > 1:  # this also gives all processes the first one's weights
            self._parallel = DistributedDataParallel(self._taught, broadcast_buffers=False)
        ema = get_ema_multi_avg_fn(config.ema)
        self.average = AveragedModel(self.network, multi_avg_fn=ema, use_buffers=True)
        self._learning = [p for p in self._taught.parameters() if p.requires_grad]
        self._optimizer = torch.optim.AdamW(
            self._learning, lr=config.learning_rate, weight_decay=config.weight_decay
        )
        half = config.autocast == "float16"
        self._scaler = torch.amp.GradScaler(place.device.type, enabled=half)
        if before is not None:
            load_state(self.network, before.network)
            load_state(self.average.module, before.average)
            load_state(self._optimizer, before.optimizer)
            self._scaler.load_state_dict(before.scaler)
            self.average.n_averaged.fill_(before.step)
        _train(self.network, self._learning)

    def learn(self, batch: Any, step: int) -> tuple[Tensor, float]:
        """One optimiser step; returns the logits before it, on the CPU, and the loss.

        Raises:
            TrainingError: the loss is no longer finite.
        """
        config, device = self._config, self._place.device
        drawn = np.random.SeedSequence([config.seed, step, self._place.rank])
        torch.manual_seed(int(drawn.generate_state(1)[0]))  # as in a resumed run
        for group in self._optimizer.param_groups:
            group["lr"] = rate(config, step)
        if step >= (1 - config.settle) * config.steps:
            _settle(self.network)
        inputs = torch.from_numpy(batch.inputs).to(device, memory_format=torch.channels_last_3d)
        precision = _PRECISIONS[config.autocast]
        with torch.autocast(device.type, precision, enabled=precision != torch.float32):
            logits = self._parallel(inputs)
        logits = logits.float()
        loss = self._lesson.loss(logits, batch)
        if not torch.isfinite(loss):
            raise TrainingError(f"the loss became {loss.item()} at step {step + 1}; lower the rate")
        self._optimizer.zero_grad(set_to_none=True)
        self._scaler.scale(loss).backward()
        self._scaler.unscale_(self._optimizer)
        nn.utils.clip_grad_norm_(self._learning, config.clip)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        self.average.update_parameters(self.network)
        return logits.detach().cpu(), float(loss.detach())

    def checkpoint(
        self, step: int, trained_on: tuple[Source, ...], datasets: tuple[str, ...]
    ) -> Checkpoint:
        """Everything that is needed to go on from `step`, and what was learnt from."""
        return Checkpoint(
            self._config,
            step,
            network=_plain(self.network),
            average=_plain(self.average.module),
            optimizer=self._optimizer.state_dict(),
            scaler=self._scaler.state_dict(),
            trained_on=trained_on,
            datasets=datasets,
        )


def rate(config: TrainConfig, step: int) -> float:
    """The learning rate: linear warm-up, then a cosine down to a hundredth of the peak."""
    warm_up = min(1.0, (step + 1) / max(1, config.warm_up))
    progress = max(0.0, (step - config.warm_up) / max(1, config.steps - config.warm_up))
    cosine = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return config.learning_rate * warm_up * cosine


def _train(network: nn.Module, learning: Sequence[nn.Parameter]) -> None:
    """Set what learns to training, and what does not learn to evaluation."""
    chosen = {id(parameter) for parameter in learning}
    for module in network.modules():
        module.training = any(id(parameter) in chosen for parameter in module.parameters())


def _settle(network: nn.Module) -> None:
    """Let normalisation use its averages, and change them no more."""
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.eval()


def _plain(network: nn.Module) -> dict[str, Any]:
    return {name: value.detach().cpu() for name, value in network.state_dict().items()}
