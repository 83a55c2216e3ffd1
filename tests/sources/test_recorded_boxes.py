"""Final boxes with class distributions: whose they are, where an augmented view shows them, and that a record of them
teaches what the live teacher does.
"""
import copy
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from any_detector import cascade_rcnn, detr
from conftest import build, faster_rcnn_cfg, losses_of, make_batch, save_checkpoint
from dense_detectors import dense_cfg, stirred
from mmcv.transforms import Compose
from mmdet.structures.bbox import HorizontalBoxes, bbox_overlaps
from mmengine.config import ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope
from torch import nn

from kd_det.datasets.followed_views import check_followed, in_view
from kd_det.errors import ConfigError
from kd_det.sources import RecordedTeacher
from kd_det.sources.passes import Pass
from kd_det.terms import pseudo_label
from kd_det.terms.pseudo_label import as_logits

LOAD, PACK = dict(type='LoadImageFromFile'), dict(type='PackDetInputs')
RESIZE = dict(type='Resize', scale=(96, 80), keep_ratio=True)
MIRROR = dict(type='RandomFlip', prob=1.0)
SIZES = ((120, 160), (120, 160))

pytestmark = pytest.mark.usefixtures('late_epoch')


# -- whose distribution it is -----------------------------------------------------------------------------------------
@pytest.mark.parametrize('kind', ['retinanet', 'atss', 'gfl', 'fcos', 'paa', 'ddod', 'tood', 'rtmdet', 'yolox'])
def test_dense_heads_boxes_have_the_scores_of_their_prior(kind):
    """Written with loops: the prior with this score for this class (and, but for PAA's voting, this box)."""
    cfg = dense_cfg(kind, 16)
    cfg.test_cfg.score_thr = 0.0
    model = stirred(build(cfg, 7)).eval()
    data = model.data_preprocessor(make_batch(((64, 96),), (2,)), True)
    with torch.no_grad():
        found = Pass(model, data['inputs'], data['data_samples'], {})
        detections, rows, outputs = found.detections()[0], found.distributions()[0], found.dense_outputs()
        boxes, logits = outputs.all_boxes()[0], outputs.logits[0]
    assert len(rows) == len(detections) > 3 and rows.shape[1] == 2
    factor = torch.ones(len(logits)) if outputs.factor is None or kind == 'yolox' else outputs.factor[0].sigmoid()
    for d in range(min(len(detections), 12)):
        label, score, box = (detections[name][d] for name in ('labels', 'scores', 'bboxes'))
        mine = []
        for p in range(len(logits)):
            own = logits[p, label].sigmoid() * factor[p]
            own = own.sqrt() if kind == 'paa' else own
            inside = boxes[p].clamp(min=0).minimum(torch.tensor([96., 64, 96, 64]))
            if kind == 'paa' or min((one - box).abs().max() for one in (inside, boxes[p])) < 1e-2:
                mine.append((float(abs(own - score)), p))
        assert min(mine)[0] < 1e-5
        assert torch.allclose(rows[d], logits[min(mine)[1]].sigmoid(), atol=1e-5)


@pytest.mark.parametrize('cfg', [faster_rcnn_cfg(16), cascade_rcnn(16)], ids=['faster', 'cascade'])
def test_rois_boxes_have_a_softmax_with_the_background(cfg):
    model = build(cfg, 7).eval()
    data = model.data_preprocessor(make_batch(((96, 128), (64, 96)), (2, 0)), True)
    with torch.no_grad():
        found = Pass(model, data['inputs'], data['data_samples'], {})
        detections, rows = found.detections(), found.distributions()
    assert sum(map(len, rows)) > 5
    for image, row in zip(detections, rows):
        assert row.shape == (len(image), 3) and torch.allclose(row.sum(1), torch.ones(len(row)))
        assert torch.allclose(row.gather(1, image.labels[:, None])[:, 0], image.scores, rtol=1e-3)


