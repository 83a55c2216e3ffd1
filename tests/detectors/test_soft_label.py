"""SoftLabelDistiller and SoLAD: the formula by hand, every head's boxes, limits."""
import copy
import functools

import pytest
import torch
from conftest import build, losses_of, make_batch, save_checkpoint, total
from dense_detectors import dense_cfg, stirred
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from seen_by_loops import between_scores, seen_by_loops

from kd_det.errors import ConfigError
from kd_det.heads.dense_outputs import DenseOutputs, decoder_of, training_format
from kd_det.plain import student_model

HEADS = ('retinanet', 'atss', 'gfl', 'fcos', 'paa', 'ddod', 'tood', 'rtmdet', 'yolox')
FACTORS = dict(atss='centerness', fcos='centerness', paa='iou', ddod='iou', yolox='objectness')
BATCH = dict(sizes=((64, 96),) * 3, objects=(3, 0, 4), seed=3)
OFF = dict(cls=dict(loss_weight=0), bbox=dict(loss_weight=0), score_factor=None)


pytestmark = pytest.mark.usefixtures('late_epoch')


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp('teachers')

    @functools.cache
    def of(kind):
        return dense_cfg(kind, width=16), save_checkpoint(stirred(build(dense_cfg(kind, width=16), 7)),
                                                          folder / f'{kind}.pth')
    return of


def soft_cfg(student, taught, kind='SoftLabelDistiller', **options):
    cfg = ConfigDict(copy.deepcopy(student))
    cfg.update(student_type=cfg.type, type=kind, **copy.deepcopy(options), teacher=dict(
        config=copy.deepcopy(taught[0]), checkpoint=taught[1], fuse_conv_bn=False, channels_last=False))
    return cfg


def outputs_of(model, batch):
    data = model.data_preprocessor(batch, True)
    head = model.bbox_head
    with torch.no_grad(), training_format(head):
        outputs = head(model.extract_feat(data['inputs']))
    return DenseOutputs.of(head, decoder_of(head, 'x'), outputs), data


@pytest.mark.parametrize('kind', [kind for kind in HEADS if kind != 'paa'])  # PAA cannot leave out its NMS
def test_boxes_are_those_that_the_head_predicts(kind):
    """Decoded boxes against the head's own prediction path, without a threshold and without NMS."""
    model = stirred(build(dense_cfg(kind), 1)).eval()
    found, data = outputs_of(model, make_batch(**BATCH))
    metas = [s.metainfo for s in data['data_samples']]
    for meta in metas:
        meta['img_shape'] = (10_000, 10_000)  # predictions are cut at the image's border
    cfg = ConfigDict(nms_pre=-1, score_thr=0, min_bbox_size=-1)
    with torch.no_grad():
        outputs = model.bbox_head(model.extract_feat(data['inputs']))
        predicted = model.bbox_head.predict_by_feat(*outputs, batch_img_metas=metas, cfg=cfg, with_nms=False)
    for image, results in enumerate(predicted):
        boxes, scores = found.boxes(image), found.logits[image].sigmoid()
        index = results.scores.argsort(descending=True)[:5]
        for box, label, score in zip(results.bboxes[index], results.labels[index], results.scores[index]):
            if bool((box > 0).all()):  # not cut at 0
                whole = found.factor is None or kind == 'yolox'  # the logits are those of the score in prediction
                distance = (boxes - box).abs().amax(1) + (scores[:, label] - score).abs() * whole
                assert float(distance.min()) < 1e-2


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('kind', HEADS)
def test_boxes_do_not_lose_pixels_under_mixed_precision(kind, dtype):
    """Heads that hand out half precision (as under autocast) are decoded as their values in float32 would be."""
    model = stirred(build(dense_cfg(kind), 1)).eval()
    head = model.bbox_head
    data = model.data_preprocessor(make_batch(sizes=((768, 1024),), objects=(1,)), True)
    with torch.no_grad(), training_format(head):
        outputs = head(model.extract_feat(data['inputs']))
    half = [[level.to(dtype) for level in part] for part in outputs]
    whole = [[level.float() for level in part] for part in half]
    ours, exact = (DenseOutputs.of(head, decoder_of(head, 'x'), tuple(given)) for given in (half, whole))
    assert ours.priors.dtype == ours.regression.dtype == torch.float32
    assert torch.equal(ours.priors, exact.priors) and torch.equal(ours.boxes(0), exact.boxes(0))


