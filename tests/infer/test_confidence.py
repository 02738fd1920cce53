import numpy as np
import pytest
from scipy import ndimage

from clickseg_infer.confidence import expected_dice


def test_an_empty_mask_is_nothing_to_be_sure_of() -> None:
    assert expected_dice(np.full((4, 5, 6), -1, np.float32), 0.0) == 0


def test_of_what_it_is_certain_it_expects_all() -> None:
    logits = np.full((4, 5, 6), -1e4, np.float32)
    logits[1:3, 2:4, :] = 100
    assert expected_dice(logits, 0.0) == pytest.approx(1)


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.5])
def test_overlap_by_sizes_in_the_mask_and_beside_it(threshold: float) -> None:
    rng = np.random.default_rng(7)
    logits = ndimage.gaussian_filter(rng.normal(0, 9, (9, 11, 10)), 1.5).astype(np.float32) - 0.3
    mask = logits > threshold
    probability = 1 / (1 + np.exp(-logits.astype(np.float64)))
    near = ndimage.binary_dilation(mask)
    wanted = 2 * probability[mask].sum() / (probability[near].sum() + mask.sum())
    assert 0 < mask.sum() < mask.size
    assert expected_dice(logits, threshold) == pytest.approx(wanted, rel=1e-5)


def test_what_lies_far_from_the_mask_does_not_count() -> None:
    logits = np.full((20, 20, 20), -20, np.float32)
    logits[:4, :4, :4] = 3
    alone = expected_dice(logits, 0.0)
    logits[10:] = -1
    assert expected_dice(logits, 0.0) == alone
