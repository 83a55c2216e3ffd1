"""Students and teachers of different kinds: what works works, and what cannot says why before training."""
import copy

import pytest
import torch
from any_detector import DETECTORS, batch_of
from conftest import build, faster_rcnn_cfg, losses_of, make_batch, save_checkpoint, total
from mmengine.config import ConfigDict
from mmengine.hub import get_config

from kd_det.channels import fill_model
from kd_det.errors import ConfigError


def c4(width=8):
    """Faster R-CNN on one map of stride 16, without a neck."""
    cfg = ConfigDict(get_config('mmdet::_base_/models/faster-rcnn_r50-caffe-c4.py').model.to_dict())
    plain = faster_rcnn_cfg(width=width)
    cfg.data_preprocessor = plain.data_preprocessor
    cfg.backbone.update(depth=18, base_channels=width, frozen_stages=-1, style='pytorch', norm_cfg=dict(type='BN'),
                        norm_eval=False, init_cfg=None)
    cfg.rpn_head.update(in_channels=4 * width, feat_channels=16)
    cfg.roi_head.bbox_roi_extractor.out_channels = 4 * width
    cfg.roi_head.pop('shared_head')  # a ResLayer has no narrow form
    cfg.roi_head.bbox_head.update(in_channels=4 * width, roi_feat_size=14, num_classes=2)
    cfg.train_cfg.rcnn.sampler.num = 32
    for part in (cfg.train_cfg.rpn_proposal, cfg.test_cfg.rpn):
        part.update(nms_pre=100, max_per_img=50)
    return cfg


STUDENTS = dict(DETECTORS, c4=c4)


@pytest.fixture(scope='module')
def teacher(made_once):
    """(config, checkpoint) of a wider detector of each kind."""
    return lambda name: made_once(name, STUDENTS[name])


def taught(student, teacher, **options):
    cfg = STUDENTS[student](8)
    cfg.update(student_type=cfg.type, type='FasterRCNNDistiller', **options,
               teacher=dict(config=copy.deepcopy(teacher[0]), checkpoint=teacher[1]))
    return ConfigDict(cfg)


@pytest.mark.parametrize('student, source, options, words', [
    ('retinanet', 'faster_rcnn', dict(rpn_distill=dict()), 'rpn_distill: the student.*RetinaNet.*RPNHead is needed'),
    ('retinanet', 'faster_rcnn', dict(rcnn_distill=dict()), 'rcnn_distill: the student.*RetinaNet.*no two-stage'),
    ('faster_rcnn', 'retinanet', dict(rpn_distill=dict()), 'rpn_distill: the teacher, RetinaNet'),
    ('faster_rcnn', 'retinanet', dict(rcnn_distill=dict()), 'rcnn_distill: the teacher, RetinaNet.*no two-stage'),
    ('sparse_rcnn', 'faster_rcnn', dict(rcnn_distill=dict()), 'rcnn_distill: the student\'s SparseRoIHead'),
    ('c4', 'faster_rcnn', dict(hints=[dict(layer='neck')]), r"hints\[0\].layer: .*no layer 'neck'; its maps are the "
                                                            "backbone's, 'backbone' names them"),
    ('c4', 'faster_rcnn', dict(rpn_distill=dict()), 'rpn_distill: anchors differ at student stride .*15 a place.*'
                                                    '3 a place.*rpn_distill=None'),
])
def test_what_cannot_work_says_why(student, source, options, words, teacher):
    with pytest.raises(ConfigError, match=words):
        build(taught(student, teacher(source), **options))


def test_a_student_type_that_is_not_the_students_is_named(teacher):
    """A two-stage class for a RetinaNet's config used to be a raw TypeError of MMDetection's."""
    cfg = taught('retinanet', teacher('faster_rcnn'), hints=[dict(layer='neck')])
    cfg.student_type = 'TwoStageDetector'
    with pytest.raises(ConfigError, match=r"model: unknown keys \['bbox_head'\].*student_type='TwoStageDetector'"):
        build(cfg)
    cfg = taught('faster_rcnn', teacher('faster_rcnn'), rcnn_distil=dict())
    with pytest.raises(ConfigError, match=r"unknown keys \['rcnn_distil'\].*Did you mean 'rcnn_distill', which Faster"):
        build(cfg)


