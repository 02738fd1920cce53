from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from clickseg_export.export_model import export_model
from clickseg_export.parity import example_batch
from interrupted import assert_same_weights, train_and_stop

import clickseg_infer as cs
from clickseg_train.augment import Augmentation
from clickseg_train.case_cache import CaseCache
from clickseg_train.cases import read_dataset
from clickseg_train.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from clickseg_train.config import TrainConfig, read_config
from clickseg_train.likeness import Likeness, alike, profiles_of
from clickseg_train.networks import build_network
from clickseg_train.reports import StepReport
from clickseg_train.structure_drawing import StructureDraw
from clickseg_train.structures import (
    STRIDE,
    StructureLoss,
    StructurePatch,
    cell_shares,
    class_of,
    dice_by_class,
    varied,
)
from clickseg_train.train import train

BRANCH = "likeness.structures."


@pytest.fixture
def config(tiny_config: Path) -> TrainConfig:
    tiny = read_config(tiny_config)
    network = replace(tiny.network, structures=2, structure_width=6, structure_windows=2)
    sampling = replace(tiny.sampling, structures=("liver", "spleen"))
    return replace(tiny, network=network, sampling=sampling, learns="structures")


def test_a_label_is_of_the_class_with_its_longest_beginning() -> None:
    classes = ("rib", "lung|lobe", "rib_left_1")
    names = ("lung_upper_lobe_left", "lobe_3", "rib_right_2", "rib_left_12", "liver", "cribriform")
    assert [class_of(name, classes) for name in names] == [2, 2, 1, 3, 0, 0]


def test_shares_are_those_of_the_voxels_of_a_cell(rng: np.random.Generator) -> None:
    classes = rng.integers(0, 3, (8, 12, 16)).astype(np.uint8)
    shares = cell_shares(classes, 4)
    assert shares.shape == (4, 2, 3, 4)
    assert np.allclose(shares.sum(0), 1)
    for value in range(4):
        cell = classes[4:8, 8:12, 0:4] == value
        assert shares[value, 1, 2, 0] == pytest.approx(cell.mean())


def test_what_a_dataset_does_not_name_may_be_anything_else() -> None:
    """Class 2 is named by the other dataset only: where this one has no name, it costs nothing."""
    loss = StructureLoss(balance=1.0)
    shares = torch.zeros(1, 3, 2, 2, 2)
    shares[:, 0] = 1
    named = torch.tensor([[False, True, False]])

    def cost(value: int) -> float:
        logits = torch.zeros(1, 3, 2, 2, 2)
        logits[:, value] = 9.0
        return float(loss(logits, shares, named))

    assert cost(2) == pytest.approx(cost(0), abs=1e-4)
    assert cost(1) > cost(0) + 5


def test_the_loss_is_lowest_for_the_truth() -> None:
    rng = np.random.default_rng(1)
    truth = torch.from_numpy(cell_shares(rng.integers(0, 3, (16, 16, 16)).astype(np.uint8), 3))
    named = torch.tensor([[False, True, True]])
    right = (truth[None] + 1e-6).log()
    at_best = StructureLoss(balance=1.0)(right, truth[None], named)
    for _ in range(5):
        other = right + 0.5 * torch.from_numpy(rng.normal(size=right.shape)).float()
        assert StructureLoss(balance=1.0)(other, truth[None], named) > at_best


def test_dice_is_of_the_classes_that_are_named_and_there() -> None:
    shares = torch.zeros(1, 3, 1, 1, 4)
    shares[0, 1, 0, 0, :2] = 1
    shares[0, 0, 0, 0, 2:] = 1
    logits = torch.zeros(1, 3, 1, 1, 4)
    logits[0, 1, 0, 0, 1:3] = 5.0
    logits[0, 2, 0, 0, 3] = 9.0  # which this data set does not name
    assert dice_by_class(logits, shares, torch.tensor([[False, True, False]])) == [(1, 0.5)]


@pytest.mark.parametrize("learns", ["clicks", "structures", "likeness"])
def test_a_lesson_on_the_branch_needs_one(learns: str, config: TrainConfig) -> None:
    without = replace(config.network, structures=0)
    with pytest.raises(cs.ConfigError, match="needs a network with structures"):
        replace(config, network=without, learns=learns)


def test_a_place_is_alike_as_far_as_its_chances_agree() -> None:
    chances = torch.zeros(1, 2, 1, 1, 4)
    chances[0, :, 0, 0] = torch.tensor([[1.0, 0.5, 0.0, 0.0], [0.0, 0.5, 1.0, 0.0]])
    marks = torch.zeros(1, 2, 1, 1, 4)
    marks[0, 0, 0, 0, 0] = 1
    found = alike(chances, profiles_of(chances, marks))
    assert torch.allclose(found[0, 0, 0, 0], torch.tensor([1.0, 0.5, 0.0, 0.0]), atol=2e-3)
    assert not found[0, 1].any()


def test_likeness_changes_nothing_at_first() -> None:
    likeness = Likeness(1, 6, 3, 5).eval()
    features = torch.rand(1, 5, 16, 16, 16)
    assert torch.equal(likeness(features, torch.randn(1, 6, 32, 32, 32)), features)


def test_contrast_varies_by_structure_and_not_by_its_number() -> None:
    classes = np.zeros((32, 32, 32), np.uint8)
    classes[8:24, 8:24, 8:24] = 200
    patch, augmentation = (
        StructurePatch(np.zeros(classes.shape, np.float32), classes),
        Augmentation(),
    )
    shifts = []
    for seed in range(40):
        found = varied(patch, augmentation, np.random.default_rng(seed))
        assert set(np.unique(found.classes)) == {0, 200}
        shifts.append(np.median(found.hu[found.classes == 200]))
    assert 10 < np.abs(shifts).max() < 200


