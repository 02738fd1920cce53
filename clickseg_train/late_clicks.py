"""Learning how far late clicks reach: recorded from simulated users, judged by small networks.

A model clicks through objects that it was taught. For each voxel near a late click what was known
of it is recorded, and whether it should have changed; from that `clickseg_infer.judging`'s networks
learn. As the model's own logits look surer on what it was taught than elsewhere, they learn on the
same cases that it did, and are to be measured on others.
"""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from clickseg_infer import Model, Prediction, predict
from clickseg_infer.boxes import bounds_of, slices_of, union
from clickseg_infer.clicks import Click
from clickseg_infer.judging import KNOWN, Floats, Judge, Nearby, Network
from clickseg_infer.simulate import next_click
from clickseg_infer.volume import Volume

_PER_CLICK = 500  # voxels that are kept of each click, drawn at random
_HIDDEN = (32, 16)
_STEPS, _BATCH, _RATE = 3000, 4096, 6e-3


@dataclass(frozen=True, eq=False)
class Examples:
    """Voxels near late clicks of one kind.

    Attributes:
        known: (N, len(KNOWN)) float32.
        right: (N,) float32, 1 where the voxel should have changed.
        weight: (N,) float32, by what a voxel of its object counts for Dice.
    """

    known: Floats
    right: Floats
    weight: Floats


def record(
    model: Model,
    volume: Volume,
    truth: NDArray[np.bool_],
    clicks: int,
    rng: np.random.Generator,
    judge: Judge = lambda _: None,
) -> dict[bool, Examples]:
    """Click through one object.

    Args:
        model: that answers.
        volume: the scan.
        truth: (z, y, x) bool, the object. Not modified.
        clicks: how many.
        rng: draws voxels.
        judge: by whom answers go.

    Returns:
        What was seen, by whether the click was positive.
    """
    rows: dict[bool, list[Examples]] = {True: [], False: []}
    share = np.float32(1 / truth.sum())

    def noted(nearby: Nearby) -> Floats | None:
        on = nearby.click.positive
        right = truth[slices_of(nearby.box)][nearby.there] == on
        kept = rng.permutation(len(right))[:_PER_CLICK]
        weight = np.full(len(kept), share * np.float32(len(right) / len(kept)))
        rows[on].append(Examples(nearby.known[kept], right[kept].astype(np.float32), weight))
        return judge(nearby)

    given: list[Click] = []
    answer, extent = Prediction((), volume.shape), bounds_of(truth)
    while len(given) < clicks:
        box = union(extent, answer.box)
        assert box is not None
        click = next_click(truth[slices_of(box)], answer.within(box), volume.spacing_mm)
        if click is None:
            break
        z, y, x = (p + low for p, (low, _) in zip(click.zyx, box, strict=True))
        given.append(Click((z, y, x), click.positive))
        answer = predict(model, volume, given, answer, judge=noted)
    return {on: joined(examples) for on, examples in rows.items()}


def joined(examples: Iterable[Examples]) -> Examples:
    """All examples in one."""
    parts = list(examples)
    nothing = np.zeros(0, np.float32)
    return Examples(
        np.concatenate([np.zeros((0, len(KNOWN)), np.float32), *(part.known for part in parts)]),
        np.concatenate([nothing, *(part.right for part in parts)]),
        np.concatenate([nothing, *(part.weight for part in parts)]),
    )


def learn(examples: Examples, seed: int) -> Network:
    """A network that judges as the examples say.

    Args:
        examples: at least one.
        seed: of the weights and the batches.
    """
    torch.manual_seed(seed)
    mean, spread = examples.known.mean(0), examples.known.std(0) + 1e-6
    inputs = torch.from_numpy((examples.known - mean) / spread)
    right = torch.from_numpy(examples.right)
    weight = torch.from_numpy(examples.weight / examples.weight.mean())
    sizes = (len(KNOWN), *_HIDDEN, 1)
    layers = [nn.Linear(*pair) for pair in itertools.pairwise(sizes)]
    network = nn.Sequential(*[part for layer in layers for part in (layer, nn.ReLU())][:-1])
    optimiser = torch.optim.AdamW(network.parameters(), weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=_STEPS)
    for _ in range(_STEPS):
        drawn = torch.randint(len(inputs), (_BATCH,))
        losses = functional.binary_cross_entropy_with_logits(
            network(inputs[drawn])[:, 0], right[drawn], reduction="none"
        )
        optimiser.zero_grad()
        (losses * weight[drawn]).mean().backward()
        optimiser.step()
        schedule.step()
    found = [
        (layer.weight.detach().numpy().T.copy(), layer.bias.detach().numpy().copy())
        for layer in layers
    ]
    weights, biases = found[0]  # of what is as known, not centred and scaled
    weights = weights / spread[:, None]
    found[0] = weights.astype(np.float32), (biases - mean @ weights).astype(np.float32)
    return Network(tuple(found))


def save(networks: dict[bool, Network], path: Path) -> None:
    """Write both networks as `clickseg_infer.judging` reads them."""
    arrays = {
        f"{name}.{kind}{number}": array
        for on, name in ((True, "adding"), (False, "removing"))
        for number, layer in enumerate(networks[on].layers)
        for kind, array in zip(("weights", "biases"), layer, strict=True)
    }
    np.savez(path, **arrays)  # type: ignore[arg-type]
