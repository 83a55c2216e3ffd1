"""FasterRCNNDistiller's terms on numbers: box terms of both stages, box encodings, Mask R-CNN, two resolutions."""
import copy
import functools

import numpy as np
import pytest
import torch
from conftest import build, faster_rcnn_cfg, losses_of, make_batch, save_checkpoint, total
from mmdet.structures.mask import BitmapMasks
from mmengine.hub import get_config
from test_faster_rcnn import ALL, distil_cfg

from kd_det.errors import ConfigError


def test_rpn_box_term_recomputed_with_loops(teacher_checkpoint, monkeypatch):
    """Positive sampled anchors only, towards the ground truth's deltas, gated by the teacher's error."""
    model = build(distil_cfg(teacher_checkpoint, rpn_distill=dict(cls=None, bbox=dict(
        type='TeacherBoundedLoss', margin=0.01, loss_weight=0.25), reg_weight=2.0), rcnn_distill=None), 1)
    with torch.no_grad():  # fresh heads predict almost no offset
        model.rpn_head.rpn_reg.weight.normal_(std=0.3)
        model.teacher.model.rpn_head.rpn_reg.weight.normal_(std=0.3)
    calls = []
    keep = type(model.rpn_head).loss_by_feat_single

    @functools.wraps(keep)
    def spy(self, *args, **kwargs):
        calls.append((args, kwargs))
        return keep(self, *args, **kwargs)
    monkeypatch.setattr(type(model.rpn_head), 'loss_by_feat_single', spy)
    losses = losses_of(model, make_batch(objects=(4, 3)))
    data = model.data_preprocessor(make_batch(objects=(4, 3)), True)
    with torch.no_grad():
        _, teacher_boxes = model.teacher.model.rpn_head(model.teacher.model.extract_feat(data['inputs']))
    expected, open_gates, positives = 0.0, 0, 0
    for (args, _), theirs in zip(calls, teacher_boxes):
        images, _, height, width = args[1].shape
        labels, targets = args[3].reshape(images, height, width, -1), args[5].reshape(images, height, width, -1, 4)
        for n, y, x, a in (labels == 0).nonzero().tolist():
            target, at = targets[n, y, x, a], (n, slice(4 * a, 4 * a + 4), y, x)
            ours, other = (float((maps[at] - target).square().sum()) for maps in (args[1], theirs))
            positives += 1
            if ours + 0.01 > other:
                expected, open_gates = expected + ours, open_gates + 1
    assert 0 < open_gates < positives
    avg_factor = calls[0][1]['avg_factor']
    assert float(losses['loss_rpn_bbox_distill']) == pytest.approx(2 * 0.25 * expected / avg_factor, rel=1e-4)


def test_reg_decoded_bbox_changes_the_encoding_of_targets_only(teacher_checkpoint):
    values = []
    for decoded in (False, True):
        student = faster_rcnn_cfg()
        student.roi_head.bbox_head.update(reg_decoded_bbox=decoded,
                                          loss_bbox=dict(type='GIoULoss' if decoded else 'L1Loss'))
        model = build(distil_cfg(teacher_checkpoint, student, rcnn_distill=dict()), 2)
        values.append(float(losses_of(model, make_batch(objects=(3, 4)))['loss_bbox_distill']))
    assert values[0] > 0 and values[1] == pytest.approx(values[0], rel=1e-3)


