"""record and replay: the same decisions give the same loss; the teacher's positives become the student's."""
import copy
import functools

import pytest
import torch
from conftest import build, make_batch, total
from dense_detectors import dense_cfg

from kd_det.assignment.dynamic import decisions_of_batch, dynamic_assigners
from kd_det.assignment.record import record
from kd_det.assignment.replay import replay
from kd_det.errors import AssignmentMismatch, ConfigError

DYNAMIC = ('paa', 'rtmdet', 'tood', 'yolox', 'ddod')
COUNTS = (4, 0, 6)


pytestmark = pytest.mark.usefixtures('late_epoch')


@functools.cache
def model_of(kind, seed, width=8):
    model = build(dense_cfg(kind, width=width), seed).eval()  # eval: no batch norm statistics move
    with torch.no_grad():  # fresh heads all predict the same
        for parameter in model.bbox_head.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
        for layer in getattr(model.bbox_head, 'rtm_reg', ()):  # or RTMDet's boxes are empty
            layer.bias += 2
    return model


@functools.cache
def data_of(kind):
    data = model_of(kind, 1).data_preprocessor(make_batch(sizes=((96, 128),) * 3, objects=COUNTS, seed=3), True)
    return data['inputs'], data['data_samples']


def decide(model, kind, samples=None, stop=True):
    inputs, own = data_of(kind)
    samples = own if samples is None else samples
    count = decisions_of_batch(model.bbox_head, [len(s.gt_instances) for s in samples]) if stop else None
    with torch.no_grad(), record(model.bbox_head, count) as assignments:
        model.loss(inputs, samples)
    return assignments


def loss_and_gradient(model, kind, assignments=None, copy_quality=False, samples=None):
    inputs, own = data_of(kind)
    model.zero_grad()
    if hasattr(model.bbox_head, 'cls_num_pos_samples_per_level'):  # DDOD weighs levels by a running count
        model.bbox_head.cls_num_pos_samples_per_level = [0.] * 5
    if assignments is None:
        loss = total(model.loss(inputs, samples or own))
    else:
        with replay(model.bbox_head, assignments, copy_quality):
            loss = total(model.loss(inputs, samples or own))
    loss.backward()
    return loss.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def positives(assignments):
    """(decision, prior, object's label) of every positive."""
    found = []
    for i, decision in enumerate(assignments.decisions):
        result = decision.result
        labels = result[0] if isinstance(result, tuple) else torch.where(result.gt_inds > 0, result.labels, 2)
        found += [(i, prior, int(labels[prior])) for prior in (labels < 2).nonzero().flatten().tolist()]
    return found


@pytest.mark.parametrize('kind', DYNAMIC)
def test_a_heads_own_decisions_give_its_own_loss_and_gradient(kind):
    model = model_of(kind, 1)
    plain, plain_gradient = loss_and_gradient(model, kind)
    for quality in (False, True):
        loss, gradient = loss_and_gradient(model, kind, decide(model, kind), quality)
        assert torch.equal(loss, plain) and float((gradient - plain_gradient).abs().max()) < 1e-6


@pytest.mark.parametrize('kind', DYNAMIC)
def test_the_students_positives_are_the_teachers_and_not_its_own(kind):
    student, teacher = model_of(kind, 1), model_of(kind, 2, 16)
    taught, own = decide(teacher, kind), decide(student, kind)
    assert positives(taught) != positives(own) and len(positives(taught)) > 5
    used = []
    sampler = getattr(student.bbox_head, 'sampler', None)
    if kind == 'paa':  # what the loss is computed with
        original = student.bbox_head.loss_cls.forward

        def spy(scores, labels, *args, **kwargs):
            used.append(labels)
            return original(scores, labels, *args, **kwargs)
        student.bbox_head.loss_cls.forward = spy
    else:
        original = sampler.sample

        def spy(assign_result, *args, **kwargs):
            used.append(torch.where(assign_result.gt_inds > 0, assign_result.labels, 2))
            return original(assign_result, *args, **kwargs)
        sampler.sample = spy
    try:
        loss_and_gradient(student, kind, taught)
    finally:
        vars(student.bbox_head.loss_cls if kind == 'paa' else sampler).pop('forward' if kind == 'paa' else 'sample')
    expected = [d.result[0] if kind == 'paa' else torch.where(d.result.gt_inds > 0, d.result.labels, 2)
                for d in taught.decisions]
    assert torch.equal(torch.cat(used), torch.cat(expected))