@pytest.mark.parametrize('kind', HEADS)
def test_terms_on_numbers_recomputed_with_loops(kind, teacher):
    taught = teacher(kind)
    model = stirred(build(soft_cfg(dense_cfg(kind), taught, soft_label=dict(min_iou=0.1)), 1)).eval()
    student, data = outputs_of(model, make_batch(**BATCH))
    guide, _ = outputs_of(model.teacher.model, make_batch(**BATCH))
    losses = losses_of(model, make_batch(**BATCH))
    chosen = []
    for i, sample in enumerate(data['data_samples']):
        for p, box in enumerate(guide.boxes(i)):
            gts = sample.gt_instances.bboxes
            best = float(bbox_overlaps(box[None], gts).max()) if len(gts) else 0.0
            if best > 0.1:
                chosen.append((i, p, best))
    assert len(chosen) >= 2
    normaliser = max(sum(m for _, _, m in chosen), len(data['data_samples']))

    def focal_kl(z, t):
        s, q = z.double().sigmoid(), t.double().sigmoid()
        return (q * (q / s).log() + (1 - q) * ((1 - q) / (1 - s)).log()) * (q - s).abs().sqrt()
    expected = dict(loss_cls_distill=10 * float(focal_kl(student.logits, guide.logits).sum()) / normaliser)
    expected['loss_bbox_distill'] = 1.3 / normaliser * sum(
        m * (1 - float(bbox_overlaps(student.boxes(i)[p:p + 1], guide.boxes(i)[p:p + 1], mode='giou')))
        for i, p, m in chosen)
    if kind in FACTORS:
        expected[f'loss_{FACTORS[kind]}_distill'] = 10 / normaliser * sum(
            float(focal_kl(student.factor[i, p], guide.factor[i, p])) for i, p, _ in chosen)
    assert list(losses) == model.distill_terms and losses.keys() == expected.keys()
    for name, value in expected.items():
        assert float(losses[name]) == pytest.approx(value, rel=1e-3), name
        assert value > 0


@pytest.mark.parametrize('kind', ['retinanet', 'gfl', 'paa'])
def test_a_student_with_its_teachers_weights_learns_nothing(kind, teacher):
    cfg, path = teacher(kind)
    model = build(soft_cfg(cfg, (cfg, path), soft_label=dict(min_iou=0.1)), 1).eval()
    model.load_state_dict(torch.load(path, weights_only=False)['state_dict'], strict=True)
    losses = losses_of(model, make_batch(**BATCH))
    assert all(float(value) == pytest.approx(0, abs=1e-4) for value in losses.values())
    total(losses).backward()
    assert max(float(p.grad.abs().max()) for p in model.bbox_head.parameters() if p.grad is not None) < 1e-2


@pytest.mark.parametrize('kind', ['retinanet', 'paa'])
def test_ground_truth_losses_stay_or_go_and_weights_zero_is_plain(kind, teacher):
    plain = build(dense_cfg(kind), 1)
    both = build(soft_cfg(dense_cfg(kind), teacher(kind), soft_label=dict(), ground_truth=True), 1)
    off = build(soft_cfg(dense_cfg(kind), teacher(kind), soft_label=OFF, ground_truth=True), 1)
    alone = build(soft_cfg(dense_cfg(kind), teacher(kind), soft_label=dict()), 1)
    assert off.distill_terms == [] and 'NOTHING' in off.plan()[-1]
    own, together, none, soft = (losses_of(m, make_batch(**BATCH)) for m in (plain, both, off, alone))
    assert own.keys() == none.keys() and list(together) == list(own) + both.distill_terms == list(own) + list(soft)
    for name in own:
        one, other, third = (torch.as_tensor(sum(x[name]) if isinstance(x[name], list) else x[name])
                             for x in (own, together, none))
        assert torch.equal(one, other) and torch.equal(one, third), name
    for name in soft:
        assert torch.equal(soft[name], together[name])
    for losses in (own, none):
        total(losses).backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(plain.parameters(), off.parameters()) if a.grad is not None)
    one, other = plain.state_dict(), alone.state_dict()
    assert one.keys() == other.keys() and student_model(soft_cfg(dense_cfg(kind), teacher(kind), soft_label={},
                                                                 ground_truth=True)) == dense_cfg(kind)


