# The names of the package, each with its module: read by lazy_loader at import, by
# type checkers and by editors. A name must not be that of a module beside this file.

from .adapters.mmpretrain.backbone import MMPretrainBackbone as MMPretrainBackbone
from .adapters.mmpretrain.named import ConvNeXt as ConvNeXt
from .adapters.mmpretrain.named import MobileNetV2 as MobileNetV2
from .adapters.mmpretrain.named import MobileNetV3 as MobileNetV3
from .adapters.mmpretrain.named import ShuffleNetV2 as ShuffleNetV2
from .adapters.mmpretrain.named import SwinTransformer as SwinTransformer
from .adapters.timm.backbone import TIMMBackbone as TIMMBackbone
from .adapters.torchvision.backbone import TorchvisionBackbone as TorchvisionBackbone
from .adapters.transformers.backbone import TransformersBackbone as TransformersBackbone
from .backbones.contract import Backbone as Backbone
from .backbones.frozen_norm import FrozenBN as FrozenBN
from .backbones.lora import merge_lora as merge_lora
from .backbones.residual.res2net import Res2Net as Res2Net
from .backbones.residual.resnet import ResNet as ResNet
from .check.config import check_config as check_config
from .detectors.rtdetr import RTDETR as RTDETR
from .detectors.varifocal_loss import QualityVarifocalLoss as QualityVarifocalLoss
from .engine.cached_maps import CachedMapsHook as CachedMapsHook
from .engine.checkpoint_hook import SafeCheckpointHook as SafeCheckpointHook
from .engine.coco_metric import ClasswiseCocoMetric as ClasswiseCocoMetric
from .engine.display import ProgressBarHook as ProgressBarHook
from .engine.divergence import DivergenceHook as DivergenceHook
from .engine.hooks import LearningRateScaleHook as LearningRateScaleHook
from .engine.hooks import PretrainedReportHook as PretrainedReportHook
from .engine.layer_decay import LayerDecayConstructor as LayerDecayConstructor
from .errors import PretrainedWeightsError as PretrainedWeightsError
from .inference.fusion import fuse_for_inference as fuse_for_inference
from .inference.memory_format import ChannelsLastHook as ChannelsLastHook
from .levels import Level as Level
from .necks.fpn import FPN as FPN
from .necks.hybrid_encoder import HybridEncoder as HybridEncoder
from .necks.simple_feature_pyramid import LayerNorm2d as LayerNorm2d
from .necks.simple_feature_pyramid import SimpleFeaturePyramid as SimpleFeaturePyramid
from .necks.single_level import SingleLevel as SingleLevel
from .necks.spatial_adapter import SpatialAdapter as SpatialAdapter
from .predict.detector import Detector as Detector
from .registry import HOOKS as HOOKS
from .registry import METRICS as METRICS
from .registry import MODELS as MODELS
from .registry import OPTIM_WRAPPER_CONSTRUCTORS as OPTIM_WRAPPER_CONSTRUCTORS
from .registry import TASK_UTILS as TASK_UTILS
from .runs.examples import BestAndWorstHook as BestAndWorstHook
from .swap.swapping import swap_backbone as swap_backbone
from .task_modules.anchor_generator import SizedAnchorGenerator as SizedAnchorGenerator

__version__: str