@pytest.mark.parametrize('kind', ['rtmdet', 'yolox', 'tood'])
def test_quality_is_the_students_own_unless_copied(kind):
    """IoU of the student's boxes at the teacher's positives, recomputed by hand."""
    from mmdet.structures.bbox import bbox_overlaps
    student, teacher = model_of(kind, 1), model_of(kind, 2, 16)
    taught = decide(teacher, kind)
    seen = {False: [], True: []}
    for copied in seen:
        original = student.bbox_head.sampler.sample

        def spy(result, predicted, gts, *args, original=original, into=seen[copied], **kwargs):
            into.append((copy.copy(result), predicted.clone(), gts))
            return original(result, predicted, gts, *args, **kwargs)
        student.bbox_head.sampler.sample = spy
        try:
            loss_and_gradient(student, kind, taught, copied)
        finally:
            del student.bbox_head.sampler.sample
    for (own, predicted, gts), (theirs, _, _), decision in zip(seen[False], seen[True], taught.decisions):
        index = (own.gt_inds > 0).nonzero().flatten()
        if len(index) == 0:
            continue
        ious = bbox_overlaps(predicted.bboxes[index], gts.bboxes[own.gt_inds[index] - 1], is_aligned=True)
        assert torch.allclose(own.max_overlaps[index], ious)
        assert torch.equal(theirs.max_overlaps, decision.result.max_overlaps)
        assert not torch.allclose(own.max_overlaps[index], theirs.max_overlaps[index])
        if kind == 'tood':
            scores = predicted.scores[index, gts.labels[own.gt_inds[index] - 1]]
            assert torch.allclose(own.assign_metrics[index], scores * ious**6)  # alpha 1, beta 6
            assert torch.equal(theirs.assign_metrics, decision.result.assign_metrics)


@pytest.mark.parametrize('kind', DYNAMIC)
def test_recording_stops_at_the_last_decision(kind, monkeypatch):
    """No loss is computed that nobody wants, and the record is that of the whole loss."""
    model = model_of(kind, 1)
    whole = decide(model, kind, stop=False)
    monkeypatch.setattr(model.bbox_head.loss_bbox, 'forward', _forbid_batch_loss(model.bbox_head.loss_bbox.forward))
    assert positives(decide(model, kind)) == positives(whole)
    assert decisions_of_batch(model.bbox_head, list(COUNTS)) == len(whole)
    assert all(name not in vars(owner) for owner in (model.bbox_head, *dynamic_assigners(model.bbox_head).values())
               for name in ('assign', 'paa_reassign', 'get_targets', 'get_pos_loss'))


def _forbid_batch_loss(forward):
    def guarded(*args, reduction_override=None, **kwargs):
        assert reduction_override == 'none', 'a loss over the batch was computed'
        return forward(*args, reduction_override=reduction_override, **kwargs)
    return guarded


def test_a_record_is_a_copy_and_can_be_replayed_again():
    teacher, student = model_of('tood', 2, 16), model_of('tood', 1)
    taught = decide(teacher, 'tood')
    first, _ = loss_and_gradient(student, 'tood', taught)
    second, _ = loss_and_gradient(student, 'tood', taught)
    assert torch.equal(first, second)