def test_training_moves_the_student_towards_the_teacher_and_only_the_student(teacher):
    model = stirred(build(soft_cfg(dense_cfg('paa'), teacher('paa'), soft_label=dict(min_iou=0.1)), 1))
    frozen = copy.deepcopy(model.teacher.model.state_dict())
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    history = []
    for _ in range(6):
        loss = total(losses_of(model, make_batch(**BATCH)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(float(loss))
    assert history[-1] < 0.8 * history[0]
    after = model.teacher.model.state_dict()
    assert all(torch.equal(frozen[k], after[k]) for k in frozen)
    copied = copy.deepcopy(model)  # as an EMA hook does
    assert copied.teacher is model.teacher and copied.bbox_head is not model.bbox_head


@pytest.mark.parametrize('kind', ['retinanet', 'atss', 'paa', 'yolox'])
def test_on_images_without_labels_what_the_teacher_sees_stands_for_the_ground_truth(kind, teacher):
    """Equal to the labelled losses where the ground truth is what the teacher sees."""
    options, estimates = dict(min_iou=0.3), dict(atss='centerness', paa='iou').get(kind)
    model = stirred(build(soft_cfg(dense_cfg(kind), teacher(kind), soft_label=options, unlabelled=dict(weight=0.5)),
                          1)).eval()
    batch = make_batch(**BATCH)
    model.teacher.load()
    guide, _ = outputs_of(model.teacher.model, make_batch(**BATCH))
    model.terms[0].seen_from = between_scores(guide, 30, estimates)
    model.unlabelled.take(copy.deepcopy(batch))
    found = losses_of(model, make_batch(sizes=((64, 96),), objects=(2,)))
    for image, sample in enumerate(batch['data_samples']):
        boxes = seen_by_loops(guide, image, model.terms[0].seen_from, estimates)
        sample.gt_instances = InstanceData(bboxes=boxes, labels=torch.zeros(len(boxes), dtype=torch.long))
    assert sum(len(sample.gt_instances) for sample in batch['data_samples']) > 2
    expected = losses_of(model_without(model, kind, teacher, options), batch)
    assert {name for name in found if name.startswith('unlabelled')} == {f'unlabelled.{name}' for name in expected}
    for name, value in expected.items():
        assert float(found[f'unlabelled.{name}']) == pytest.approx(0.5 * float(value), rel=1e-4) != 0, name


def model_without(model, kind, teacher, options):
    """The same network, for images with labels alone."""
    other = build(soft_cfg(dense_cfg(kind), teacher(kind), soft_label=options), 1).eval()
    other.load_state_dict(model.state_dict())
    return other


def test_solad_is_lad_plus_soft_labels(teacher):
    kinds = dict(lad=dict(kind='LADDistiller'), solad=dict(kind='LADDistiller', soft_label=dict()),
                 soft=dict(soft_label=dict(cls=dict(loss_weight=2))),
                 off=dict(kind='LADDistiller', lad=False, soft_label=OFF))
    losses = {name: losses_of(build(soft_cfg(dense_cfg('paa'), teacher('paa'), **options), 1), make_batch(**BATCH))
              for name, options in kinds.items()}
    assert list(losses['solad']) == list(losses['lad']) + list(losses['soft'])
    for part in ('lad', 'soft'):
        for name, value in losses[part].items():
            assert torch.equal(value, losses['solad'][name]), name  # class weight 2 beside LAD, min_iou 0.5
    assert all(torch.equal(value, losses['off'][name])
               for name, value in losses_of(build(dense_cfg('paa'), 1), make_batch(**BATCH)).items())


def test_a_softmax_head_and_a_temperature(teacher, tmp_path):
    cfg = dense_cfg('retinanet')
    cfg.bbox_head.loss_cls = ConfigDict(type='CrossEntropyLoss', use_sigmoid=False, loss_weight=1.0)
    path = save_checkpoint(stirred(build(cfg, 7)), tmp_path / 't.pth')
    values = {}
    for temperature in (1.0, 4.0):
        model = stirred(build(soft_cfg(cfg, (cfg, path), soft_label=dict(
            cls=dict(temperature=temperature, gamma=0.0), bbox=None), ground_truth=True), 1)).eval()
        student, _ = outputs_of(model, make_batch(**BATCH))
        guide, _ = outputs_of(model.teacher.model, make_batch(**BATCH))
        assert student.logits.shape[-1] == 3  # two classes and the background
        z, t = student.logits.double() / temperature, guide.logits.double() / temperature
        divergence = temperature**2 * (t.softmax(-1) * (t.log_softmax(-1) - z.log_softmax(-1))).sum()
        values[temperature] = float(losses_of(model, make_batch(**BATCH))['loss_cls_distill'])
        overlaps = [bbox_overlaps(guide.boxes(i), s.gt_instances.bboxes).amax(1)
                    for i, s in enumerate(outputs_of(model, make_batch(**BATCH))[1]['data_samples'])
                    if len(s.gt_instances)]
        normaliser = max(sum(float(m[m > 0.5].sum()) for m in overlaps), len(BATCH['sizes']))
        assert values[temperature] == pytest.approx(10 * float(divergence) / normaliser, rel=1e-3)
    assert values[1.0] != values[4.0]
    with pytest.raises(ConfigError, match='sigmoid, the teacher 2 with a softmax'):
        build(soft_cfg(dense_cfg('retinanet'), (cfg, path), soft_label=dict()))


@pytest.mark.parametrize('kind', ['paa', 'gfl', 'fcos'])
def test_a_batch_without_objects_is_finite(kind, teacher):
    model = build(soft_cfg(dense_cfg(kind), teacher(kind), soft_label=dict()), 1)
    losses = losses_of(model, make_batch(sizes=((64, 64),) * 2, objects=(0, 0)))
    total(losses).backward()
    assert total(losses).isfinite() and float(losses['loss_bbox_distill']) == 0
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


def test_pairs_and_settings_that_do_not_fit_are_refused(teacher):
    def refused(match, student, taught, soft_label=None, **options):
        with pytest.raises(ConfigError, match=match):
            build(soft_cfg(student, taught, soft_label={} if soft_label is None else soft_label, **options))
    paa = teacher('paa')
    refused(r'VFNetHead encodes its boxes is not known', dense_cfg('vfnet'), paa)
    refused(r'student has \[1, 1, 1\] priors a place at strides \[8, 16, 32\]', dense_cfg('yolox'), paa)
    refused(r'student scores 3 classes', dense_cfg('paa', num_classes=3), paa)
    refused(r'\[9, 9, 9, 9, 9\] priors a place', dense_cfg('retinanet'), paa)
    refused(r'soft_label: unknown keys .*min_iuo.*did you mean .min_iou', dense_cfg('paa'), paa, dict(min_iuo=0.5))
    refused(r'min_iou: found 1.5', dense_cfg('paa'), paa, dict(min_iou=1.5))
    refused(r'no term is on: the student would have no loss', dense_cfg('paa'), paa, OFF)
    refused(r'score_factor: the student.*iou, the teacher.*centerness', dense_cfg('paa'), teacher('atss'),
            dict(score_factor=dict()))
    refused(r'soft_label.cls', dense_cfg('paa'), paa, dict(cls=dict(gama=1)))
    refused(r'use_sigmoid', dense_cfg('paa'), paa, dict(cls=dict(use_sigmoid=False)))
    # no common branch: prediction would use what nothing trains, unless the student's own losses do
    refused(r"score_factor: PAAHead's iou would never be trained", dense_cfg('paa'), teacher('atss'))
    refused(r"soft_label.bbox: PAAHead's boxes would never be trained", dense_cfg('paa'), paa, dict(bbox=None))
    mixed = build(soft_cfg(dense_cfg('paa'), teacher('atss'), soft_label=dict(), ground_truth=True), 1)
    assert mixed.distill_terms == ['loss_cls_distill', 'loss_bbox_distill']
