"""The classification loss of RT-DETR."""

from __future__ import annotations

import torch.nn.functional as F
from mmdet.models.losses import QualityFocalLoss
from torch import Tensor

from ..registry import MODELS


@MODELS.register_module()
class QualityVarifocalLoss(QualityFocalLoss):
    """Varifocal loss, `arXiv 2008.13367 <https://arxiv.org/abs/2008.13367>`_, sec. 4.2,
    with the overlaps that mmdet's DETR heads measure.

    Scores learn to be the overlap of their box with the object, so that the queries
    that RT-DETR chooses by score have good boxes (arXiv 2304.08069, sec. 4.3). mmdet's
    heads measure overlaps for quality focal losses alone, of which this is therefore
    one. Weights are constants here, as RT-DETR trains; mmdet's ``VarifocalLoss`` sends
    gradients through them.

    Args:
        alpha: Weight of what is no object.
        gamma: Exponent of the score in that weight.
        loss_weight: Of the whole loss.
    """

    def __init__(
        self, alpha: float = 0.75, gamma: float = 2.0, loss_weight: float = 1.0
    ) -> None:
        super().__init__(beta=gamma, reduction='sum', loss_weight=loss_weight)
        self.alpha = alpha

    def forward(
        self,
        pred: Tensor,
        target: tuple[Tensor, Tensor],
        weight: Tensor | None = None,
        avg_factor: float = 1.0,
    ) -> Tensor:
        """Sum the loss of all queries.

        Args:
            pred: (N, classes) before the sigmoid.
            target: (N,) classes, that of the background being their number, and (N,)
                overlaps, 0 for the background.
            weight: (N,) of each query.
            avg_factor: Divides the sum.

        Returns:
            One number.
        """
        labels, overlaps = target
        chosen = F.one_hot(labels, pred.shape[1] + 1)[:, :-1].to(pred.dtype)
        wanted = chosen * overlaps[:, None].to(pred.dtype)
        scores = pred.detach().sigmoid()
        scale = self.alpha * scores**self.beta * (1 - chosen) + wanted
        if weight is not None:
            scale = scale * weight[:, None]
        loss = F.binary_cross_entropy_with_logits(pred, wanted, scale, reduction='sum')
        return self.loss_weight * loss / avg_factor
