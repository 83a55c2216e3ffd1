"""Class-balanced distillation on hand-computed numbers and on a step recomputed by hand."""
import copy

import pytest
import torch
from conftest import build, faster_rcnn_cfg, losses_of, make_batch, total
from mmengine.config import ConfigDict

from kd_det.errors import ConfigError
from kd_det.losses.cosine import cosine_loss


def distiller(teacher, sources=1, **term):
    cfg = ConfigDict(faster_rcnn_cfg())
    named = {f't{i}': dict(config=copy.deepcopy(teacher[0]), checkpoint=teacher[1]) for i in range(sources)}
    cfg.update(type='Distiller', student_type='FasterRCNN', sources=named, terms=[dict(
        type='ClassBalancedDistillation', source=list(named) if sources > 1 else 't0', **term)])
    return build(cfg, 1)


def test_cosine_by_hand():
    ours = torch.tensor([[1.0, 0.0], [3.0, 4.0], [-2.0, 0.0]], requires_grad=True)
    theirs = torch.tensor([[5.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    assert float(cosine_loss(ours, theirs)) == pytest.approx((0 + 0.2 + 2) / 3, abs=1e-6)
    empty = cosine_loss(ours[:0], theirs[:0])
    assert float(empty) == 0 and empty.requires_grad


def test_plain_loss_is_weighed_and_only_foreground_is_compared(teacher_checkpoint):
    plain = losses_of(build(faster_rcnn_cfg(), 1), make_batch())
    model = distiller(teacher_checkpoint, alpha=0.25, beta=8.0)
    found = losses_of(model, make_batch())
    assert float(found['loss_cls']) == pytest.approx(0.75 * float(plain['loss_cls']))
    assert torch.equal(found['loss_bbox'], plain['loss_bbox'])
    assert 0 < float(found['loss_cbd']) <= 0.25 * 8 * 2
    total(found).backward()
    assert model.roi_head.bbox_head.shared_fcs[1].weight.grad.abs().sum() > 0
    empty = losses_of(model, make_batch(objects=(0, 0)))
    assert float(empty['loss_cbd']) == 0


def test_several_teachers_are_concatenated_and_alpha_0_is_plain(teacher_checkpoint):
    assert distiller(teacher_checkpoint, sources=2).terms[0].teacher_shapes[0][-1] == 64
    plain, model = losses_of(build(faster_rcnn_cfg(), 1), make_batch()), distiller(teacher_checkpoint, alpha=0.0)
    found = losses_of(model, make_batch())
    assert found.keys() == plain.keys() and torch.equal(found['loss_cls'], plain['loss_cls'])


@pytest.mark.parametrize('term, what', [
    (dict(alpha=2.0), 'alpha'), (dict(beta=-1), 'beta'), (dict(layer='neck'), 'roi_head'),
    (dict(loss=dict(type='HintLoss')), 'leave it out')])
def test_what_cannot_be_meant_is_refused(term, what, teacher_checkpoint):
    with pytest.raises(ConfigError, match=what):
        distiller(teacher_checkpoint, **term)
