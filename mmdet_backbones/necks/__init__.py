"""What a backbone needs to reach a detector that mmdet's own necks do not give."""

from . import (  # noqa: F401
    fpn,
    hybrid_encoder,
    simple_feature_pyramid,
    single_level,
    spatial_adapter,
)
