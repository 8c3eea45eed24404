# Fully sharded data parallel training (arXiv 2304.11277) through mmengine's
# FlexibleRunner: every process keeps a share of the weights, of the gradients and of
# the optimiser's state. For large backbones; put it beside a config:
#   _base_ = ['../cascade_rcnn/cascade-rcnn_swin-tiny_fpn_1x_coco.py',
#             '../_base_/runtime/fsdp.py']
#   optim_wrapper = dict(type='mmdet_backbones.engine.sharding.ShardedOptimWrapper')
# The last line is for configs that clip gradients. Run on two CPUs, not on GPUs yet.
runner_type = 'FlexibleRunner'
strategy = dict(
    type='FSDPStrategy',
    model_wrapper=dict(
        type='MMFullyShardedDataParallel',
        # With flat parameters alone, layers could have no rates of their own.
        use_orig_params=True,
        # Blocks of Swin, of timm's transformers and of ConvNeXt are gathered one at a
        # time, all other weights together.
        auto_wrap_policy=dict(
            type='mmdet_backbones.engine.sharding.wrap_classes',
            names=('SwinBlock', 'Block', 'ConvNeXtBlock'))),
    # Whole checkpoints, which one process can read too.
    state_dict_cfg='full')