def test_queries_of_a_transformer():
    model = build(detr(16), 7).eval()
    data = model.data_preprocessor(make_batch(((64, 96),), (2,)), True)
    with torch.no_grad():
        found = Pass(model, data['inputs'], data['data_samples'], {})
        image, row = found.detections()[0], found.distributions()[0]
    assert len(image) == len(row) > 2
    assert torch.allclose(row.gather(1, image.labels[:, None])[:, 0], image.scores, rtol=1e-3)


def test_scores_that_nms_changes_have_no_distribution():
    cfg = dense_cfg('gfl', 16)
    cfg.test_cfg.update(score_thr=0.0, nms=dict(type='soft_nms', iou_threshold=0.1, min_score=0.0))
    model = stirred(build(cfg, 7)).eval()
    data = model.data_preprocessor(make_batch(((64, 96),), (2,)), True)
    with torch.no_grad(), pytest.raises(ConfigError, match='final scores are not those of its priors'):
        found = Pass(model, data['inputs'], data['data_samples'], {})
        found.detections()[0].scores.mul_(0.7)
        found.distributions()


# -- where a view shows it --------------------------------------------------------------------------------------------
BOXES = torch.tensor([[10., 8, 60, 70], [100, 20, 150, 110], [40.5, 60.25, 90, 119], [0, 0, 159, 119],
                      [5, 100, 9, 118]])


@pytest.fixture(scope='module')
def images(tmp_path_factory):
    folder, generator = tmp_path_factory.mktemp('images'), np.random.default_rng(0)
    for i, (height, width) in enumerate(SIZES):
        picture = cv2.resize(generator.integers(0, 255, (12, 16, 3), np.uint8), (width, height))
        cv2.imwrite(str(folder / f'{i}.png'), picture)
    return [str(folder / f'{i}.png') for i in range(len(SIZES))]


def packed(path, steps, seed=0, number=0, boxes=BOXES):
    """One sample of a training pipeline, its ground truth ``boxes``."""
    steps = [dict(step) for step in steps]
    with DefaultScope.overwrite_default_scope('mmdet'):
        pipeline = Compose([LOAD, *steps, PACK])
    check_followed(SimpleNamespace(pipeline=pipeline), nn.Identity(), 'k')
    np.random.seed(seed)
    results = pipeline.transforms[0](dict(img_path=path, img_id=number))
    results.update(gt_bboxes=HorizontalBoxes(boxes.clone()), gt_bboxes_labels=np.arange(len(boxes)) % 2,
                   gt_ignore_flags=np.zeros(len(boxes), bool))
    for step in pipeline.transforms[1:]:
        results = step(results)
    return results


@pytest.mark.parametrize('steps', [
    [RESIZE], [MIRROR], [dict(MIRROR, direction='vertical')], [RESIZE, dict(MIRROR, direction='diagonal')],
    [dict(type='RandomCrop', crop_size=(60, 70), allow_negative_crop=True)],
    [dict(type='Rotate', prob=1.0, level=8)], [dict(type='ShearX', prob=1.0, level=6)],
    [dict(type='TranslateY', prob=1.0, level=6)],
    [dict(type='RandomResize', scale=(200, 150), ratio_range=(0.5, 1.5), keep_ratio=True), MIRROR,
     dict(type='RandomCrop', crop_size=(80, 90), allow_negative_crop=True), dict(type='PhotoMetricDistortion')],
    [RESIZE, dict(type='RandomApply', transforms=[dict(type='Rotate', prob=1.0, level=5)], prob=1.0)],
    [dict(type='FixShapeResize', width=128, height=128, keep_ratio=True)]],
    ids=lambda steps: '+'.join(step['type'] for step in steps))
def test_boxes_go_where_the_pipeline_puts_ground_truth(images, steps):
    for seed in range(3):
        sample = packed(images[0], steps, seed)['data_samples']
        moved, shown = in_view(BOXES, sample.metainfo, 'k')
        truth = sample.gt_instances.bboxes
        truth = getattr(truth, 'tensor', truth)
        truth = truth[(truth[:, 2] > truth[:, 0]) & (truth[:, 3] > truth[:, 1])]
        assert len(truth) == int(shown.sum()) and torch.allclose(moved[shown], truth, atol=2e-2)


