"""Ground truth weighed by its scores, from the annotation file to the loss."""
import copy
import json
from types import SimpleNamespace

import pytest
import torch
from any_detector import cascade_rcnn
from conftest import build, faster_rcnn_cfg, losses_of, make_batch
from dense_detectors import dense_cfg
from mmengine.registry import DATASETS, DefaultScope

from kd_det.datasets.scored_boxes import ScoredBoxes
from kd_det.engine import ScoreWeightHook
from kd_det.errors import ConfigError, DataError
from kd_det.heads.score_weights import weighed_by_score


def scored(batch, value):
    batch = copy.deepcopy(batch)
    for sample in batch['data_samples']:
        count = len(sample.gt_instances)
        sample.gt_instances.scores = torch.tensor([value] * count if isinstance(value, float) else value[:count])
    return batch


def sums(losses):
    return {name: float((sum(v) if isinstance(v, list) else v).detach()) for name, v in losses.items()}


@pytest.mark.parametrize('cfg, boxes', [
    (faster_rcnn_cfg(), ('loss_rpn_bbox', 'loss_bbox')),
    (cascade_rcnn(8), ('loss_rpn_bbox', 's0.loss_bbox', 's2.loss_bbox')),
    (dense_cfg('retinanet'), ('loss_bbox',))], ids=['faster', 'cascade', 'retinanet'])
def test_boxes_count_their_score_and_1_is_plain(cfg, boxes):
    """Scores of 1, or none, are plain training bit for bit; one score for all scales every box loss by it."""
    batch = make_batch(objects=(3, 2))
    model = build(copy.deepcopy(cfg))
    state = copy.deepcopy(model.state_dict())
    plain = sums(losses_of(model, copy.deepcopy(batch)))

    def found(batch, power=1.0):
        model.load_state_dict(state)
        with weighed_by_score(model, power):
            return sums(losses_of(model, batch))
    assert plain == found(copy.deepcopy(batch)) == found(scored(batch, 1.0))
    half, square = found(scored(batch, 0.5)), found(scored(batch, 0.5), 2.0)
    for name in boxes:
        assert half[name] == pytest.approx(0.5 * plain[name], rel=1e-4)
        assert square[name] == pytest.approx(0.25 * plain[name], rel=1e-4)
    cls = [name for name in plain if 'loss' in name and 'cls' in name]
    assert all(half[name] < plain[name] for name in cls)
    model.load_state_dict(state)
    assert sums(losses_of(model, scored(batch, 0.5))) == plain, 'the block is over'


def test_class_weights_follow_the_object_that_each_prior_serves():
    """Recomputed from the assignment: the weight of a RoI is the score of its object, of background 1."""
    model, batch = build(faster_rcnn_cfg()), scored(make_batch(((96, 128),), (3,)), [0.2, 0.6, 0.9])
    head, seen = model.roi_head.bbox_head, []
    keep = head.loss_and_target

    def spy(*args, **kwargs):
        result = keep(*args, **kwargs)
        seen.append((args[3] if len(args) > 3 else kwargs['sampling_results'], result['bbox_targets']))
        return result
    head.loss_and_target = spy
    with weighed_by_score(model):
        losses_of(model, batch)
    (results, (labels, label_weights, _, weights)), scores = seen[0], torch.tensor([0.2, 0.6, 0.9])
    positives = len(results[0].pos_inds)
    assert positives >= 3
    torch.testing.assert_close(label_weights[:positives], scores[results[0].pos_assigned_gt_inds])
    assert (label_weights[positives:] == 1).all() and (labels[positives:] == 2).all()
    torch.testing.assert_close(weights[:positives, 0], scores[results[0].pos_assigned_gt_inds])


def test_heads_with_targets_of_their_own_are_refused():
    for kind in ('vfnet', 'ddod'):
        with pytest.raises(ConfigError, match=r'ScoreWeightHook: bbox_head is a .*targets in a way of its own'), \
                weighed_by_score(build(dense_cfg(kind))):
            pass


def scored_coco(tiny_coco, tmp_path, pipeline=None, scores=(0.5, 0.25)):
    content = json.loads((tiny_coco / 'annotations' / 'train.json').read_text())
    for i, note in enumerate(content['annotations'][:-1]):  # the last one has none
        note['score'] = scores[i % len(scores)]
    (tmp_path / 'scored.json').write_text(json.dumps(content))
    pipeline = pipeline or [
        dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
        dict(type='Resize', scale=(128, 96), keep_ratio=True), dict(type='RandomFlip', prob=1.0),
        dict(type='RandomCrop', crop_size=(88, 116)), dict(type='PackDetInputs')]
    with DefaultScope.overwrite_default_scope('mmdet'):
        return content, DATASETS.build(dict(
            type='ScoredCocoDataset', data_root=str(tiny_coco), metainfo=dict(classes=('disc', 'square')),
            ann_file=str(tmp_path / 'scored.json'), data_prefix=dict(img='images/'), pipeline=pipeline,
            filter_cfg=dict(filter_empty_gt=False)))


def test_scores_stay_with_their_boxes_through_a_pipeline(tiny_coco, tmp_path):
    """After a flip and a crop each box has the score of the annotation that it was made from."""
    content, dataset = scored_coco(tiny_coco, tmp_path, scores=(0.5, 0.25, 0.75, 1.0, 0.1))
    looked_at = 0
    for i in range(len(dataset)):
        notes = [n for n in content['annotations'] if n['image_id'] == dataset.get_data_info(i)['img_id']]
        found = dataset[i]['data_samples'].gt_instances
        assert len(found.scores) == len(found.bboxes) == len(found)
        widths = {(round(n['bbox'][2]), round(n['bbox'][3])): n.get('score', 1.0) for n in notes}
        for box, score in zip(found.bboxes.tensor.tolist(), found.scores.tolist()):
            size = round(box[2] - box[0]), round(box[3] - box[1])
            if size in widths:  # not cut by the crop
                assert score == pytest.approx(widths[size])
                looked_at += 1
    assert looked_at > 5
    joined = ScoredBoxes.cat([dataset[i]['data_samples'].gt_instances.bboxes for i in (0, 2)])
    assert len(joined.scores) == len(joined)


def test_bad_scores_and_pipelines_are_refused(tiny_coco, tmp_path):
    with pytest.raises(DataError, match=r"annotation 1 has the score 1\.5"):
        scored_coco(tiny_coco, tmp_path, scores=(1.5,))
    with pytest.raises(ConfigError, match=r'ScoredCocoDataset\.pipeline.*LoadAnnotations is missing'):
        scored_coco(tiny_coco, tmp_path, [dict(type='LoadImageFromFile'), dict(type='PackDetInputs')])
    with pytest.raises(ConfigError, match=r'ScoreWeightHook\.power'):
        ScoreWeightHook(power=0)


def test_a_run_without_scores_is_told_so():
    hook, batch = ScoreWeightHook(), make_batch()
    for _ in range(49):
        hook.before_train_iter(SimpleNamespace(), 0, batch)
    with pytest.raises(ConfigError, match='no object of 50 batches has a score'):
        hook.before_train_iter(SimpleNamespace(), 0, batch)
    hook = ScoreWeightHook()
    hook.before_train_iter(SimpleNamespace(), 0, scored(batch, 0.5))
    for _ in range(60):
        hook.before_train_iter(SimpleNamespace(), 0, batch)
