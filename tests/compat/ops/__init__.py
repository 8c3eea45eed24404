"""The operators of mmcv.ops as mmdet_backbones serves them."""
