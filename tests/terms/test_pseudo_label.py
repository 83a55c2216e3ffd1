"""Pseudo-labels in the step: the student's own loss on the teacher's detections, whatever kind of detector it is."""
import copy

import pytest
import torch
from conftest import build, faster_rcnn_cfg, losses_of, make_batch, save_checkpoint, total
from dense_detectors import dense_cfg, stirred
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData

from kd_det.errors import ConfigError
from kd_det.plain import student_model
from kd_det.sources.passes import Pass
from kd_det.terms import pseudo_label
from kd_det.terms.pseudo_label import confident, with_missed

HEADS = ('retinanet', 'atss', 'gfl', 'fcos', 'paa', 'ddod', 'tood', 'rtmdet', 'yolox')
SIZES, COUNTS = ((64, 96), (64, 64), (64, 96)), (3, 2, 0)
FOUND = [  # boxes, labels, scores of each image; the second has none, the third no object but a detection
    ([[4., 4, 40, 40], [50, 10, 90, 60], [0, 0, 9, 9]], [0, 1, 1], [0.9, 0.6, 0.2]), ([], [], []),
    ([[10., 10, 60, 50]], [1], [0.5])]

pytestmark = pytest.mark.usefixtures('late_epoch')


def instances(boxes, labels, scores):
    return InstanceData(bboxes=torch.tensor(boxes).view(-1, 4), labels=torch.tensor(labels, dtype=torch.long),
                        scores=torch.tensor(scores))


@pytest.fixture
def finds(monkeypatch):
    """What the teacher detects, given; ``finds(found)`` changes it."""
    def set_to(found):
        monkeypatch.setattr(Pass, 'detections', lambda self: [instances(*image) for image in found])
    set_to(FOUND)
    return set_to


def batch():
    return make_batch(SIZES, COUNTS, seed=3)


def taught_cfg(student, taught, weight=0.5, **term):
    options = {key: term.pop(key) for key in ('unlabelled', 'ground_truth') if key in term}
    cfg = ConfigDict(copy.deepcopy(student))
    scale = term.pop('scale_factor', 1)
    cfg.update(student_type=cfg.type, type='Distiller',
               teacher=dict(config=taught[0].to_dict(), checkpoint=taught[1], fuse_conv_bn=False, scale_factor=scale),
               terms=[dict(type='PseudoLabel', weight=weight, **term)], **options)
    return cfg


def model_of(kind, taught, **term):
    return stirred(build(taught_cfg(dense_cfg(kind), taught, **term), 1))


def on_objects(kind, found):
    """Losses of the plain student where the samples are annotated with ``found``: an independent way to the term."""
    data = batch()
    for sample, image in zip(data['data_samples'], found):
        sample.gt_instances = image
    return losses_of(stirred(build(dense_cfg(kind), 1)), data)


@pytest.mark.parametrize('kind', HEADS)
def test_it_is_the_heads_own_loss_on_the_detections(kind, teacher_checkpoint, finds):
    """For every head, a two-stage teacher; what the teacher misses stays an object, what it is unsure of is none."""
    model = model_of(kind, teacher_checkpoint, power=0)
    losses = losses_of(model, batch())
    truths = [sample.gt_instances for sample in batch()['data_samples']]
    wanted = on_objects(kind, [with_missed(confident(instances(*image), 0.5, 1), truth)
                               for image, truth in zip(FOUND, truths)])
    assert losses['loss_pseudo_label'].item() == pytest.approx(0.5 * float(total(wanted)), rel=1e-5)
    assert losses['pseudo_labels'].item() == pytest.approx(3 / 3)  # two and one of three images; 0.2 is too low
    plain = losses_of(stirred(build(dense_cfg(kind), 1)), batch())
    assert all(torch.equal(torch.as_tensor(losses[name]), torch.as_tensor(plain[name])) for name in plain
               if not isinstance(plain[name], list))  # the student's own losses are what they were
    losses['loss_pseudo_label'].backward()
    reached = [parameter.grad.abs().sum() for parameter in model.parameters() if parameter.grad is not None]
    assert sum(reached) > 0 and torch.isfinite(sum(reached))
    assert set(model.state_dict()) == set(build(dense_cfg(kind)).state_dict())


