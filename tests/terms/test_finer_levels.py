"""A student whose finest level has no equal in the teacher, taught by the teacher's finer levels."""
import copy

import pytest
import torch
from conftest import build, faster_rcnn_cfg, losses_of, make_batch
from mmengine.config import ConfigDict

from kd_det.errors import ConfigError
from kd_det.losses import hint_loss
from kd_det.tap import tap_method
from kd_det.terms.finer_levels import resampled, surest

RPN = dict(rpn_distill=dict(finer_levels=True), rcnn_distill=None, hints=[])
HINT = dict(rpn_distill=None, rcnn_distill=None, hints=[dict(layer='neck', finer_levels=True)])


def half(teacher, scale_factor=2, student=None, **distillation):
    cfg = ConfigDict(student or faster_rcnn_cfg())
    cfg.update(student_type=cfg.type, type='FasterRCNNDistiller',
               teacher=dict(config=copy.deepcopy(teacher[0]), checkpoint=teacher[1], scale_factor=scale_factor,
                            fuse_conv_bn=False, channels_last=False), **copy.deepcopy(distillation))
    return cfg


def answers_of(model, batch, heard=()):
    """The teacher's features and RPN outputs on ``batch``."""
    data = model.data_preprocessor(copy.deepcopy(batch), True)
    teacher = model.teacher.model
    with torch.no_grad():
        features = teacher.extract_feat(model.teacher.prepare(data['inputs'], data['data_samples']))
        return features, teacher.rpn_head(features)


# -- maps
# ---------------------------------------------------------------------------------------------------------------
def test_a_finer_map_is_averaged_over_what_each_cell_covers():
    fine = torch.arange(12.).view(1, 1, 2, 6)
    assert torch.equal(resampled(fine, (1, 3)), torch.tensor([[[[3.5, 5.5, 7.5]]]]))
    # sizes that differ by the rounding of a stride: the last cell has one column, and no other cell moves
    assert torch.equal(resampled(fine[..., :5], (1, 3)), torch.tensor([[[[3.5, 5.5, 7.]]]]))
    # three columns on two cells: each covers one and a half
    assert torch.equal(resampled(torch.tensor([[[[0., 6., 12.]]]]), (1, 2)), torch.tensor([[[[3., 9.]]]]))


@pytest.mark.parametrize('scale, finer', [(2, [(0, 0)]), (3, [(0, 0), (0, 1)])])
def test_hints_of_finer_levels_by_hand(teacher_checkpoint, scale, finer):
    """At three times the resolution no two strides are equal, and the finest two levels of the teacher teach alone."""
    model = build(half(teacher_checkpoint, scale, **HINT), 1)
    term, batch = model.terms[0], make_batch(teacher_scale=scale)
    assert term.finer == finer
    assert term.pairs == ([(0, 1), (1, 2), (2, 3), (3, 4)] if scale == 2 else []) + finer
    assert len(term.adapters) == len(term.pairs)
    plan = '\n'.join(model.plan())
    assert 'student level 0 (16, 64, 64) <- teacher level 0 (24, ' in plan
    assert 'averaged onto it, through ConvAdapter' in plan
    found = losses_of(model, copy.deepcopy(batch))['loss_hint_neck']
    features, _ = answers_of(model, batch)
    ours = model.extract_feat(model.data_preprocessor(copy.deepcopy(batch), True)['inputs'])
    expected = 0
    for adapter, (i, j) in zip(term.adapters, term.pairs):
        hint = features[j]
        if (i, j) in finer and scale == 2:  # 4 places a cell
            hint = sum(hint[..., y::2, x::2] for y in (0, 1) for x in (0, 1)) / 4
        elif (i, j) in finer:
            hint = torch.nn.functional.adaptive_avg_pool2d(hint, ours[i].shape[-2:])
        expected = expected + 0.5 * hint_loss(adapter(ours[i], target_size=hint.shape[-2:]), hint) \
            / len(term.pairs)
    assert float(found) == pytest.approx(float(expected), rel=1e-4)
    found.backward()
    assert all(p.grad.abs().sum() > 0 for p in term.adapters[-1].parameters())


