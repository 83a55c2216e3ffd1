"""Pairs in which one side is a cascade: which stage teaches which, and that it is this one's answer that is taught."""
import copy
import functools

import pytest
import torch
from any_detector import DETECTORS
from conftest import build, losses_of, make_batch, total
from mmengine.config import ConfigDict

from kd_det.errors import ConfigError
from kd_det.losses.soft_target import soft_target_loss
from kd_det.sources.layers import box_forward, box_heads
from kd_det.terms.stages import pair_stages, thresholds


@pytest.fixture(scope='module')
def teacher(made_once):
    """(config, checkpoint) of a wider detector of each kind."""
    return lambda name: made_once(name, DETECTORS[name])


def taught(student, teacher, **options):
    cfg = ConfigDict(copy.deepcopy(student))
    cfg.update(student_type=cfg.type, type='FasterRCNNDistiller', **options, teacher=dict(
        config=copy.deepcopy(teacher[0]), checkpoint=teacher[1], fuse_conv_bn=False, channels_last=False))
    return cfg


class Model(torch.nn.Module):
    """As much of a detector as is asked for: stages with these thresholds."""

    def __init__(self, limits):
        super().__init__()
        self.roi_head = torch.nn.Module()
        self.roi_head.bbox_head = torch.nn.ModuleList(torch.nn.Identity() for _ in limits)
        self.roi_head.train_cfg = [dict(assigner=dict(pos_iou_thr=limit)) for limit in limits]


class Source:
    def __init__(self, limits):
        self.model = Model(limits)


@pytest.mark.parametrize('ours, theirs, wanted, partners', [
    ([0.5], [0.5, 0.6, 0.7], 'nearest', [0]), ([0.5], [0.5, 0.6, 0.7], 'last', [2]),
    ([0.5, 0.6, 0.7], [0.5], 'nearest', [0, 0, 0]),
    ([0.45, 0.66], [0.5, 0.6, 0.7], 'nearest', [0, 2]),
    ([0.55], [0.5, 0.6, 0.7], 'nearest', [0]),  # two are equally near: the earlier one
    ([0.5, 0.6], [0.3, 0.4], 'nearest', [0, 1]),  # equally many: one by one
    ([0.5, 0.6], [0.3, 0.4], 'last', [1, 1]),
    ([0.5, 0.6], [0.5, 0.6, 0.7], [2, 1], [2, 1]),
])
def test_partners(ours, theirs, wanted, partners):
    assert pair_stages('rcnn_distill', Model(ours), Source(theirs), wanted) == partners


@pytest.mark.parametrize('wanted, words', [
    ('best', r"rcnn_distill.stages: found 'best'; one of \['nearest', 'last'\]"),
    ([0], r'3 R-CNN stages, the teacher 2: 3 numbers from 0 to 1'), ([0, 1, 2], 'numbers from 0 to 1'),
    ([0, 1, True], 'numbers from 0 to 1'), (None, 'found None')])
def test_what_cannot_be_meant_is_refused(wanted, words):
    with pytest.raises(ConfigError, match=words):
        pair_stages('rcnn_distill', Model([0.5, 0.6, 0.7]), Source([0.5, 0.6]), wanted)


def test_without_thresholds_the_user_is_asked():
    blind = Source([0.5, 0.6])
    blind.model.roi_head.train_cfg = None
    assert thresholds(blind.model) == [None, None]
    with pytest.raises(ConfigError, match=r"the teacher's train_cfg.rcnn.assigner has no pos_iou_thr.*stages='last'"):
        pair_stages('rcnn_distill', Model([0.5]), blind, 'nearest')
    assert pair_stages('rcnn_distill', Model([0.5]), blind, 'last') == [1]


def remembering(ask, calls):
    @functools.wraps(ask)
    def spy(cls_score, bbox_pred, rois, **kwargs):
        found = ask(cls_score, bbox_pred, rois, **kwargs)
        calls.append((cls_score, bbox_pred, rois, found['bbox_targets']))
        return found
    return spy


@pytest.mark.parametrize('student, source, stages, partners', [
    ('faster_rcnn', 'cascade_rcnn', 'nearest', [0]), ('faster_rcnn', 'cascade_rcnn', 'last', [2]),
    ('cascade_rcnn', 'faster_rcnn', 'nearest', [0, 0, 0])])
