"""Files of random numbers as the authors of a net lay them out."""

import re

import timm
import torch

# Blocks of these nets that a test needs.
KEPT = 2


def random_state(name: str) -> dict[str, torch.Tensor]:
    """Tensors under timm's names, without the deep blocks of a plain transformer."""
    with torch.device('meta'):
        shapes = timm.create_model(name, num_classes=0).state_dict()
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, value in shapes.items():
        block = re.match(r'blocks\.(\d+)\.', key)
        if block and int(block[1]) >= KEPT:
            continue
        fan_in = value[0].numel() if value.dim() > 1 else 1
        numbers = torch.randn(value.shape, generator=generator) / max(fan_in, 1) ** 0.5
        state[key] = numbers.abs() + 0.5 if key.endswith('running_var') else numbers
    return state


def renamed(*rules):
    def rename(state):
        result = {}
        for key, value in state.items():
            for pattern, replacement in rules:
                key = re.sub(pattern, replacement, key)
            result[key] = value
        return result

    return rename


def then(*functions):
    def apply(state):
        for function in functions:
            state = function(state)
        return state

    return apply


def mask_token(state):
    return {**state, 'mask_token': torch.rand(1, state['cls_token'].shape[-1])}


def under(prefix):
    return renamed((r'^', prefix))


def class_position(state):
    """Positions that begin with one of the class token."""
    position = torch.rand_like(state['cls_token'])
    return {
        **state,
        'cls_token': state['cls_token'] - position,
        'pos_embed': torch.cat([position, state['pos_embed']], 1),
    }


def dinov3(state):
    """Biases of the keys are masked, and timm's net has none."""
    result = {}
    for key, value in state.items():
        if key.endswith('.v_bias'):
            continue
        if key.endswith('.q_bias'):
            parts = [value, torch.zeros_like(value), state[key[:-6] + 'v_bias']]
            result[f'{key[:-6]}qkv.bias'] = torch.cat(parts)
            continue
        result[key] = value
        if key.endswith('qkv.weight') and key[:-10] + 'q_bias' not in state:
            result[key[:-6] + 'bias'] = torch.zeros(len(value))
            result[key[:-6] + 'bias_mask'] = torch.ones(len(value))
    result['rope_embed.periods'] = torch.rand(16)
    names = (r'^reg_token$', 'storage_tokens'), (r'\.gamma_(\d)$', r'.ls\1.gamma')
    return mask_token(renamed(*names)(result))


def flat_kernels(state):
    """Linear layers for convolutions of one pixel, (1, 1, 1, C) for a scale."""
    return {
        key: value.reshape(1, 1, 1, -1)
        if '.grn.' in key
        else value.flatten(1)
        if 'pwconv' in key and value.dim() == 4
        else value
        for key, value in state.items()
    }


CONVNEXT = then(
    renamed(
        (r'^stem\.', 'downsample_layers.0.'),
        (r'^stages\.(\d)\.downsample\.', r'downsample_layers.\1.'),
        (r'^stages\.(\d)\.blocks\.', r'stages.\1.'),
        (r'\.conv_dw\.', '.dwconv.'),
        (r'\.mlp\.fc([12])\.', r'.pwconv\1.'),
        (r'\.mlp\.grn\.weight$', '.grn.gamma'),
        (r'\.mlp\.grn\.bias$', '.grn.beta'),
        (r'^head\.norm\.', 'norm.'),
    ),
    flat_kernels,
)


def convnext_of_dinov3(state):
    state = CONVNEXT(state)
    norms = {f'norms.3.{leaf}': state[f'norm.{leaf}'] for leaf in ('weight', 'bias')}
    return {**state, **norms}


def shared_table(state):
    """One table of relative positions, as BEiT trains itself."""
    table = 'attn.relative_position_bias_table'
    own = {k: v for k, v in state.items() if not k.endswith(table)}
    return {**own, f'rel_pos_bias.{table[5:]}': state[f'blocks.0.{table}']}


def same_tables(state):
    table = 'attn.relative_position_bias_table'
    first = state[f'blocks.0.{table}']
    return {k: first if k.endswith(table) else v for k, v in state.items()}


def swin_order(state):
    """Their stages end with the merging of patches."""
    return {
        re.sub(r'^layers\.(\d)\.down', lambda m: f'layers.{int(m[1]) - 1}.down', k): v
        for k, v in state.items()
    }


