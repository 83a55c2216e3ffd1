"""Positives and label weights of every dense head, against the head's own numbers and against its own class loss."""
import pytest
import torch
from conftest import build, make_batch
from dense_detectors import dense_cfg
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from torch import nn

from kd_det.errors import ConfigError
from kd_det.heads import dense_targets
from kd_det.heads.dense_targets import reader_of
from kd_det.sources.layers import Captured
from kd_det.tap import tap_method
from kd_det.terms.dense import check_targets, hear_targets, student_outputs, student_targets
from kd_det.terms.step import Step

HEADS = ('retinanet', 'atss', 'gfl', 'fcos', 'paa', 'ddod', 'tood', 'rtmdet', 'yolox')
# a narrow image in a wide batch: padding is outside the image
BATCH = dict(sizes=((96, 128), (96, 64), (64, 64)), objects=(3, 2, 0), seed=3)


pytestmark = pytest.mark.usefixtures('late_epoch')


def heard(model, batch, around=None):
    """(targets, outputs, losses, calls of reduce_mean, calls of the class loss) of one step."""
    data = model.data_preprocessor(batch, True)
    step = Step(model, data['inputs'], data['data_samples'], Captured(model, {}))
    calls = []
    with step.listening():
        hear_targets(step)
        with tap_method(model.bbox_head.loss_cls, 'forward', lambda result, args: calls.append(list(args.values()))):
            losses = type(model).loss(model, data['inputs'], data['data_samples'])
    return student_targets(step), student_outputs(step), losses, calls