# -- anchors
# ------------------------------------------------------------------------------------------------------------
def test_the_anchor_that_sees_an_object_most_answers():
    """Two cells of one anchor; four finer places in each but for a missing column."""
    anchors = torch.tensor([[0., 0, 8, 8], [4, 0, 12, 8]])
    own = (torch.tensor([[[[0.5, -1.]]]]), torch.full((1, 4, 1, 2), 9.), anchors, 1)
    scores = torch.tensor([[[[0., 0.4, -2.], [0.1, 0.2, -0.5]]]])                                  # (1, 1, 2, 3)
    deltas = torch.arange(6.).view(1, 1, 2, 3).expand(1, 4, 2, 3)
    anchors = torch.arange(6.).view(6, 1).expand(6, 4)
    found = surest([own, (scores, deltas, anchors, 2)], (1, 2), 1)
    assert found[0].flatten().tolist() == [0.5, -0.5]          # the cell's own, and the finer place (1, 2)
    assert found[1].tolist() == [[9.] * 4, [5.] * 4]
    assert found[2].tolist() == [[0, 0, 8, 8], [5.] * 4]
    with_background = torch.stack([scores, scores * 3], 2).flatten(1, 2)  # a softmax's: object, background
    both = surest([(with_background, deltas, anchors, 2)], (1, 2), 2)
    assert both[1][:, 0].tolist() == [0., 2.]                  # the smallest score - 3 score


def test_rpn_terms_of_finer_levels_recomputed_with_loops(teacher_checkpoint):
    """Targets and boxes of the finest level: of its own anchor or the four finer ones below, decoded by hand."""
    losses = dict(rpn_distill=dict(finer_levels=True, hard_weight=0.25,
                                   cls=dict(type='SoftTargetLoss', background_weight=1.0),
                                   bbox=dict(type='BoxMimicryLoss', loss_weight=1.0)), rcnn_distill=None, hints=[])
    model = build(half(teacher_checkpoint, **losses), 1)
    teacher = model.teacher.network
    with torch.no_grad():
        for head in (model.rpn_head, teacher.rpn_head):
            head.rpn_reg.weight.normal_(std=0.3)
            head.rpn_cls.weight.normal_(std=0.3)
    plan = '\n'.join(model.plan())
    assert 'student stride 4 <- teacher stride 8 and 4, whichever anchor sees an object most' in plan
    assert 'student stride 8 <- teacher stride 16\n' in plan and 'teacher strides' not in plan
    batch = make_batch(objects=(4, 3), sizes=((96, 128), (90, 120)), teacher_scale=2)
    calls = []
    with tap_method(model.rpn_head, 'loss_by_feat_single', lambda _, call: calls.append(call)):
        found = losses_of(model, copy.deepcopy(batch))
    _, (scores, deltas) = answers_of(model, batch)
    coder, cls, box, winners = teacher.rpn_head.bbox_coder, 0., 0., [0, 0]
    for i, call in enumerate(calls[:4]):  # stride 64 has no partner
        logits, preds, anchors, labels, label_weights = (call[name] for name in (
            'cls_score', 'bbox_pred', 'anchors', 'labels', 'label_weights'))
        n_images, _, height, width = logits.shape
        grid = [teacher.rpn_head.prior_generator.single_level_grid_priors(
            tuple(scores[j].shape[-2:]), j, device='cpu').view(*scores[j].shape[-2:], 3, 4) for j in range(5)]
        shape = (n_images, height, width, 3)
        for n, y, x, a in (label_weights.view(shape) > 0).nonzero().tolist():
            finer = [(0, 2 * y + dy, 2 * x + dx) for dy in (0, 1) for dx in (0, 1)] if i == 0 else []
            candidates = [(i + 1, y, x), *finer]
            j, v, u = max(candidates, key=lambda at: float(scores[at[0]][n, a, at[1], at[2]]))
            soft, own = scores[j][n, a, v, u].sigmoid(), logits[n, a, y, x]
            cls += float(-soft * own.sigmoid().log() - (1 - soft) * (1 - own.sigmoid()).log())
            if labels.view(shape)[n, y, x, a] == 0:  # the RPN's only class
                winners[j != i + 1] += 1
                here = slice(4 * a, 4 * a + 4)
                seen = coder.decode(grid[j][v, u, a][None], deltas[j][n, here, v, u][None]) / 2
                target = coder.encode(anchors.view(*shape, 4)[n, y, x, a][None], seen)[0]
                box += float((preds[n, here, y, x] - target).square().sum())
    assert min(winners) > 0  # both kinds were met
    assert float(found['loss_rpn_cls_distill']) == pytest.approx(0.75 * cls / calls[0]['avg_factor'], rel=1e-3)
    assert float(found['loss_rpn_bbox_distill']) == pytest.approx(box / calls[0]['avg_factor'], rel=1e-3)