@pytest.mark.parametrize('kind', ['paa', 'rtmdet'])
def test_a_mismatch_says_what_differs(kind):
    student, (_, samples) = model_of(kind, 1), data_of(kind)
    taught = decide(model_of(kind, 2, 16), kind)

    def changed(change):
        other = copy.deepcopy(samples)
        change(other[2].gt_instances)
        return other

    def shift(gts):
        gts.bboxes[1] += 2

    def relabel(gts):
        gts.labels[0] = 1 - gts.labels[0]
    with pytest.raises(AssignmentMismatch, match=r'decision 3.*ground-truth boxes differ, first at 1'):
        loss_and_gradient(student, kind, taught, samples=changed(shift))
    with pytest.raises(AssignmentMismatch, match=r'decision 3.*ground-truth labels differ, first at 0'):
        loss_and_gradient(student, kind, taught, samples=changed(relabel))
    fewer = copy.copy(taught)
    fewer.decisions = taught.decisions[:2]
    with pytest.raises(AssignmentMismatch, match='asks for decision 3'):
        loss_and_gradient(student, kind, fewer)
    more = copy.copy(taught)
    more.decisions = taught.decisions + taught.decisions[-1:]
    with pytest.raises(AssignmentMismatch, match=r'asked for 3 decisions; .* made 4'):
        loss_and_gradient(student, kind, more)
    swapped = copy.deepcopy(taught)
    swapped.decisions[0].source = 'other_assigner'
    with pytest.raises(AssignmentMismatch, match='had asked other_assigner'):
        loss_and_gradient(student, kind, swapped)
    moved = copy.deepcopy(taught)
    name = next(n for n in moved.decisions[1].evidence if n.startswith('priors'))
    priors = moved.decisions[1].evidence[name]
    moved.decisions[1].evidence[name] = priors.clone()
    moved.decisions[1].evidence[name][7] += 1
    with pytest.raises(AssignmentMismatch, match=rf'decision 2 .*{name} differ, first at 7'):
        loss_and_gradient(student, kind, moved)
    moved.decisions[1].evidence[name] = priors[:-1]
    with pytest.raises(AssignmentMismatch, match='pad_size_divisor'):
        loss_and_gradient(student, kind, moved)
    assert 'assign' not in vars(getattr(student.bbox_head, 'assigner', None))  # nothing stays behind
    assert 'paa_reassign' not in vars(student.bbox_head)


def test_paa_candidates_must_agree():
    """The positives of a teacher that looked among other candidates would have no box targets in the student."""
    cfg = dense_cfg('paa')
    cfg.train_cfg.assigner.update(pos_iou_thr=0.3, neg_iou_thr=0.3)
    taught = decide(build(cfg, 2).eval(), 'paa')
    with pytest.raises(AssignmentMismatch, match=r'candidates.*train_cfg'):
        loss_and_gradient(model_of('paa', 1), 'paa', taught)


@pytest.mark.parametrize('kind, reason', [
    ('atss', 'only at priors'), ('gfl', 'only at priors'), ('retinanet', 'only at priors'), ('fsaf', 'only at priors'),
    ('vfnet', 'only at priors'), ('fcos', 'without an assigner'), ('yolof', 'cut the student')])
def test_heads_without_decisions_to_hand_over_are_refused(kind, reason):
    with pytest.raises(ConfigError, match=reason) as error:
        dynamic_assigners(build(dense_cfg(kind), 1).bbox_head)
    assert 'SoftLabelDistiller' in str(error.value)


def test_detr_and_a_head_without_train_cfg_are_refused():
    from mmdet.models.dense_heads import DETRHead
    with pytest.raises(ConfigError, match='query i'):
        dynamic_assigners(DETRHead.__new__(DETRHead))
    cfg = dense_cfg('rtmdet')
    cfg.pop('train_cfg')
    with pytest.raises(ConfigError, match='train_cfg'):
        dynamic_assigners(build(cfg).bbox_head)


def test_tood_static_epochs_make_no_decision(late_epoch):
    late_epoch.update_info('epoch', 0)
    assert len(decide(model_of('tood', 1), 'tood', stop=False)) == 0
