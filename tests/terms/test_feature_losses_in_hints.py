"""Losses on features inside a hint of a whole detector: what they are given, what trains, what a checkpoint keeps."""
import copy

import pytest
import torch
from conftest import build, faster_rcnn_cfg, losses_of, make_batch
from mmengine.config import ConfigDict

from kd_det.losses import foreground_mask

LOSSES = {
    'PKD': dict(type='PKDLoss'),
    'CWD': dict(type='CWDLoss'),
    'CWD, standardised': dict(type='CWDLoss', standardise=True, loss_weight=1.0),
    'FGD': dict(type='FGDLoss', alpha=5e-5, beta=2.5e-5, gamma=5e-5, lam=5e-7),
    'MGD': dict(type='MGDLoss', mask_ratio=0.45, loss_weight=5e-7),
}
MIXED = dict(sizes=((96, 128), (64, 96)), objects=(3, 2))  # the second image is padded


def distiller(teacher, loss):
    cfg = ConfigDict(faster_rcnn_cfg())
    cfg.update(type='Distiller', student_type='FasterRCNN',
               terms=[dict(type='Hint', layer='neck', loss=copy.deepcopy(loss))],
               teacher=dict(config=copy.deepcopy(teacher[0]), checkpoint=teacher[1]))
    return build(cfg, 1)


@pytest.mark.parametrize('name', LOSSES)
def test_one_step_trains_student_adapter_and_loss(teacher_checkpoint, name):
    model = distiller(teacher_checkpoint, LOSSES[name])
    losses = losses_of(model, make_batch(**MIXED))
    assert losses['loss_hint_neck'].isfinite() and losses['loss_hint_neck'] > 0
    losses['loss_hint_neck'].backward()
    assert model.neck.lateral_convs[0].conv.weight.grad.any()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.terms.parameters())
    assert not any('terms' in key for key in model.state_dict())  # the deployed student's keys alone


@pytest.mark.parametrize('name', ['FGD', 'MGD'])
def test_trainable_parts_travel_beside_the_student(teacher_checkpoint, name):
    model, other = (distiller(teacher_checkpoint, LOSSES[name]) for _ in range(2))
    losses = losses_of(model, make_batch(**MIXED))
    losses['loss_hint_neck'].backward()
    with torch.no_grad():
        for p in model.terms.parameters():
            p -= 0.1 * p.grad.sign()
    other.load_state_dict(model.state_dict())
    other.load_distill_state(model.distill_state())
    ours, theirs = (losses_of(one, make_batch(**MIXED), seed=3)['loss_hint_neck'] for one in (model, other))
    assert torch.equal(ours, theirs)  # MGD: the count of masks too


def test_boxes_reach_fgd_in_pixels_of_the_padded_batch(teacher_checkpoint, monkeypatch):
    model, seen = distiller(teacher_checkpoint, LOSSES['FGD']), []

    def watched(boxes, size, canvas):
        seen.append((boxes, size, canvas))
        return foreground_mask(boxes, size, canvas)

    monkeypatch.setattr('kd_det.losses.fgd.foreground_mask', watched)
    batch = make_batch(**MIXED)
    losses_of(model, batch)
    assert [(canvas, size) for _, size, canvas in seen[:2]] == [((96, 128), (24, 32)), ((96, 128), (12, 16))]
    boxes = [sample.gt_instances.bboxes for sample in batch['data_samples']]
    assert all(torch.equal(a, b) for a, b in zip(seen[0][0], boxes))
