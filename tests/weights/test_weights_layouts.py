"""Layouts of the authors of a net: the numbers that timm's own names would give."""

import pytest
import torch
from author_layouts import KEPT, LAYOUTS, random_state, same_tables, shared_table

from mmdet_backbones import TIMMBackbone
from mmdet_backbones.weights import PretrainedWeightsError, load_pretrained


def loaded(name: str, state: dict[str, torch.Tensor], path) -> TIMMBackbone:
    torch.save({'model': state}, path)
    plain = any(key.startswith('blocks.') for key in random_state(name))
    net = TIMMBackbone(name, out_indices=(KEPT - 1,) if plain else (0, 1)).eval()
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


def of_transformers(zeros: bool):
    """DINOv3 as transformers names it, with biases of queries and values."""
    source = TIMMBackbone('vit_small_patch16_dinov3_qkvb', out_indices=(1,))
    for key, value in source.state_dict().items():
        if key.endswith(('q_bias', 'v_bias')):
            value.fill_(0 if zeros else 1)
    names = (d for d in source.dialects if d.name == 'DINOv3 of transformers')
    return next(names).write(source.state_dict())


@pytest.mark.slow
def test_biases_of_zeros_are_no_part_that_is_lost(tmp_path):
    path = str(tmp_path / 'net.pth')
    net = TIMMBackbone('vit_small_patch16_dinov3', out_indices=(1,))
    torch.save(of_transformers(zeros=True), path)
    assert load_pretrained(net, path).coverage == 1
    torch.save(of_transformers(zeros=False), path)
    with pytest.raises(PretrainedWeightsError) as error:
        load_pretrained(net, path)
    message = str(error.value)
    assert 'takes: layer.*.attention.q_proj.bias (2 tensors)' in message
    assert 'architecture' not in message