@pytest.mark.parametrize('kind', ['retinanet', 'gfl', 'fcos'])
def test_scores_weigh_positives(kind, teacher_checkpoint, finds):
    """All scores 0.64: the losses of positives are 0.64 times, at power 2 0.64^2 times, those of certain detections."""
    boxes, labels = [[4., 4, 40, 40], [50, 10, 90, 60]], [0, 1]
    values = {}
    for score, power in ((1.0, 1), (0.64, 1), (0.64, 2), (0.64, 0)):
        finds([(boxes, labels, [score] * 2)] * 3)
        model = model_of(kind, teacher_checkpoint, weight=1., power=power)
        model.bbox_head.loss_cls.loss_weight = 0.  # what is left is of positives alone
        data = batch()
        for sample in data['data_samples']:
            sample.gt_instances = sample.gt_instances[:0]
        values[score, power] = losses_of(model, data)['loss_pseudo_label'].item()
    whole = values[1.0, 1]
    assert whole > 0.1 and values[0.64, 0] == pytest.approx(whole)
    assert values[0.64, 1] == pytest.approx(0.64 * whole, rel=1e-5)
    assert values[0.64, 2] == pytest.approx(0.64**2 * whole, rel=1e-5)
    assert model_of(kind, teacher_checkpoint).terms[0].power == 1
    assert model_of('ddod', teacher_checkpoint).terms[0].power == 0


def test_objects_that_are_missed_are_added():
    """A box of another class, or one that overlaps by less than a half, finds nothing."""
    truth = InstanceData(bboxes=torch.tensor([[0., 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50]]),
                         labels=torch.tensor([0, 1, 1]))
    found = instances([[0., 0, 10, 8], [20, 20, 30, 30], [40, 40, 44, 50]], [0, 0, 1], [0.9, 0.8, 0.7])
    both = with_missed(found, truth)
    assert torch.equal(both.bboxes, torch.cat([found.bboxes, truth.bboxes[1:]]))
    assert both.labels.tolist() == [0, 0, 1, 1, 1] and torch.allclose(both.scores, torch.tensor([.9, .8, .7, 1, 1]))
    assert len(with_missed(found, truth[:0])) == 3 and len(with_missed(found[:0], truth)) == 3


def test_a_larger_view_gives_boxes_in_the_students_pixels():
    kept = confident(instances([[8., 16, 32, 64], [0, 0, 2, 2]], [1, 0], [0.5, 0.49]), 0.5, 4)
    assert kept.bboxes.tolist() == [[2, 4, 8, 16]] and kept.labels.tolist() == [1]


@pytest.mark.parametrize('teacher', ['faster_rcnn', 'gfl', 'retinanet'])
@pytest.mark.parametrize('scale', [1, 2])
def test_detections_are_those_of_the_detector(teacher, scale, tmp_path):
    """As the teacher predicts on its own images, though its features are computed once for all terms."""
    cfg = faster_rcnn_cfg(16) if teacher == 'faster_rcnn' else dense_cfg(teacher, 16)
    if teacher != 'faster_rcnn':
        cfg.test_cfg.score_thr = 0.0  # a fresh head is sure of nothing
    own = build(copy.deepcopy(cfg), 7)
    if teacher != 'faster_rcnn':
        stirred(own)
    path = save_checkpoint(own, tmp_path / 't.pth')
    model = model_of('gfl', (cfg, path), scale_factor=scale)
    data = model.data_preprocessor(make_batch(SIZES, COUNTS, seed=3, teacher_scale=scale if scale > 1 else 0), True)
    opened = model.teacher.open(data['inputs'], data['data_samples'])
    found = opened.detections()
    assert sum(map(len, found)) > 5 and opened.detections()[0] is found[0]
    own.eval()
    samples = copy.deepcopy(data['data_samples'])
    for sample in samples:
        meta = sample.metainfo
        sample.set_metainfo(dict(img_shape=tuple(scale * side for side in meta['img_shape'][:2])))
    with torch.no_grad():
        wanted = own.predict(opened.inputs, samples, rescale=False)
    for one, sample in zip(found, wanted):
        assert len(one) == len(sample.pred_instances)
        assert torch.allclose(one.bboxes, sample.pred_instances.bboxes, atol=1e-3)
        assert torch.allclose(one.scores, sample.pred_instances.scores, atol=1e-5)