@pytest.mark.parametrize('student, source, options, names', [
    ('c4', 'faster_rcnn', dict(rcnn_distill=dict(), hints=[dict(layer='backbone')]),
     ['loss_cls_distill', 'loss_hint_backbone']),
    ('c4', 'faster_rcnn', dict(hints=[dict(layer='backbone', teacher_layer='neck')]), ['loss_hint_backbone']),
    ('faster_rcnn', 'c4', dict(rcnn_distill=dict(), hints=[dict(layer='neck', teacher_layer='backbone')]),
     ['loss_cls_distill', 'loss_hint_neck']),
    ('c4', 'cascade_rcnn', dict(rcnn_distill=dict(stages='last')), ['loss_cls_distill']),
    ('retinanet', 'cascade_rcnn', dict(hints=[dict(layer='neck')]), ['loss_hint_neck']),
])
def test_pairs_of_other_strides_and_kinds_train(student, source, options, names, teacher):
    model = build(taught(student, teacher(source), **options), 1)
    losses = losses_of(model, make_batch())
    for name in names:
        assert float(losses[name]) > 0, name
    total(losses).backward()
    assert all(p.grad.abs().sum() > 0 for n, p in model.adapter_parameters().items() if p.dim() > 1), names


FAMILIES = dict(
    mobilenetv2=dict(type='MobileNetV2', widen_factor=0.25, out_indices=(1, 2, 4, 6)),
    regnet=dict(type='RegNet', base_channels=8, arch=dict(w0=8, wa=8.0, wm=2.0, group_w=8, depth=6, bot_mul=1.0)),
    swin=dict(type='SwinTransformer', embed_dims=12, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), window_size=4))


@pytest.mark.parametrize('family', FAMILIES)
def test_backbones_of_other_families_on_either_side(family, tmp_path):
    """By one line, Swin's in a Mask R-CNN; the neck is of another width, images are normalised otherwise."""
    name = 'mask_rcnn' if family == 'swin' else 'faster_rcnn'

    def detector(width):
        cfg = STUDENTS[name](width)
        cfg.backbone = dict(FAMILIES[family])  # the one line
        cfg.neck.in_channels = 'auto'
        cfg.data_preprocessor.update(mean=[0.0] * 3, std=[255.0] * 3)
        fill_model(cfg)
        return cfg
    terms = dict(rpn_distill=dict(), rcnn_distill=dict(), hints=[dict(layer='neck')])
    student = detector(8)
    wide = faster_rcnn_cfg(width=16, channels=24)
    for source in (wide, detector(8)):
        weights = save_checkpoint(build(copy.deepcopy(source), 7), tmp_path / 'teacher.pth')
        own = student if source is wide else STUDENTS['faster_rcnn'](8)
        cfg = ConfigDict(copy.deepcopy(own), student_type=own.type, type='FasterRCNNDistiller', **copy.deepcopy(terms),
                         teacher=dict(config=copy.deepcopy(source), checkpoint=weights))
        model = build(cfg, 1)
        losses = losses_of(model, batch_of(name=name))
        assert {'loss_rpn_cls_distill', 'loss_cls_distill', 'loss_hint_neck'} <= set(losses)
        total(losses).backward()
        first = next(p for p in model.backbone.parameters() if p.dim() == 4)
        assert first.grad.any(), type(model.backbone).__name__
        assert all(p.grad.any() for p in model.adapter_parameters().values() if p.dim() > 1)


@pytest.mark.parametrize('layer, inside', [('backbone.layer2.0.conv1', True), ('backbone.layer2', False)])
def test_checkpointed_blocks(layer, inside, teacher):
    """with_cp runs a block without gradients and again in the backward pass: a hint on its inside would train nothing
    and is refused; one on its output trains exactly as without.
    """
    gradients = []
    for checkpointed in (False, True):
        cfg = taught('faster_rcnn', teacher('faster_rcnn'), hints=[dict(layer=layer)])
        cfg.backbone.with_cp = checkpointed
        model = build(cfg, 1)
        if checkpointed and inside:
            with pytest.raises(ConfigError, match='with_cp=True'):
                losses_of(model, make_batch())
            return
        total(losses_of(model, make_batch())).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(value, gradients[1][name]) for name, value in gradients[0].items())