def test_only_the_branch_learns_structures_and_clicks_leave_it(
    phantoms: Path, config: TrainConfig, tmp_path: Path
) -> None:
    dataset, reports = read_dataset(phantoms), list[StepReport]()
    path = train([dataset], tmp_path / "first", config, report=reports.append)
    assert {kind for report in reports for kind, _, _ in report.objects} == {"liver", "spleen"}
    whole = read_checkpoint(path)
    start = read_checkpoint(
        train([dataset], tmp_path / "none", replace(config, steps=1, learning_rate=1e-9))
    )
    changed = {
        name for name, value in whole.network.items() if not torch.equal(value, start.network[name])
    }
    assert changed
    assert all(name.startswith(BRANCH) for name in changed)
    clicks = replace(config, learns="clicks", settle=1.0)
    after = read_checkpoint(train([dataset], tmp_path / "second", clicks, initial=whole.average))
    kernels = [n for n, v in after.network.items() if n.startswith(BRANCH) and v.ndim == 5]
    assert len(kernels) > 10
    for name in kernels:  # normalisation is measured anew, without changing what it computes
        assert torch.equal(after.network[name], whole.average[name]), name
    assert not torch.equal(
        after.network["likeness.mix.weight"], whole.network["likeness.mix.weight"]
    )


def test_a_place_whose_structure_was_forgotten_is_alike_to_nothing() -> None:
    torch.manual_seed(0)
    likeness = Likeness(1, 6, 3, 5)
    torch.nn.init.normal_(likeness.mix.weight)
    likeness.structures.eval()
    likeness.read.eval()
    x, clicked = torch.randn(2, 1, 6, 32, 32, 32)
    features = torch.rand(1, 5, 16, 16, 16)
    clicked = torch.cat([x[:, :1], clicked[:, 1:].abs()], dim=1)
    bare = torch.cat([x[:, :1], torch.zeros_like(x[:, 1:])], dim=1)
    likeness.forget = 1.0
    assert torch.equal(likeness(features, clicked), likeness(features, bare))
    likeness.forget = 0.0
    assert not torch.allclose(likeness(features, clicked), likeness(features, bare), atol=1e-3)


@pytest.mark.parametrize(
    "lesson", [{"learns": "structures"}, {"learns": "likeness", "forget": 0.5}]
)
def test_every_lesson_resumes_as_if_unbroken(
    lesson: dict[str, Any], phantoms: Path, config: TrainConfig, tmp_path: Path
) -> None:
    dataset, config = read_dataset(phantoms), replace(config, **lesson)
    whole = read_checkpoint(train([dataset], tmp_path / "whole", config))
    train_and_stop(dataset, tmp_path / "broken", config, step=3)
    resumed = read_checkpoint(train([dataset], tmp_path / "broken", config, resume=True))
    assert_same_weights(resumed, whole)


def test_structures_are_learnt_in_a_few_steps(
    phantoms: Path, config: TrainConfig, tmp_path: Path
) -> None:
    reports: list[StepReport] = []
    longer = replace(config, steps=60, learning_rate=1e-2, checkpoint_every=60)
    train([read_dataset(phantoms)], tmp_path / "run", longer, report=reports.append)
    losses = [report.loss for report in reports]
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])


def test_patches_hold_what_the_labels_name(
    phantoms: Path, config: TrainConfig, tmp_path: Path
) -> None:
    dataset = read_dataset(phantoms)
    draw = StructureDraw([dataset], CaseCache(tmp_path / "cases", dataset.train), config)
    found = [draw(np.random.default_rng(seed)) for seed in range(8)]
    assert all(named.tolist() == [False, True, True] for _, named in found)
    assert all(patch.classes.shape == patch.hu.shape == config.patch_size for patch, _ in found)
    assert {int(v) for patch, _ in found for v in np.unique(patch.classes)} == {0, 1, 2}
    assert all(n % STRIDE == 0 for n in config.patch_size)
    other = replace(config, sampling=replace(config.sampling, structures=("heart", "lung")))
    with pytest.raises(cs.DatasetError, match=r"sampling\.structures"):
        StructureDraw([dataset], CaseCache(tmp_path / "cases", dataset.train), other)


def test_a_branch_that_is_read_is_exported_with_its_heads(
    config: TrainConfig, tmp_path: Path
) -> None:
    """Export refuses logits or f-BRS's gradients that differ from torch's."""
    spec = config.model.spec()
    torch.manual_seed(0)
    network = build_network(config.network, len(spec.channels))
    assert network.likeness is not None
    torch.nn.init.normal_(network.likeness.mix.weight)
    batch, answers = example_batch(spec), []
    for name, scale in (("read", 1.0), ("silent", 0.0)):
        state = dict(network.state_dict())
        state["likeness.mix.weight"] = scale * state["likeness.mix.weight"]
        write_checkpoint(tmp_path / f"{name}.ckpt", Checkpoint(config, 0, state, state, {}, {}, ()))
        export_model(tmp_path / f"{name}.ckpt", tmp_path / f"{name}.onnx")
        with cs.load_model(tmp_path / f"{name}.onnx", precision="float32") as model:
            answers.append(model.engine.run(batch))
    assert np.abs(answers[0] - answers[1]).max() > 1e-2