def test_the_partner_answers_for_the_students_rois(student, source, stages, partners, teacher, monkeypatch):
    """The soft term of each stage, recomputed from that stage of the teacher on the RoIs that the student's sampled."""
    # heads are born agreeing that nothing is there; these see something
    mimicry = dict(type='BoxMimicryLoss', loss_weight=1.0)
    model = build(taught(DETECTORS[student](8), teacher(source), rcnn_distill=dict(stages=stages, bbox=mimicry)), 1)
    network = model.teacher.model
    with torch.no_grad():
        for head in (*box_heads(network), *box_heads(model)):
            head.fc_cls.weight.normal_(std=0.3)
            head.fc_reg.weight.normal_(std=0.3)
    calls = []
    for head in box_heads(model):
        monkeypatch.setattr(head, 'loss_and_target', remembering(head.loss_and_target, calls))
    losses = losses_of(model, make_batch())
    total(losses).backward()
    data = model.data_preprocessor(make_batch(), True)
    prefixes = [f's{i}.' for i in range(3)] if student == 'cascade_rcnn' else ['']
    weights = getattr(model.roi_head, 'stage_loss_weights', [1.0])
    assert len(calls) == len(prefixes)
    for prefix, weight, partner, (scores, boxes, rois, targets) in zip(prefixes, weights, partners, calls):
        with torch.no_grad():
            answer = box_forward(network, partner, network.extract_feat(data['inputs']), rois)
            soft = soft_target_loss(scores, answer['cls_score'], background_weight=1.5)
            expected = weight * 0.5 * soft.sum() / len(rois)
        assert float(losses[f'{prefix}loss_cls_distill'].detach()) == pytest.approx(float(expected), rel=1e-4), prefix
        positive = (targets[0] < 2).nonzero().flatten()
        assert len(positive)
        # decoded, both encodings say the same box; the mimicry term is the distance in the student's encoding
        coder, theirs = box_heads(model)[prefixes.index(prefix)].bbox_coder, box_heads(network)[partner].bbox_coder
        ours, other = (deltas.reshape(len(deltas), -1, 4)[positive, targets[0][positive] if deltas.shape[1] > 4 else 0]
                       for deltas in (boxes.detach(), answer['bbox_pred']))
        priors = rois[positive, 1:]
        moved = coder.encode(priors, theirs.decode(priors, other))
        squared = (ours - moved).square().sum()
        assert float(losses[f'{prefix}loss_bbox_distill'].detach()) == pytest.approx(
            weight * float(squared) / len(rois), rel=1e-3), prefix
    assert all(head.fc_cls.weight.grad.abs().sum() > 0 for head in box_heads(model))
    plan = '\n'.join(model.plan())
    assert f'student R-CNN stage 0 (IoU 0.5) <- teacher R-CNN stage {partners[0]} (IoU 0.{5 + partners[0]})' in plan


def test_hints_in_the_roi_head_need_the_same_stages(teacher):
    with pytest.raises(ConfigError, match=r'hints\[0\].teacher_layer: .*the student has 1 of them, the teacher 3'):
        build(taught(DETECTORS['faster_rcnn'](8), teacher('cascade_rcnn'), hints=[dict(
            layer='roi_head.bbox_head.shared_fcs.1', teacher_layer='roi_head.bbox_head.0.shared_fcs.1')]))


def test_a_hint_behind_the_end_of_a_cascade_is_zero_and_its_adapter_takes_part(teacher, monkeypatch):
    model = build(taught(DETECTORS['cascade_rcnn'](8), teacher('cascade_rcnn'), hints=[dict(
        layer='roi_head.bbox_head.1.shared_fcs.1')]), 1)
    assert float(losses_of(model, make_batch())['loss_hint_roi_head_bbox_head_1_shared_fcs_1']) > 0
    monkeypatch.setattr(type(model.roi_head.bbox_head[0]), 'refine_bboxes', lambda *_: None)  # no proposal is left
    losses = losses_of(model, make_batch())
    assert float(losses['loss_hint_roi_head_bbox_head_1_shared_fcs_1']) == 0
    total(losses).backward()
    assert all(p.grad is not None for p in model.adapter_parameters().values())
