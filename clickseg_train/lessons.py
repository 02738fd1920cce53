"""What a run teaches: to follow clicks, or which structure of the body is where.

A lesson says which part of the network it teaches, by what, and what it lowers.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from clickseg_infer.model_spec import ModelSpec
from clickseg_train.case_cache import CaseCache
from clickseg_train.cases import Dataset
from clickseg_train.config import TrainConfig
from clickseg_train.drawing import Batch, Batches, Draw
from clickseg_train.feeds import Feed
from clickseg_train.losses import ClickLoss, dice_by_object
from clickseg_train.networks import DeepLabV3Plus
from clickseg_train.structure_drawing import StructureBatch, StructureBatches, StructureDraw
from clickseg_train.structures import StructureLoss, dice_by_class

ObjectScore = tuple[str, int, float]
"""An object's kind, the number of clicks so far, and Dice."""


class Lesson(Protocol):
    """One kind of lesson."""

    def taught(self, network: DeepLabV3Plus) -> nn.Module:
        """The part that is called and learns; what must not learn is frozen."""

    def feed(self, first_slot: int, workers: int) -> Feed[Any]:
        """The batches, of the slots from `first_slot` on."""

    def looks(self) -> int:
        """How many examples an epoch has."""

    def loss(self, logits: Tensor, batch: Any) -> Tensor:
        """What is lowered; `logits` in float32, on the device."""

    def scores(self, logits: Tensor, batch: Any) -> list[ObjectScore]:
        """How well each object of a batch was answered; `logits` on the CPU."""


def lesson_of(
    datasets: Sequence[Dataset], cache: CaseCache, config: TrainConfig, spec: ModelSpec
) -> Lesson:
    """The lesson that a configuration asks for."""
    if config.learns == "structures":
        return StructureLesson(StructureDraw(datasets, cache, config), config, spec)
    return ClickLesson(Draw(datasets, cache, config), config, spec)


class ClickLesson:
    """To follow clicks, on one object after the other."""

    def __init__(self, draw: Draw, config: TrainConfig, spec: ModelSpec) -> None:
        self._draw, self._config, self._spec = draw, config, spec
        self._loss = ClickLoss(config.obedience)
        self._disks = [n for n, c in enumerate(spec.channels) if c in ("positive", "negative")]

    def taught(self, network: DeepLabV3Plus) -> nn.Module:
        """All but the structure branch."""
        if network.structures is not None:
            network.structures.requires_grad_(False)
        return network

    def feed(self, first_slot: int, workers: int) -> Feed[Any]:
        """Exercises."""
        return Batches(self._draw, self._spec, self._config, first_slot, workers)

    def looks(self) -> int:
        """Each object is looked at after each of its clicks."""
        return self._draw.labelled_objects * self._config.sampling.clicks

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Overlap, and obedience to the clicks."""
        truth = torch.from_numpy(batch.truth).to(logits.device)
        clicked = torch.zeros_like(truth)
        if self._disks:
            disks = batch.inputs[:, self._disks].max(1, keepdims=True)
            clicked = torch.from_numpy(disks).to(logits.device)
        loss: Tensor = self._loss(logits, truth, clicked)
        return loss

    def scores(self, logits: Tensor, batch: Batch) -> list[ObjectScore]:
        """Dice of each object."""
        truth = torch.from_numpy(batch.truth)
        dice = dice_by_object(logits, truth, self._spec.threshold_logit).tolist()
        return list(zip(batch.kinds, batch.clicks, dice, strict=True))


class StructureLesson:
    """Which structure is where, in whole patches."""

    def __init__(self, draw: StructureDraw, config: TrainConfig, spec: ModelSpec) -> None:
        self._draw, self._config, self._spec = draw, config, spec
        self._loss = StructureLoss(config.balance)

    def taught(self, network: DeepLabV3Plus) -> nn.Module:
        """The structure branch."""
        assert network.structures is not None  # as the configuration has made sure
        network.requires_grad_(False)
        return network.structures.requires_grad_(True)

    def feed(self, first_slot: int, workers: int) -> Feed[Any]:
        """Patches."""
        return StructureBatches(self._draw, self._spec, self._config, first_slot, workers)

    def looks(self) -> int:
        """As many patches as objects."""
        return self._draw.labelled_objects

    def loss(self, logits: Tensor, batch: StructureBatch) -> Tensor:
        """Cross-entropy and overlap."""
        shares, named = (torch.from_numpy(a).to(logits.device) for a in (batch.shares, batch.named))
        loss: Tensor = self._loss(logits, shares, named)
        return loss

    def scores(self, logits: Tensor, batch: StructureBatch) -> list[ObjectScore]:
        """Dice of each structure in the batch."""
        shares, named = torch.from_numpy(batch.shares), torch.from_numpy(batch.named)
        names = self._config.network.classes
        found = dice_by_class(logits, shares, named)
        return [(names[value - 1].split("|")[0], 0, dice) for value, dice in found]
