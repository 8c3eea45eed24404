"""mmcv's synchronised batch normalisation with what timm's layers do after it."""

from __future__ import annotations

from mmcv.ops.sync_bn import SyncBatchNorm
from torch import Tensor


class MMSyncBatchNormAct(SyncBatchNorm):
    """What a conversion of ``BatchNormAct2d`` to ``MMSyncBN`` makes."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise, drop and activate."""
        return self.act(self.drop(super().forward(input)))
