from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from interrupted import assert_same_weights, train_and_stop
from torch.nn import functional

import clickseg_infer as cs
from clickseg_train.augment import Augmentation
from clickseg_train.case_cache import CaseCache
from clickseg_train.cases import read_dataset
from clickseg_train.checkpoint import read_checkpoint
from clickseg_train.config import TrainConfig, read_config
from clickseg_train.reports import StepReport
from clickseg_train.structure_branch import Structures
from clickseg_train.structure_drawing import StructureDraw
from clickseg_train.structures import (
    StructureLoss,
    StructurePatch,
    cell_shares,
    class_of,
    dice_by_class,
    varied,
)
from clickseg_train.train import train

BRANCH = "structures."


@pytest.fixture
def config(tiny_config: Path) -> TrainConfig:
    """Of a branch that answers at stride 2."""
    tiny = read_config(tiny_config)
    windows = len(tiny.model.hu_windows)
    network = replace(
        tiny.network,
        structures=("liver", "spleen"),
        structure_width=6,
        structure_detail=4,
        structure_windows=windows,
    )
    return replace(tiny, network=network, learns="structures")


def test_a_label_is_of_the_class_whose_words_end_its_name() -> None:
    classes = ("rib", "lung|lobe", "rib_left_1", "tumour|nodule")
    names = {
        **{"lung_upper_lobe_left": 2, "lobe_3": 2, "left lung": 2, "rib_right_2": 1},
        **{"rib_left_1": 3, "rib_left_12": 1, "lung_nodule": 4, "rib tumour": 4},
        **{"liver": 0, "cribriform": 0, "ribs": 0, "lobectomy": 0},
    }
    assert {name: class_of(name, classes) for name in names} == names


def test_shares_are_those_of_the_voxels_of_a_cell(rng: np.random.Generator) -> None:
    classes = rng.integers(0, 3, (8, 12, 16)).astype(np.uint8)
    for cell in (2, 4):
        shares = cell_shares(classes, 4, cell)
        assert shares.shape == (4, 8 // cell, 12 // cell, 16 // cell)
        assert np.allclose(shares.sum(0), 1)
        for value in range(4):
            voxels = classes[cell : 2 * cell, 2 * cell : 3 * cell, :cell] == value
            assert shares[value, 1, 2, 0] == pytest.approx(voxels.mean())


def test_smaller_cells_change_nothing_at_first(config: TrainConfig) -> None:
    """What was taught at stride 4 can be taught at stride 2."""
    network = replace(config.network, lesions=("tumour",))
    branches = [Structures(replace(network, structure_detail=detail)).eval() for detail in (0, 4)]
    missing = branches[1].load_state_dict(branches[0].state_dict(), strict=False).missing_keys
    assert all(name.startswith("sharper.") for name in missing)
    image = torch.randn(1, network.structure_windows, 32, 32, 32)
    with torch.no_grad():
        wide, close = (branch(image) for branch in branches)
        assert wide.shape == (1, 4, 8, 8, 8)
        assert torch.equal(close, functional.interpolate(wide, scale_factor=2, mode="trilinear"))
        torch.nn.init.ones_(branches[1].sharper.classes.weight)
        changed = (branches[1](image) != close).flatten(2).any(2)
    assert changed[0].tolist() == [False, True, True, False]


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
    truth = torch.from_numpy(cell_shares(rng.integers(0, 3, (16, 16, 16)).astype(np.uint8), 3, 4))
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


def test_a_lesson_on_the_branch_needs_one(config: TrainConfig) -> None:
    with pytest.raises(cs.ConfigError, match="needs a network with structures"):
        replace(config, network=replace(config.network, structures=()))
    with pytest.raises(cs.ConfigError, match="structure_windows"):
        replace(config, network=replace(config.network, structure_windows=5))
    with pytest.raises(cs.ConfigError, match="all named"):
        replace(config, network=replace(config.network, lesions=tuple(map(str, range(253)))))
    for repeated in (("",), ("a|b", "b")):
        with pytest.raises(cs.ConfigError, match="all named"):
            replace(config, network=replace(config.network, lesions=repeated))


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
    assert not torch.equal(after.network["stem.0.0.weight"], whole.network["stem.0.0.weight"])


def test_a_lesson_on_structures_resumes_as_if_unbroken(
    phantoms: Path, config: TrainConfig, tmp_path: Path
) -> None:
    dataset = read_dataset(phantoms)
    whole = read_checkpoint(train([dataset], tmp_path / "whole", config))
    train_and_stop(dataset, tmp_path / "broken", config, step=3)
    resumed = read_checkpoint(train([dataset], tmp_path / "broken", config, resume=True))
    assert_same_weights(resumed, whole)


@pytest.mark.parametrize("detail", [0, 4])
def test_structures_are_learnt_in_a_few_steps(
    detail: int, phantoms: Path, config: TrainConfig, tmp_path: Path
) -> None:
    reports: list[StepReport] = []
    network = replace(config.network, structure_detail=detail)
    longer = replace(config, network=network, steps=60, learning_rate=1e-2, checkpoint_every=60)
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
    assert all(n % config.network.structure_cell == 0 for n in config.patch_size)
    other = replace(config, network=replace(config.network, structures=("heart", "lung")))
    with pytest.raises(cs.DatasetError, match=r"network\.structures"):
        StructureDraw([dataset], CaseCache(tmp_path / "cases", dataset.train), other)