@pytest.mark.parametrize('step, message', [
    (dict(type='Mosaic', img_scale=(64, 64)), 'Mosaic, which shows several images in one'),
    (dict(type='Expand'), r"Expand, which does not say where it puts a box .results.'homography_matrix'"),
    (dict(type='RandomApply', transforms=[dict(type='MinIoURandomCrop')]), 'MinIoURandomCrop')])
def test_what_does_not_say_where_it_puts_a_box_is_refused_by_name(step, message):
    with DefaultScope.overwrite_default_scope('mmdet'):
        pipeline = Compose([LOAD, step, PACK])
    with pytest.raises(ConfigError, match=rf'k: train_dataloader\.dataset\.pipeline has {message}'):
        check_followed(SimpleNamespace(pipeline=pipeline), nn.Identity(), 'k')


def test_samples_that_say_too_little(images):
    with DefaultScope.overwrite_default_scope('mmdet'):
        pipeline = Compose([LOAD, dict(PACK, meta_keys=('img_id', 'img_shape'))])
    with pytest.raises(ConfigError, match=r"PackDetInputs\.meta_keys has no \['img_path', 'ori_shape'\]"):
        check_followed(SimpleNamespace(pipeline=pipeline), nn.Identity(), 'k')
    with pytest.raises(ConfigError, match='does not say how it was augmented'):
        in_view(BOXES, dict(img_shape=(60, 80), ori_shape=(120, 160), img_path='x'), 'k')
    resized = SimpleNamespace(batch_augments=[nn.Identity()])
    with pytest.raises(ConfigError, match=r'batch_augments has Identity'):
        check_followed(SimpleNamespace(pipeline=[]), resized, 'k')


# -- the record -------------------------------------------------------------------------------------------------------
@pytest.fixture(scope='module')
def teachers(tmp_path_factory):
    """Kind -> whole config and checkpoint of a teacher that finds something."""
    found = {}
    for kind in ('faster_rcnn', 'atss'):
        model = faster_rcnn_cfg(16) if kind == 'faster_rcnn' else dense_cfg('atss', 16)
        own = build(copy.deepcopy(model), 7)
        if kind == 'atss':
            stirred(own)
            with torch.no_grad():  # a fresh head is sure of nothing
                own.bbox_head.atss_cls.bias += 4
        path = save_checkpoint(own, tmp_path_factory.mktemp(kind) / 'teacher.pth')
        found[kind] = dict(config=dict(model=model.to_dict(), test_dataloader=dict(dataset=dict(
            pipeline=[LOAD, RESIZE, dict(type='LoadAnnotations'), PACK]))), checkpoint=path)
    return found


@pytest.fixture(autouse=True)
def near(monkeypatch):
    """An untrained student puts its boxes nowhere near."""
    monkeypatch.setattr(pseudo_label, 'SAME', 0.0)


def taught(teacher, terms=None, **options):
    student, config = dense_cfg('gfl'), teacher['config']
    student.data_preprocessor = ConfigDict(config.get('model', config)['data_preprocessor'])
    cfg = ConfigDict(student, student_type='GFL', type='Distiller', teacher=dict(teacher, check=0, **options),
                     terms=terms or [dict(type='PseudoLabel', score_thr=0.2, soft={})])
    return stirred(build(cfg, 1))


def batch_of(images, steps, seed=0):
    return pseudo_collate([packed(path, steps, seed, i, BOXES[:3]) for i, path in enumerate(images)])


NAMES = ('loss_pseudo_label', 'loss_pseudo_soft', 'pseudo_labels')