@pytest.mark.parametrize('kind', HEADS)
def test_positives_and_weights_are_those_of_the_heads_own_class_loss(kind):
    model = build(dense_cfg(kind), 1)
    targets, outputs, _, calls = heard(model, make_batch(**BATCH))
    images, priors = outputs.logits.shape[:2]
    assert targets.positive.shape == targets.label_weights.shape == (images, priors)
    assert sum(targets.level_sizes) == priors and not targets.positive[2].any()
    assert targets.positive[0].any() and targets.positive[1].any()
    if kind == 'yolox':  # its class loss is over positives alone
        assert sum(len(call[0]) for call in calls) == int(targets.positive.sum())
        assert bool((targets.label_weights == 1).all())
        return
    calls = [call for call in calls if len(call) < 5 or call[4] is None]  # PAA's costs are without reduction
    levels = len(targets.level_sizes)
    assert len(calls) == (1 if kind in ('fcos', 'paa') else levels)
    for level, (logits, labels, weights, *_) in enumerate(calls):
        labels = labels[0] if isinstance(labels, tuple) else labels  # quality focal losses take (labels, scores)
        if kind == 'fcos':  # all levels at once, each image by image
            ours = torch.cat([part.flatten() for part in targets.per_level(targets.positive)])
            weights = torch.ones_like(ours, dtype=torch.float32)
            shown = torch.cat([part.flatten(0, 1) for part in targets.per_level(outputs.logits)])
            own = torch.cat([part.flatten() for part in targets.per_level(targets.label_weights)])
        elif kind == 'paa':  # all images at once
            ours, own, shown = targets.positive.flatten(), targets.label_weights.flatten(), outputs.logits.flatten(0, 1)
        else:
            ours, own, shown = (targets.per_level(part)[level].flatten(0, 1) for part in (
                targets.positive, targets.label_weights, outputs.logits))
        assert torch.equal(ours, (labels.flatten() >= 0) & (labels.flatten() < 2))
        assert torch.equal(own, weights.flatten())
        # the same priors in the same order: the logits that the class loss saw (TOOD: probabilities)
        torch.testing.assert_close(shown, logits.logit() if kind == 'tood' else logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('kind', HEADS)
def test_the_normaliser_is_the_count_at_least_one(kind, monkeypatch):
    model = build(dense_cfg(kind), 1)
    targets, *_ = heard(model, make_batch(**BATCH))
    assert float(targets.normaliser) == int(targets.positive.sum()) > 1
    if kind in ('retinanet', 'atss', 'gfl', 'ddod', 'fcos', 'paa'):  # heads whose own average is the count
        found = []
        loss = model.bbox_head.loss_cls
        with tap_method(loss, 'forward', lambda result, args: found.append((args['avg_factor'],
                                                                            args['reduction_override']))):
            heard(model, make_batch(**BATCH))
        own = {float(average) for average, override in found if override is None}
        # samplers count at least one positive an image
        least = 0 if kind in ('fcos', 'paa') else 1
        assert own == {float(targets.positive.sum(1).clamp(min=least).sum())}
    nothing, *_ = heard(model, make_batch(sizes=((64, 64),) * 2, objects=(0, 0)))
    assert float(nothing.normaliser) == 1 and not nothing.positive.any()
    # ranks: the mean of their counts
    monkeypatch.setattr(dense_targets, 'reduce_mean', lambda count: (count + 4) / 2)
    again, *_ = heard(model, make_batch(**BATCH))
    assert float(again.normaliser) == (int(again.positive.sum()) + 4) / 2


@pytest.mark.parametrize('kind', ['retinanet', 'atss', 'gfl', 'ddod', 'tood', 'paa', 'rtmdet'])
def test_priors_in_the_padding_have_weight_0(kind):
    model = build(dense_cfg(kind), 1)
    targets, outputs, *_ = heard(model, make_batch(sizes=((96, 128), (96, 64)), objects=(2, 2), seed=3))
    x = (outputs.priors[:, 0] + outputs.priors[:, 2]) / 2 if kind != 'rtmdet' else outputs.priors[:, 0]
    outside = x > 64 + outputs.strides
    assert outside.any() and not targets.label_weights[1, outside].any() and not targets.positive[1, outside].any()
    assert targets.label_weights[0, outside].any() and targets.label_weights[1, x < 64].any()


def test_ddod_assigns_its_boxes_apart():
    model = build(dense_cfg('ddod'), 1)
    with torch.no_grad():  # predictions take part in the choice
        model.bbox_head.atss_cls.bias += torch.randn(len(model.bbox_head.atss_cls.bias))
        model.bbox_head.atss_reg.weight += 0.5 * torch.randn_like(model.bbox_head.atss_reg.weight)
    found = {}
    head = model.bbox_head
    with tap_method(head, 'get_cls_targets', lambda r, a: found.update(cls=r)), \
            tap_method(head, 'get_reg_targets', lambda r, a: found.update(box=r)):
        targets, *_ = heard(model, make_batch(**BATCH))
    for ours, own in ((targets, found['cls']), (targets.box, found['box'])):
        assert torch.equal(ours.positive, torch.cat(own[1], 1) < 2)
        assert float(ours.normaliser) == own[-1] - 1  # samplers count at least one an image
    others, *_ = heard(build(dense_cfg('gfl'), 1), make_batch(**BATCH))
    assert others.box is others


def test_paa_counts_what_its_mixtures_leave_and_what_a_replayed_assignment_says():
    model = build(dense_cfg('paa'), 1)
    decided, first = [], []
    head = model.bbox_head
    with tap_method(head, 'paa_reassign', lambda r, a: decided.append(r)), \
            tap_method(head, 'get_targets', lambda r, a: first.append(r)):
        targets, *_ = heard(model, make_batch(**BATCH))
    assert float(targets.normaliser) == sum(int(result[3]) for result in decided)
    assert int(targets.positive.sum()) < sum(len(candidates) for candidates in first[0][4])
    assert torch.equal(targets.positive, torch.stack([result[0] for result in decided]) < 2)
    # as in label assignment distillation: another network's decision stands in for the head's own
    nothing = [(torch.full_like(r[0], 2), torch.zeros_like(r[1]), r[2], 0) for r in decided]
    places = iter(nothing)
    head.paa_reassign = lambda *args, **kwargs: next(places)
    targets, *_ = heard(model, make_batch(**BATCH))
    assert not targets.positive.any() and not targets.label_weights.any()


def test_a_level_without_positives_has_its_priors():
    model = build(dense_cfg('gfl'), 1)
    targets, *_ = heard(model, make_batch(**BATCH))
    counts = [int(level.sum()) for level in targets.per_level(targets.positive)]
    assert 0 in counts and sum(counts) == int(targets.positive.sum()) and len(counts) == 5
    assert all(bool(level.any()) for level in targets.per_level(targets.label_weights)[:4])


class HalfHead(BaseDenseHead):
    """A head of nobody's."""

    def loss_by_feat(self, **kwargs):
        return {}


@pytest.mark.parametrize('kind', ['vfnet', 'yolof', 'fsaf'])
def test_heads_without_one_hard_assignment_are_refused(kind):
    with pytest.raises(ConfigError, match=r'bbox_head: which priors of \w+ are positive cannot be heard.*GFLHead'):
        check_targets('terms[0]', build(dense_cfg(kind)))


def test_unknown_heads_and_students_without_ground_truth_are_refused():
    with pytest.raises(ConfigError, match='bbox_head: which priors of HalfHead'):
        reader_of(HalfHead(), 'bbox_head')
    model = build(dense_cfg('gfl'))
    model.ground_truth = False
    with pytest.raises(ConfigError, match=r'model.ground_truth: False, and terms\[0\] is divided by the positives'):
        check_targets('terms[0]', model)
    with pytest.raises(ConfigError, match='no dense bbox_head'):
        check_targets('terms[0]', nn.Module())


def test_a_head_that_decides_twice_is_an_error():
    model = build(dense_cfg('gfl'), 1)
    own = model.bbox_head.loss_by_feat
    model.bbox_head.loss_by_feat = lambda *args, **kwargs: own(*args, **kwargs) and own(*args, **kwargs)
    with pytest.raises(RuntimeError, match=r'GFLHead decided about \d+ priors in its loss; 3 images have \d+'):
        heard(model, make_batch(**BATCH))
