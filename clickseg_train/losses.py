"""What the network is trained to lower."""

from monai.losses import DiceCELoss
from monai.metrics import compute_dice
from torch import Tensor, nn
from torch.nn import functional


class ClickLoss(nn.Module):
    """Soft Dice plus binary cross-entropy, each object by itself, and obedience to the clicks.

    Obedience is the mean cross-entropy over the voxels within the clicks' disks, which are far too
    few to weigh anything in the other two.
    """

    def __init__(self, obedience: float) -> None:
        super().__init__()
        self._overlap = DiceCELoss(sigmoid=True, batch=False, smooth_nr=1.0, smooth_dr=1.0)
        self._obedience = obedience

    def forward(self, logits: Tensor, truth: Tensor, clicked: Tensor) -> Tensor:
        """The mean over the objects of a batch.

        Args:
            logits: (N, 1, z, y, x).
            truth: (N, 1, z, y, x), 0 or 1.
            clicked: (N, 1, z, y, x), 1 within a click's disk; empty where nobody clicked.
        """
        loss: Tensor = self._overlap(logits, truth)
        if self._obedience == 0:
            return loss
        error = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        missed = (error * clicked).sum(dim=(1, 2, 3, 4)) / clicked.sum(dim=(1, 2, 3, 4)).clamp(
            min=1
        )
        return loss + self._obedience * missed.mean()


def dice_by_object(logits: Tensor, truth: Tensor, threshold_logit: float) -> Tensor:
    """Dice of each object's thresholded answer, (N,); both inputs (N, 1, z, y, x)."""
    mask = (logits > threshold_logit).float()
    return compute_dice(mask, truth, ignore_empty=False)[:, 0]
