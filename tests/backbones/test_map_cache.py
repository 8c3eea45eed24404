"""Maps of a wholly frozen backbone that are computed once and read afterwards."""

import multiprocessing
import shutil

import pytest
import torch
from test_contract import build, image

from mmdet_backbones.backbones.map_cache import MapCache, identity_of

NAMES = ('resnet18', 'timm-vit', 'torchvision-mobilenet', 'mobilenet-v2')
PLENTY = 10**9


def frozen(name):
    torch.manual_seed(0)
    return build(name, frozen_stages='all').train()


def cached(net, folder, limit=PLENTY):
    net.map_cache = MapCache(folder, net, limit)
    return net


def files_in(folder):
    return [path for path in folder.rglob('*') if path.is_file()]


def equal(a, b):
    return all(
        torch.equal(p, q) and p.dtype == q.dtype for p, q in zip(a, b, strict=True)
    )


@pytest.mark.parametrize('name', NAMES)
def test_maps_are_read_as_they_were_computed(name, tmp_path):
    net = frozen(name)
    first, second = image(2), image(1)
    expected = net(first)
    cached(net, tmp_path)
    assert equal(net(first), expected)
    assert len(files_in(tmp_path)) == 2
    # In another order, beside an image that was never seen.
    mixed = torch.cat([first[1:], second, first[:1]])
    outputs = net(mixed)
    assert (net.map_cache.read, net.map_cache.computed) == (2, 3)
    assert equal([o[[2, 0]] for o in outputs], expected)
    again = cached(frozen(name), tmp_path)
    assert equal(again(mixed), outputs)
    assert (again.map_cache.read, again.map_cache.computed) == (3, 0)


def test_other_weights_levels_sizes_and_types_have_maps_of_their_own(tmp_path):
    net, x = cached(frozen('resnet18'), tmp_path), image(1)
    net(x)
    changed = frozen('resnet18')
    with torch.no_grad():
        changed.layer4[1].bn2.bias[0] += 1e-6
    fewer = build('resnet18', frozen_stages='all', out_strides=(8, 16))
    fewer.load_state_dict(net.state_dict(), strict=False)
    assert len({identity_of(n) for n in (net, changed, fewer)}) == 3
    for other in (changed, fewer):
        cached(other, tmp_path)(x)
        assert other.map_cache.read == 0
    net(x[..., :-1])
    net(x.double().float() + 1e-7)
    with torch.autocast('cpu', torch.bfloat16):
        assert net(x)[0].dtype == net(x)[0].dtype == torch.bfloat16
    assert (net.map_cache.read, net.map_cache.computed) == (1, 4)


def test_a_damaged_file_is_written_anew_and_a_full_folder_is_told(tmp_path, caplog):
    net, x = cached(frozen('resnet18'), tmp_path), image(1)
    expected = net(x)
    (path,) = files_in(tmp_path)
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: size // 2])
    assert equal(net(x), expected)
    assert path.stat().st_size == size
    cached(net, tmp_path, limit=size + 10)
    assert equal(net(x), expected)
    net(image(1))
    assert len(files_in(tmp_path)) == 1
    shutil.rmtree(tmp_path)
    assert equal(net(x), expected)


def write_all(folder, images):
    torch.set_num_threads(1)
    net = cached(frozen('mobilenet-v2'), folder)
    for x in images:
        net(x)


@pytest.mark.slow
def test_processes_share_a_folder(tmp_path):
    images = [image(2) for _ in range(3)]
    context = multiprocessing.get_context('spawn')
    workers = [
        context.Process(target=write_all, args=(tmp_path, images)) for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    net = cached(frozen('mobilenet-v2'), tmp_path)
    outputs = [net(x) for x in images]
    assert net.map_cache.computed == 0
    net.map_cache = None
    assert all(map(equal, outputs, map(net, images)))
    assert {path.suffix for path in files_in(tmp_path)} == {'.pt'}
