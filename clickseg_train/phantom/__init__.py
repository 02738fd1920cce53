"""Abdomen-like CT phantoms, so that training, evaluation and tests run with no download.

A case is drawn, not simulated: analytic shapes in millimetres, deformed by smooth random fields,
are painted one over the other and then blurred and made noisy as a scanner would.

Everything is laid out in the patient frame, mm: z superior from the top of the right diaphragm
dome, y anterior from the middle of the trunk, x to the patient's right from the midline. Points
and radii are (z, y, x), as the arrays are.

What the labels mean: lung vessels are lung, vessels in the liver are liver, discs and vertebral
arches are spine but the canal is background, and the branches of a great vessel carry its label.
The heart, the bowel, the pancreas and the gallbladder are background, as fat and muscle are.
"""

from clickseg_train.phantom.case import PhantomCase, phantom
from clickseg_train.phantom.dataset import write_phantoms
from clickseg_train.phantom.patient import LABELS

__all__ = ["LABELS", "PhantomCase", "phantom", "write_phantoms"]