@pytest.mark.parametrize('kind', ['faster_rcnn', 'atss'])
def test_where_it_sees_the_same_pixels_the_record_teaches_what_the_live_teacher_does(kind, teachers, images, tmp_path):
    live, first = taught(teachers[kind]), taught(teachers[kind], record=str(tmp_path))
    wanted = losses_of(live, batch_of(images, [RESIZE]))
    seen = losses_of(first, batch_of(images, [RESIZE]))
    assert isinstance(first.teacher, RecordedTeacher) and first.teacher.counts == dict(read=0, asked=2)
    first.teacher.shards.flush()
    later = taught(teachers[kind], record=dict(folder=str(tmp_path), missing='error'))
    again = losses_of(later, batch_of(images, [RESIZE]))
    assert later.teacher.counts == dict(read=2, asked=0) and wanted['pseudo_labels'] > 1
    assert all(p.is_meta for p in later.teacher.model.parameters())
    for name in NAMES:
        assert torch.equal(again[name], seen[name]) and wanted[name] > 0
        assert again[name].item() == pytest.approx(wanted[name].item(), rel=5e-3), name
    again['loss_pseudo_soft'].backward()
    assert sum(p.grad.abs().sum() for p in later.parameters() if p.grad is not None) > 0


def test_a_mirrored_view_has_the_mirrored_boxes_of_the_one_entry(teachers, images, tmp_path):
    model = taught(teachers['atss'], record=str(tmp_path))
    plain, other = (model.data_preprocessor(batch_of(images, steps), True) for steps in ([RESIZE], [RESIZE, MIRROR]))
    found, mirrored = (model.teacher.open(one['inputs'], one['data_samples']).detections() for one in (plain, other))
    assert len(model.teacher.shards) == 2 and model.teacher.counts == dict(read=2, asked=2)
    live = taught(teachers['atss']).teacher
    with torch.no_grad():
        wanted = live.open(plain['inputs'], plain['data_samples']).detections()
    for one, two, three, sample in zip(found, mirrored, wanted, plain['data_samples']):
        width = sample.metainfo['img_shape'][1]
        back = torch.stack([width - two.bboxes[:, 2], two.bboxes[:, 1], width - two.bboxes[:, 0], two.bboxes[:, 3]], 1)
        assert len(one) > 5 and torch.allclose(back, one.bboxes, atol=1e-2)
        assert torch.equal(one.distribution, two.distribution) and torch.equal(one.scores, two.scores)
        assert bbox_overlaps(one.bboxes, three.bboxes).amax(1).min() > 0.98


def test_boxes_of_half_the_resolution_are_in_the_students_pixels(teachers, images, tmp_path):
    model = taught(teachers['atss'], record=str(tmp_path), scale_factor=2)
    data = model.data_preprocessor(batch_of(images, [dict(RESIZE, scale=(48, 40))]), True)
    opened = model.teacher.open(data['inputs'], data['data_samples'])
    high = max(float(image.bboxes.max()) for image in opened.detections())
    assert 48 < high <= 96 and opened.scale == 2


def test_other_settings_of_the_teacher_are_other_entries_and_nothing_may_be_missing(teachers, images, tmp_path):
    model = taught(teachers['atss'], record=str(tmp_path))
    losses_of(model, batch_of(images, [RESIZE]))
    model.teacher.shards.flush()
    other = copy.deepcopy(teachers['atss'])
    other['config']['model']['test_cfg']['nms']['iou_threshold'] = 0.3
    strict = taught(other, record=dict(folder=str(tmp_path), missing='error'))
    with pytest.raises(ConfigError, match=r"has no boxes of image .*0\.png, and record\.missing is 'error'"):
        losses_of(strict, batch_of(images, [RESIZE]))
    alone = taught(dict(config=teachers['atss']['config']), record=str(tmp_path))
    assert losses_of(alone, batch_of(images, [RESIZE, MIRROR]))['pseudo_labels'] > 0
    bare = dict(teachers['atss'], config=teachers['atss']['config']['model'])
    with pytest.raises(ConfigError, match=r'teacher\.config: it has no test_dataloader\.dataset\.pipeline'):
        taught(bare, record=str(tmp_path))


