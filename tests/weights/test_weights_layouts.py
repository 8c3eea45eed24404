"""Layouts of the authors of a net: the numbers that timm's own names would give."""

import re

import pytest
import timm
import torch

from mmdet_backbones import TIMMBackbone
from mmdet_backbones.weights import PretrainedWeightsError, load_pretrained

# Blocks of these nets that a test needs.
_KEPT = 2


def random_state(name: str) -> dict[str, torch.Tensor]:
    """Tensors under timm's names, without the deep blocks of a plain transformer."""
    with torch.device('meta'):
        shapes = timm.create_model(name, num_classes=0).state_dict()
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, value in shapes.items():
        block = re.match(r'blocks\.(\d+)\.', key)
        if block and int(block[1]) >= _KEPT:
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


def loaded(name: str, state: dict[str, torch.Tensor], path) -> TIMMBackbone:
    torch.save({'model': state}, path)
    plain = any(key.startswith('blocks.') for key in random_state(name))
    net = TIMMBackbone(name, out_indices=(_KEPT - 1,) if plain else (0, 1)).eval()
    report = load_pretrained(net, str(path))
    assert (report.coverage, report.missing, report.mismatched) == (1, (), ())
    return net


@pytest.mark.slow
@pytest.mark.parametrize('layout', LAYOUTS)
def test_a_layout_of_the_authors_gives_the_numbers_of_timms_names(tmp_path, layout):
    name, authors = LAYOUTS[layout]
    state = random_state(name)
    if authors is shared_table:
        state = same_tables(state)
    expected = loaded(name, state, tmp_path / 'timm.pth')
    net = loaded(name, authors(state), tmp_path / 'authors.pth')
    theirs = expected.state_dict()
    for key, value in net.state_dict().items():
        torch.testing.assert_close(value, theirs[key], rtol=1e-5, atol=1e-5)
    side = 224 if 'beit' in name or 'maxvit' in name else 64
    image = torch.randn(1, 3, *(net._sizes.fixed or (side, side)))
    with torch.no_grad():
        for here, there in zip(net(image), expected(image), strict=True):
            torch.testing.assert_close(here, there, rtol=1e-5, atol=1e-5)


def test_a_file_is_rewritten_without_a_second_copy_of_what_only_changes_its_name():
    from mmdet_backbones.weights.names.layouts import whole_blocks
    from mmdet_backbones.weights.names.rewriting import rewritten

    given = {'blocks.0.3.weight': torch.rand(2, 2), 'norm.weight': torch.rand(2)}
    changed = rewritten(whole_blocks, given)
    assert changed.origins['blocks.3.weight'] == ('blocks.0.3.weight',)
    assert changed.tensors['blocks.3.weight'] is given['blocks.0.3.weight']
    assert rewritten(whole_blocks, {'norm.weight': torch.rand(2)}) is None


def test_a_file_is_not_written_to_by_a_function_that_writes_in_place():
    from mmdet_backbones.weights.names.rewriting import rewritten

    def halve(state):
        state['a'].mul_(0.5)
        return {'b': state['a'], 'c': state.pop('c')}

    given = {'a': torch.ones(2), 'c': torch.ones(2)}
    changed = rewritten(halve, given)
    assert changed.tensors['b'].tolist() == [0.5, 0.5]
    assert given['a'].tolist() == [1, 1]
    assert changed.tensors['c'] is given['c']


def test_what_a_function_drops_is_told_if_it_holds_numbers_of_a_block():
    from mmdet_backbones.weights.names.rewriting import rewritten

    def drop(state):
        return {'a': state['a']}

    given = {
        'a': torch.ones(2),
        'blocks.0.bias': torch.ones(2),
        'blocks.1.bias': torch.zeros(2),
        'periods': torch.ones(2),
    }
    assert rewritten(drop, given).dropped == ['blocks.1.bias', 'periods']


def test_a_kernel_larger_than_any_net_has_is_not_resampled(tmp_path):
    name = 'vit_tiny_patch16_224'
    state = random_state(name)
    state['patch_embed.proj.weight'] = torch.zeros(192, 3, 70, 70)
    torch.save(state, tmp_path / 'net.pth')
    net = TIMMBackbone(name, out_indices=(1,))
    with pytest.raises(PretrainedWeightsError):
        load_pretrained(net, str(tmp_path / 'net.pth'), min_coverage=1)