def test_weight_0_is_plain_and_prediction_is_the_students(teacher_checkpoint):
    plain, off = build(dense_cfg('gfl'), 1), build(taught_cfg(dense_cfg('gfl'), teacher_checkpoint, weight=0.), 1)
    one, two = losses_of(plain, batch()), losses_of(off, batch())
    assert list(one) == list(two) and all(map(torch.equal, map(torch.stack, one.values()),
                                              map(torch.stack, two.values())))
    assert student_model(taught_cfg(dense_cfg('gfl'), teacher_checkpoint)) == dense_cfg('gfl')
    taught = build(taught_cfg(dense_cfg('gfl'), teacher_checkpoint), 1).eval()
    data = plain.eval().data_preprocessor(batch(), False)
    with torch.no_grad():
        ours, theirs = (model.predict(data['inputs'], copy.deepcopy(data['data_samples'])) for model in (taught, plain))
    assert all(torch.equal(a.pred_instances.bboxes, b.pred_instances.bboxes) for a, b in zip(ours, theirs))


def test_images_without_labels_and_without_ground_truth(teacher_checkpoint, finds):
    """There D is the detections alone: the same loss, whatever objects the samples have."""
    model = model_of('gfl', teacher_checkpoint, unlabelled=dict(weight=2.0), weight=0.5, power=0)
    data = batch()
    model.unlabelled.take(copy.deepcopy(data))
    losses = losses_of(model, batch())
    wanted = on_objects('gfl', [confident(instances(*image), 0.5, 1) for image in FOUND])
    # batch norms have moved by the labelled batch, and normalise by the batch itself
    assert losses['unlabelled.loss_pseudo_label'].item() == pytest.approx(2 * 0.5 * float(total(wanted)), rel=1e-4)
    alone = losses_of(model_of('gfl', teacher_checkpoint, ground_truth=False), batch())
    assert set(alone) == {'loss_pseudo_label', 'pseudo_labels'} and alone['loss_pseudo_label'] > 0


def test_a_teacher_that_finds_nothing_is_an_error(teacher_checkpoint, finds, monkeypatch):
    """It would teach that all is background."""
    monkeypatch.setattr(pseudo_label, 'LOOKED_AT', 2)
    finds([([], [], [])] * 3)
    model = model_of('gfl', teacher_checkpoint)
    losses_of(model, batch())
    with pytest.raises(ConfigError, match=r'\.score_thr: the teacher has found nothing with a score of 0\.5 in 2'):
        losses_of(model, batch())
    finds(FOUND)
    model = model_of('gfl', teacher_checkpoint)
    losses_of(model, batch())
    finds([([], [], [])] * 3)
    assert all(losses_of(model, batch())['pseudo_labels'] == 0 for _ in range(3))


@pytest.mark.parametrize('student, term, words', [
    (faster_rcnn_cfg(), {}, 'has no dense bbox_head; a single-stage detector is needed'),
    (dense_cfg('gfl', num_classes=3), {}, r'terms\[0\]: the student scores 3 classes, the teacher 2'),
    (dense_cfg('ddod'), dict(power=1),
     r'terms\[0\]\.power: found 1, and which object DDODHead gives a prior is not known'),
    (dense_cfg('gfl'), dict(weight=-1), r'terms\[0\]\.weight: found -1'),
    (dense_cfg('gfl'), dict(score_thr=1), r'terms\[0\]\.score_thr: found 1; it must be less than 1'),
    (dense_cfg('gfl'), dict(threshold=0.5), r'threshold')])
def test_what_cannot_be_is_said_at_build_time(student, term, words, teacher_checkpoint):
    with pytest.raises(ConfigError, match=words):
        build(taught_cfg(student, teacher_checkpoint, **term))


def test_soft_labels_of_a_two_stage_teacher_name_what_would_do(teacher_checkpoint):
    """Soft labels, BCKD and the like compare prior by prior, and such a teacher has no dense head to compare with."""
    for kind in ('SoftLabel', 'BCKD', 'CrossHead'):
        cfg = taught_cfg(dense_cfg('gfl'), teacher_checkpoint)
        cfg.terms = [dict(type=kind)]
        with pytest.raises(ConfigError, match=r'teacher\.config: .*has no dense bbox_head.*PseudoLabel'):
            build(cfg)