def test_values_on_disk(teachers, images, tmp_path):
    """Boxes and scores whole, distributions in half precision; some hundred bytes a box."""
    model = taught(teachers['faster_rcnn'], record=str(tmp_path))
    losses_of(model, batch_of(images, [RESIZE]))
    entry = model.teacher.boxes.entry(dict(img_path=images[0], img_id=0))
    kinds = {name.split('/')[1]: array.dtype for name, array in entry.items()}
    assert kinds == dict(boxes=np.float32, scores=np.float32, labels=np.int32, distribution=np.float16)
    count = len(entry['boxes/scores'])
    assert entry['boxes/distribution'].shape == (count, 3)
    assert sum(array.nbytes for array in entry.values()) == count * (16 + 4 + 4 + 6)


# -- soft labels ------------------------------------------------------------------------------------------------------
def test_the_soft_part_is_its_formula(teachers, images, monkeypatch):
    """Against loops over the student's priors."""
    model = taught(teachers['faster_rcnn'])
    heard = {}
    own = type(model.terms[0])._soft_loss

    def listening(term, step, found, rows):
        from kd_det.terms.dense import student_outputs
        heard.update(outputs=student_outputs(step), found=found, rows=rows)
        return own(term, step, found, rows)
    monkeypatch.setattr(type(model.terms[0]), '_soft_loss', listening)
    losses = losses_of(model, batch_of(images, [RESIZE]))
    outputs, total, weights = heard['outputs'], 0.0, 0.0
    for i, (image, rows) in enumerate(zip(heard['found'], heard['rows'])):
        for p, box in enumerate(outputs.boxes(i).detach()):
            overlaps = bbox_overlaps(box[None], image.bboxes)[0]
            j = int(overlaps.argmax())
            if overlaps[j] <= 0:
                continue
            weight = float(overlaps[j] * image.scores[j])
            weights += weight
            for c in range(2):
                ours = float(outputs.logits[i, p, c].detach().sigmoid())
                soft = min(max(float(rows[j, c]), 1e-6), 1 - 1e-6)
                kl = soft * np.log(soft / ours) + (1 - soft) * np.log((1 - soft) / (1 - ours))
                total += weight * kl * abs(soft - ours)**0.5
    assert weights > 0.1
    assert losses['loss_pseudo_soft'].item() == pytest.approx(2 * total / max(weights, 2), rel=1e-3)


def test_probabilities_as_logits_of_the_students_kind():
    rows = torch.tensor([[0.7, 0.1, 0.2], [1.0, 0.0, 0.0]])
    assert torch.allclose(as_logits(rows, False, True).sigmoid(), rows[:, :2], atol=2e-6)
    assert torch.allclose(as_logits(rows, True, True).sigmoid(), rows, atol=2e-6)
    assert torch.allclose(as_logits(rows, False, False).softmax(1), rows, atol=1e-5)
    assert torch.isfinite(as_logits(rows, False, True)).all()


def test_soft_alone_and_what_cannot_be(teachers, images):
    terms = [dict(type='PseudoLabel', weight=0., score_thr=0.2, soft={})]
    losses = losses_of(taught(teachers['atss'], terms), batch_of(images, [RESIZE]))
    assert 'loss_pseudo_label' not in losses and losses['loss_pseudo_soft'] > 0
    assert not taught(teachers['atss'], [dict(type='PseudoLabel', weight=0., soft=dict(loss_weight=0))]).terms
    with pytest.raises(ConfigError, match=r'terms\[0\]\.soft: found 3'):
        taught(teachers['atss'], [dict(type='PseudoLabel', soft=3)])
    softmax = dense_cfg('retinanet')
    softmax.bbox_head.loss_cls = dict(type='CrossEntropyLoss', use_sigmoid=False)
    cfg = ConfigDict(softmax, student_type='RetinaNet', type='Distiller', teacher=dict(teachers['atss'], check=0),
                     terms=[dict(type='PseudoLabel', soft={})])
    with pytest.raises(ConfigError, match=r'soft: the student.s RetinaHead scores with a softmax'):
        build(cfg)
