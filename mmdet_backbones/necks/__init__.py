"""What a backbone needs to reach a detector that mmdet's own necks do not give."""

from . import fpn, hybrid_encoder, simple_feature_pyramid, single_level  # noqa: F401
