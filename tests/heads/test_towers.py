"""Towers of every head: where they are, what stands before an activation, and entering a head behind a convolution."""
import pytest
import torch
from conftest import build
from dense_detectors import dense_cfg
from torch import nn

from kd_det.errors import ConfigError
from kd_det.heads.dense_outputs import training_format
from kd_det.heads.towers import check_entry, towers_of
from kd_det.tap import tap_layer

HEADS = ('retinanet', 'fcos', 'atss', 'gfl', 'paa', 'ddod', 'rtmdet', 'yolox')


def head_of(kind, **head):
    head = build(dense_cfg(kind, **dict(dict(stacked_convs=3), **head)), 1).bbox_head.eval().requires_grad_(False)
    with torch.no_grad():
        for parameter in head.parameters():  # levels, towers and predictors all differ
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel()))
    return head


def features(head, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(2, 16, 8 >> i or 1, 8 >> i or 1, generator=generator)
                 for i in range(len(head.prior_generator.strides)))


def run(head, inputs):
    with torch.no_grad(), training_format(head):
        return [level for part in head(inputs) for level in part]


@pytest.mark.parametrize('k', [1, 2, 3])
@pytest.mark.parametrize('kind', HEADS)
def test_entered_by_its_own_features_a_head_says_what_it_says(kind, k):
    head = head_of(kind)
    towers, heard = towers_of(head, 'x'), {'cls': [], 'bbox': []}
    handles = [head.get_submodule(path).register_forward_hook(
                   lambda m, i, o, found=heard[branch]: found.append(o.clone()))
               for branch, tower in towers.items() for path in tower.paths(k)]
    said = run(head, features(head))
    for handle in handles:
        handle.remove()
    before = [dict(vars(module)) for module in head.modules()]
    with towers['cls'].entered_after(k, heard['cls']), towers['bbox'].entered_after(k, heard['bbox']):
        says = run(head, features(head, seed=5))  # whatever the neck gives
    for one, other in zip(said, says, strict=True):
        assert torch.equal(one, other)
    assert [dict(vars(module)) for module in head.modules()] == before  # nothing is left behind
    assert not torch.equal(said[0], run(head, features(head, seed=5))[0])


@pytest.mark.parametrize('kind', HEADS)
def test_what_is_heard_stands_before_the_activation(kind):
    head = head_of(kind)
    for tower in towers_of(head, 'x').values():
        assert tower.depth == 3 and tower.channels(2) == 16
        found = []
        for path in tower.paths(2):
            with tap_layer(head.get_submodule(path), lambda output, found=found: found.append(output.clone())):
                run(head, features(head))
        assert len(found) == len(head.prior_generator.strides)
        assert all(bool((level < 0).any()) for level in found), 'a ReLU leaves nothing below 0'
        inner = tower.levels[0][1]
        assert type(head.get_submodule(tower.paths(2)[0])) is (type(inner.norm) if inner.with_norm else nn.Conv2d)


def test_a_tower_without_norm_is_heard_at_its_convolution():
    head = head_of('retinanet', norm_cfg=None)
    assert towers_of(head, 'x')['bbox'].paths(2) == ['reg_convs.1.conv']
    # levels that share the convolution and have no norms of their own go through one layer
    head = head_of('rtmdet', norm_cfg=None)
    assert towers_of(head, 'x')['cls'].paths(1) == ['cls_convs.0.0.conv']
    assert towers_of(head_of('rtmdet'), 'x')['cls'].paths(1) == [f'cls_convs.{i}.0.bn' for i in range(3)]
    deep = head_of('rtmdet', use_depthwise=True, share_conv=False)
    assert towers_of(deep, 'x')['cls'].paths(3)[1] == 'cls_convs.1.2.pointwise_conv.bn'


def test_the_gradient_passes_through_a_frozen_head_and_stops_in_front_of_what_is_left_out():
    head = head_of('gfl')
    towers = towers_of(head, 'x')
    given = {branch: [torch.randn(1, 16, 4, 4, requires_grad=True) for _ in range(5)] for branch in towers}
    neck = tuple(torch.randn(1, 16, 4, 4, requires_grad=True) for _ in range(5))
    with towers['cls'].entered_after(2, [f * 1 for f in given['cls']]), \
            towers['bbox'].entered_after(2, [f * 1 for f in given['bbox']]):
        scores, _ = head(neck)
    sum(level.sum() for level in scores).backward()
    assert all(bool(f.grad.any()) for f in given['cls'])
    assert all(f.grad is None for f in (*neck, *given['bbox']))
    assert all(p.grad is None for p in head.parameters())


def test_too_few_and_too_many_features_are_noticed():
    head = head_of('atss')
    cls = towers_of(head, 'x')['cls']
    five = [torch.zeros(1, 16, 4, 4) for _ in range(5)]
    with pytest.raises(RuntimeError, match='more than 4 times'), cls.entered_after(1, five[:4]):
        run(head, tuple(five))
    with pytest.raises(RuntimeError, match='did not go through it once for each of 6'), \
            cls.entered_after(1, [*five, five[0]]):
        run(head, tuple(five))
    run(head, tuple(five))  # and the head is as it was


@pytest.mark.parametrize('kind,origins', [
    ('gfl', dict(logits={'cls'}, regression={'bbox'})),
    ('atss', dict(logits={'cls'}, regression={'bbox'}, factor={'bbox'})),
    ('fcos', dict(logits={'cls'}, regression={'bbox'}, factor={'cls'})),
    ('yolox', dict(logits={'cls', 'bbox'}, regression={'bbox'}, factor={'bbox'}))])
def test_check_finds_which_tower_a_prediction_comes_from(kind, origins):
    head = head_of(kind, **(dict(centerness_on_reg=False) if kind == 'fcos' else {}))
    assert check_entry(head, towers_of(head, 'x'), 2, 'x') == origins


def test_a_head_that_goes_around_its_towers_is_found_out():
    head = head_of('gfl')
    inner = head.forward_single
    head.forward_single = lambda x, scale: (lambda scores, boxes: (scores + x.mean(), boxes))(*inner(x, scale))
    with pytest.raises(ConfigError, match=r'teacher\.config: GFLHead gives other logits when cls_convs and reg_convs '
                                          'are entered behind convolution 2'):
        check_entry(head, towers_of(head, 'x'), 2, 'teacher.config')


@pytest.mark.parametrize('kind,match', [
    ('tood', 'bbox_head: TOODHead cannot be entered .*: one tower serves'),
    ('vfnet', 'VFNetHead cannot be entered .*two steps'),
    ('yolof', 'towers of YOLOFHead is not known; they are of ATSSHead, DDODHead')])
def test_other_heads_are_refused_with_the_reason(kind, match):
    head = build(dense_cfg(kind), 1).bbox_head
    with pytest.raises(ConfigError, match=match):
        towers_of(head, 'bbox_head')


def test_towers_that_are_built_otherwise_are_refused():
    head = head_of('gfl')
    head.cls_convs[1] = nn.Conv2d(16, 16, 3, padding=1)
    with pytest.raises(ConfigError, match=r'GFLHead\.cls_convs holds a Conv2d; convolution, norm and activation'):
        towers_of(head, 'bbox_head')
    head = head_of('gfl')
    head.reg_convs[0].order = ('norm', 'conv', 'act')
    with pytest.raises(ConfigError, match='reg_convs holds a ConvModule of order'):
        towers_of(head, 'bbox_head')
    with pytest.raises(ConfigError, match=r'cls_convs holds \[0\] convolutions'):
        towers_of(build(dense_cfg('retinanet', stacked_convs=0), 1).bbox_head, 'bbox_head')