@pytest.mark.parametrize('change', ['stds', 'agnostic'])
def test_the_same_boxes_in_another_encoding_give_the_same_term(change, teacher_checkpoint, tmp_path):
    """Teachers that predict the same boxes: other box stds, or one box for all classes against that box for each."""
    cfg, other_cfg = faster_rcnn_cfg(), faster_rcnn_cfg()
    if change == 'stds':
        other_cfg.roi_head.bbox_head.bbox_coder.target_stds = [0.4, 0.2, 0.5, 0.3]
    else:
        other_cfg.roi_head.bbox_head.reg_class_agnostic = True
    one = build(cfg, 4)
    torch.nn.init.normal_(one.roi_head.bbox_head.fc_reg.weight, std=0.3)
    other = build(other_cfg, 4)
    state = one.state_dict()
    weight, bias = (state[f'roi_head.bbox_head.fc_reg.{name}'] for name in ('weight', 'bias'))  # (8, 32), (8,)
    if change == 'stds':
        factor = torch.tensor([0.1, 0.1, 0.2, 0.2]) / torch.tensor([0.4, 0.2, 0.5, 0.3])
        other_weight, other_bias = weight * factor.repeat(2)[:, None], bias * factor.repeat(2)
    else:
        other_weight, other_bias = weight[:4].clone(), bias[:4].clone()
        weight[4:], bias[4:] = weight[:4], bias[:4]
    other.load_state_dict({**state, 'roi_head.bbox_head.fc_reg.weight': other_weight,
                           'roi_head.bbox_head.fc_reg.bias': other_bias}, strict=True)
    values = []
    for name, teacher, config in (('one', one, cfg), ('other', other, other_cfg)):
        path = save_checkpoint(teacher, tmp_path / f'{name}.pth')
        model = build(distil_cfg((copy.deepcopy(config), path), rcnn_distill=dict(bbox=dict(type='BoxMimicryLoss'))), 2)
        values.append(float(losses_of(model, make_batch(objects=(3, 4)))['loss_bbox_distill']))
    assert values[0] > 0 and values[1] == pytest.approx(values[0], rel=1e-3)


def test_mask_rcnn_student(teacher_checkpoint):
    """Its box branch is distilled, its masks are learned as before."""
    cfg, masked = faster_rcnn_cfg(), get_config('mmdet::_base_/models/mask-rcnn_r50_fpn.py').model
    cfg.roi_head.update(mask_roi_extractor=masked.roi_head.mask_roi_extractor, mask_head=masked.roi_head.mask_head)
    cfg.roi_head.mask_roi_extractor.out_channels = 16
    cfg.roi_head.mask_head.update(num_convs=1, in_channels=16, conv_out_channels=16, num_classes=2)
    cfg.train_cfg.rcnn.mask_size = 28
    cfg.type = 'MaskRCNN'

    def batch():
        scene = make_batch(objects=(3, 2))
        for sample in scene['data_samples']:
            boxes = sample.gt_instances.bboxes.int().tolist()
            masks = np.zeros((len(boxes), 96, 128), dtype=np.uint8)
            for mask, (x1, y1, x2, y2) in zip(masks, boxes):
                mask[y1:y2, x1:x2] = 1
            sample.gt_instances.masks = BitmapMasks(masks, 96, 128)
        return scene
    plain = losses_of(build(copy.deepcopy(cfg), 1), batch())
    model = build(distil_cfg(teacher_checkpoint, copy.deepcopy(cfg), **ALL), 1)
    losses = losses_of(model, batch())
    assert torch.equal(losses['loss_mask'], plain['loss_mask'])
    assert {'loss_cls_distill', 'loss_bbox_distill', 'loss_rpn_cls_distill'} <= set(losses)
    total(losses).backward()
    assert float(losses['loss_cls_distill']) > 0 and model.roi_head.bbox_head.fc_cls.weight.grad.abs().sum() > 0


def test_a_teacher_with_branches_beside_its_features_is_refused(tmp_path):
    cfg = get_config('mmdet::scnet/scnet_r50_fpn_1x_coco.py').model
    cfg.backbone.init_cfg = None
    path = save_checkpoint(build(copy.deepcopy(cfg), 1), tmp_path / 't.pth')
    student = get_config('mmdet::_base_/models/cascade-rcnn_r50_fpn.py').model
    student.backbone.init_cfg = None
    with pytest.raises(ConfigError, match='rcnn_distill: the teacher\'s SCNetRoIHead needs its semantic or global'):
        build(distil_cfg((cfg, path), student, rcnn_distill=dict()), 1)
