"""What the network is trained to lower."""

from monai.losses import DiceCELoss
from monai.metrics import compute_dice
from torch import Tensor, nn


def click_loss() -> nn.Module:
    """Soft Dice plus binary cross-entropy, each object of a batch by itself.

    Takes logits (N, 1, z, y, x) and truth (N, 1, z, y, x) in 0 and 1.
    """
    return DiceCELoss(sigmoid=True, batch=False, smooth_nr=1.0, smooth_dr=1.0)


def dice_by_object(logits: Tensor, truth: Tensor, threshold_logit: float) -> Tensor:
    """Dice of each object's thresholded answer, (N,); both inputs (N, 1, z, y, x)."""
    mask = (logits > threshold_logit).float()
    return compute_dice(mask, truth, ignore_empty=False)[:, 0]