def open_clip(state):
    renames = (
        (r'^patch_embed\.proj\.', 'conv1.'),
        (r'^pos_embed$', 'positional_embedding'),
        (r'^cls_token$', 'class_embedding'),
        (r'^norm_pre\.', 'ln_pre.'),
        (r'^norm\.', 'ln_post.'),
        (r'^blocks\.', 'transformer.resblocks.'),
        (r'\.norm(\d)\.', r'.ln_\1.'),
        (r'\.attn\.qkv\.', '.attn.in_proj_'),
        (r'\.attn\.proj\.', '.attn.out_proj.'),
        (r'\.mlp\.fc1\.', '.mlp.c_fc.'),
        (r'\.mlp\.fc2\.', '.mlp.c_proj.'),
    )
    state = renamed(*renames)(state)
    state['class_embedding'] = state['class_embedding'].flatten()
    state['positional_embedding'] = state['positional_embedding'][0]
    state['proj'] = torch.rand(768, 512)
    text = {'logit_scale': torch.tensor(1.0), 'ln_final.weight': torch.rand(512)}
    return {**under('visual.')(state), **text}


def chunked(state):
    return renamed((r'^blocks\.(\d+)\.', r'blocks.0.\1.'))(state)


def itself(state):
    return state


EVA02 = renamed((r'\.mlp\.fc1\.', '.mlp.w12.'), (r'\.mlp\.fc2\.', '.mlp.w3.'))
EVA02_SPLIT = renamed(
    (r'\.attn\.norm\.', '.attn.inner_attn_ln.'),
    (r'\.mlp\.norm\.', '.mlp.ffn_ln.'),
    (r'\.attn\.([qv])_proj\.bias$', r'.attn.\1_bias'),
    (r'\.mlp\.fc1_g\.', '.mlp.w1.'),
    (r'\.mlp\.fc1_x\.', '.mlp.w2.'),
    (r'\.mlp\.fc2\.', '.mlp.w3.'),
)
SAM = then(renamed((r'\.mlp\.fc(\d)\.', r'.mlp.lin\1.')), under('image_encoder.'))
REGISTERS = then(
    class_position, renamed((r'^reg_token$', 'register_tokens')), mask_token
)
DEIT3 = renamed((r'\.ls([12])\.gamma$', r'.gamma_\1'))
SIMMIM = then(swin_order, under('encoder.'))

LAYOUTS = {
    'DINOv2': ('vit_small_patch14_dinov2', mask_token),
    'DINOv2 with registers': ('vit_small_patch14_reg4_dinov2', REGISTERS),
    'DINOv2 in chunks': ('vit_small_patch14_dinov2', chunked),
    'DINOv2 with registers in chunks': (
        'vit_small_patch14_reg4_dinov2', then(REGISTERS, chunked)),
    'DINOv3': ('vit_small_patch16_dinov3', dinov3),
    'DINOv3 with biases': ('vit_small_patch16_dinov3_qkvb', dinov3),
    'DINOv3 of a training': (
        'vit_small_patch16_dinov3', then(dinov3, chunked, under('teacher.backbone.'))),
    'DINOv3 ConvNeXt': ('convnext_tiny', convnext_of_dinov3),
    'DeiT-III': ('deit3_small_patch16_224', DEIT3),
    'BEiT': ('beit_base_patch16_224', itself),
    'BEiT of its own training': ('beit_base_patch16_224', shared_table),
    'BEiTv2': ('beitv2_base_patch16_224', under('module.')),
    'EVA': ('eva_large_patch14_196', itself),
    'EVA-02': ('eva02_tiny_patch14_224', EVA02),
    'EVA-02 of parts': ('eva02_base_patch14_224', EVA02_SPLIT),
    'SAM': ('samvit_base_patch16', SAM),
    'MAE': ('vit_tiny_patch16_224', mask_token),
    'MoCo v3': ('vit_tiny_patch16_224', under('module.base_encoder.')),
    'SimMIM': ('swinv2_tiny_window8_256', SIMMIM),
    'ConvNeXt': ('convnext_atto', CONVNEXT),
    'ConvNeXt V2': ('convnextv2_atto', CONVNEXT),
    'MaxViT': ('maxvit_tiny_tf_224', itself),
    'CLIP': ('vit_base_patch32_clip_224', open_clip),
    'SigLIP of OpenCLIP': ('vit_base_patch16_siglip_224', under('visual.trunk.')),
    'HGNetV2': ('hgnetv2_b0', itself),
}  # fmt: skip