def test_a_small_object_that_the_teacher_sees_on_its_finest_level_alone_is_no_background(teacher_checkpoint):
    """Its RPN is silent everywhere but on stride 4: without finer levels the student's stride 4 hears of no object."""
    batch, seen = make_batch(teacher_scale=2), {}
    for finer in (False, True):
        model = build(half(teacher_checkpoint, rpn_distill=dict(finer_levels=finer, hard_weight=0), rcnn_distill=None,
                           hints=[]), 1)
        head, keep = model.teacher.network.rpn_head, model.teacher.network.rpn_head.forward
        levels = model.teacher.rpn_levels

        def forward(features, keep=keep, levels=levels):
            scores, deltas = keep(features)
            return [torch.full_like(one, 6. if level == 0 else -6.) for level, one in zip(levels, scores)], deltas
        head.forward = forward
        model.terms[0].cls.register_forward_hook(
            lambda _, args, __, finer=finer: seen.update({finer: args[1].sigmoid().flatten()}))
        losses_of(model, copy.deepcopy(batch))
    assert seen[False].max() < 0.01
    assert (seen[True] > 0.99).any() and (seen[True] < 0.01).any()  # stride 8 and coarser are as they were


def test_the_rcnn_teacher_reads_its_finest_level_already(teacher_checkpoint):
    """RoIs at twice the size: which level they are cut out of is decided in the teacher's pixels."""
    model = build(half(teacher_checkpoint, rpn_distill=None, rcnn_distill=dict(), hints=[]), 1)
    extractor = model.teacher.network.roi_head.bbox_roi_extractor
    rois = torch.tensor([[0., 4, 4, 40, 40], [0, 0, 0, 80, 80]])
    assert extractor.map_roi_levels(model.teacher.scale_rois(rois), 4).tolist() == [0, 1]
    assert extractor.map_roi_levels(rois, 4).tolist() == [0, 0]


@pytest.mark.parametrize('scale, distillation, message', [
    (1, RPN, r'rpn_distill\.finer_levels: found True, and no level of the teacher \(strides .*leave it out'),
    (1, HINT, r'hints\[0\]\.finer_levels: found True, and no level of the teacher .*is finer than'),
    (2, dict(HINT, hints=[dict(layer='neck', finer_levels=True, levels=[1, 2])]),
     r'finest level, 0, and levels=\[1, 2\]'),
    (2, dict(HINT, hints=[dict(layer='neck', finer_levels='P2')]), r'hints\[0\]\.finer_levels.*P2'),
    (2, dict(RPN, rpn_distill=dict(finer_levels=1)), r'rpn_distill\.finer_levels.*found 1'),
    (2, dict(HINT, hints=[dict(layer='roi_head.bbox_head.shared_fcs.0', finer_levels=True)]), r'pyramid of maps'),
])
def test_what_cannot_be_is_refused(teacher_checkpoint, scale, distillation, message):
    with pytest.raises(ConfigError, match=message):
        build(half(teacher_checkpoint, scale, **distillation), 1)


def test_other_numbers_of_anchors_on_the_finer_level_are_refused(tmp_path):
    cfg = faster_rcnn_cfg()
    path = tmp_path / 'none.pth'
    student = faster_rcnn_cfg()
    student.rpn_head.anchor_generator.ratios = [0.5, 1.0]
    student.rpn_head.anchor_generator.strides = [6, 12, 24, 48, 96]  # no stride in common: no anchors are compared
    with pytest.raises(ConfigError,
                       match=r'finer_levels: the student has 2 anchors a place at stride 6, the teacher 3'):
        build(half((cfg, str(path)), 2, student, **RPN), 1)


def test_training_learns_from_a_recorded_finest_level(teacher_checkpoint, tmp_path):
    """Recorded answers hold the levels that the terms ask for, and give the live teacher's losses."""
    batch = make_batch(teacher_scale=2)
    for i, sample in enumerate(batch['data_samples']):
        sample.set_metainfo(dict(img_path=f'{i}.png', flip=False))
    cfgs = [half(teacher_checkpoint, rpn_distill=dict(finer_levels=True), hints=HINT['hints']) for _ in range(2)]
    cfgs[1].teacher.record = str(tmp_path / 'record')
    live, recorded = (build(cfg, 1) for cfg in cfgs)
    for _ in range(2):  # recorded, then read
        a, b = (losses_of(model, copy.deepcopy(batch)) for model in (live, recorded))
        for name in live.distill_terms:
            assert float(a[name]) == pytest.approx(float(b[name]), rel=2e-3), name
    assert recorded.teacher.counts == dict(read=2, asked=2)
