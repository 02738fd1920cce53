"""What the network is trained to lower."""

from monai.losses import DiceCELoss
from torch import Tensor, nn


def click_loss() -> nn.Module:
    """Soft Dice plus binary cross-entropy, each object of a batch by itself.

    Takes logits (N, 1, z, y, x) and truth (N, 1, z, y, x) in 0 and 1.
    """
    return DiceCELoss(sigmoid=True, batch=False, smooth_nr=1.0, smooth_dr=1.0)


def dice_by_object(logits: Tensor, truth: Tensor, threshold_logit: float) -> Tensor:
    """Dice of each object's thresholded answer, (N,); both inputs (N, 1, z, y, x)."""
    mask, wanted = (logits > threshold_logit).flatten(1), truth.flatten(1) > 0
    overlap = (mask & wanted).sum(1)
    return 2 * overlap / (mask.sum(1) + wanted.sum(1)).clamp(min=1)
