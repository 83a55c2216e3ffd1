"""Teachers that count for a class as much as they are good at it."""
import json
import logging
from types import SimpleNamespace

import pytest
import torch
from conftest import build, faster_rcnn_cfg, save_checkpoint
from mmengine.config import ConfigDict
from mmengine.registry import DATASETS, DefaultScope
from two_ranks import forked

from kd_det.engine import ensemble_weights_hook
from kd_det.engine.ensemble_weights_hook import EnsembleWeightsHook
from kd_det.engine.teacher_figures import evaluated
from kd_det.errors import ConfigError

LOGGER = logging.getLogger('ensemble')


@pytest.fixture(scope='module')
def two(tmp_path_factory):
    """Two teachers, and a student for their classes."""
    folder, sources = tmp_path_factory.mktemp('two'), {}
    for name, seed, classes in (('a', 3, 2), ('b', 4, 1)):
        cfg = faster_rcnn_cfg(num_classes=classes)
        path = save_checkpoint(build(cfg, seed=seed), folder / f'{name}.pth', ('disc', 'square')[:classes])
        sources[name] = dict(config=cfg.to_dict(), checkpoint=path)
    return sources


def model_of(two, members=None, weights='ap', **more):
    cfg = ConfigDict(faster_rcnn_cfg().to_dict())
    members = dict(a={}, b=dict(classes=[0])) if members is None else members
    cfg.update(student_type='FasterRCNN', type='Distiller', terms=[dict(type='RCNNDistillation', source='both')],
               sources=dict(**two, both=dict(type='Ensemble', members=members, weights=weights, **more)))
    return build(cfg)


def runner_of(model, root, work_dir):
    pipeline = [dict(type='LoadImageFromFile'), dict(type='Resize', scale=(128, 96), keep_ratio=True),
                dict(type='LoadAnnotations', with_bbox=True),
                dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
    cfg = dict(type='CocoDataset', data_root=str(root), metainfo=dict(classes=('disc', 'square')),
               ann_file='annotations/val.json', data_prefix=dict(img='images/'), test_mode=True, pipeline=pipeline)
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = DATASETS.build(cfg)
    return SimpleNamespace(model=model, work_dir=str(work_dir), logger=LOGGER,
                           cfg=ConfigDict(val_dataloader=dict(dataset=cfg)),
                           val_loop=SimpleNamespace(dataloader=SimpleNamespace(dataset=dataset)))


def test_weights_by_hand(two):
    """w_m(c) = configured x AP; a class that nobody is good at keeps the configured ones."""
    model = model_of(two, dict(a=dict(weight=2.0), b=dict(classes=[0])))
    shares = model.sources['both'].set_ap(dict(a=[0.2, 0.0], b=[0.6, None]))
    torch.testing.assert_close(model.sources['both']._weights, torch.tensor([[0.4, 2.0], [0.6, 0.0]]))
    torch.testing.assert_close(shares, torch.tensor([[0.4, 1.0], [0.6, 0.0]]))
    assert model.sources['both'].known is None


def test_measured_once_printed_and_kept(two, tiny_coco, tmp_path, monkeypatch, caplog):
    aps, asked = {}, []

    def measured(dataset, member):
        asked.append(member.key)
        return aps[member.key.rpartition('.')[2]]
    monkeypatch.setattr(ensemble_weights_hook, '_measured', measured)
    aps.update(a=[0.25, 0.5], b=[0.75, None])
    model = model_of(two)
    with caplog.at_level(logging.INFO):
        EnsembleWeightsHook().before_train(runner_of(model, tiny_coco, tmp_path))
    expected = model.sources['both']._weights.clone()
    torch.testing.assert_close(expected, torch.tensor([[0.25, 0.5], [0.75, 0.0]]))
    assert '25.0 ( 25 %)' in caplog.text and '75.0 ( 75 %)' in caplog.text and 'square' in caplog.text
    rows = json.loads((tmp_path / 'teacher_ap.json').read_text())
    assert [row['ap'] for row in rows] == [[0.25, 0.5], [0.75, None]] and rows[0]['images'] == 4
    again = model_of(two)
    EnsembleWeightsHook().before_train(runner_of(again, tiny_coco, tmp_path))
    assert len(asked) == 2 and torch.equal(again.sources['both']._weights, expected), 'a second start measures nothing'
    other = model_of({**two, 'a': dict(two['a'], checkpoint=save_checkpoint(build(faster_rcnn_cfg(), seed=9),
                                                                            tmp_path / 'other.pth'))})
    EnsembleWeightsHook().before_train(runner_of(other, tiny_coco, tmp_path))
    assert len(asked) == 3, 'figures of other weights are not taken'


def test_what_is_measured_is_the_class_ap_in_the_students_classes(two, tiny_coco, tmp_path):
    """A teacher that returns the ground truth has AP 1 in what it knows, also where its labels are numbered otherwise.
    """
    model = model_of(two, dict(b=dict(classes=[1])))
    runner = runner_of(model, tiny_coco, tmp_path)
    dataset = runner.val_loop.dataloader.dataset
    truths = iter([dataset.get_data_info(i)['instances'] for i in range(4)])
    network = model.sources['b'].model

    def tells(data):
        sample = data['data_samples'][0].new()
        squares = [one['bbox'] for one in next(truths) if one['bbox_label'] == 1]
        sample.pred_instances = type(sample.gt_instances)(
            bboxes=torch.tensor(squares, dtype=torch.float32).reshape(-1, 4), scores=torch.ones(len(squares)),
            labels=torch.zeros(len(squares), dtype=torch.long))
        return [sample]
    network.test_step = tells
    state = torch.get_rng_state()
    found = evaluated(model.sources['b'], dataset, 4, [1], classwise=True)
    assert found['coco/square_precision'] == 1.0 and not found['coco/disc_precision'] > 0
    assert torch.equal(torch.get_rng_state(), state)


def test_another_annotation_file_in_place_of_the_evaluation_set(two, tiny_coco, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(ensemble_weights_hook, '_measured',
                        lambda dataset, member: seen.append(len(dataset)) or [0.5, 0.5])
    model = model_of(two, weights=dict(ap='annotations/train.json'))
    runner = runner_of(model, tiny_coco, tmp_path)
    EnsembleWeightsHook().before_train(runner)
    assert seen == [8, 8], 'train.json has eight images'
    gone = model_of(two, weights=dict(ap='annotations/gone.json'))
    with pytest.raises(ConfigError, match=r'sources\.both\.weights\.ap: .*gone\.json'):
        EnsembleWeightsHook().before_train(runner_of(gone, tiny_coco, tmp_path))


def test_refusals(two, tiny_coco, tmp_path):
    for wrong in ('AP', 1.0, [1, 2], dict(ap=1), dict(AP='x.json')):
        with pytest.raises(ConfigError, match=r"sources\.both\.weights: found .*'ap' is expected"):
            model_of(two, weights=wrong)
    runner = runner_of(model_of(two), tiny_coco, tmp_path)
    (tmp_path / 'teacher_ap.json').write_text('{')
    with pytest.raises(ConfigError, match=r'teacher_ap\.json cannot be read'):
        EnsembleWeightsHook().before_train(runner)
    runner.val_loop = None
    (tmp_path / 'teacher_ap.json').unlink()
    with pytest.raises(ConfigError, match=r"sources\.both\.weights.*needs an evaluation set"):
        EnsembleWeightsHook().before_train(runner)
    unasked = model_of(two, weights=None)
    EnsembleWeightsHook().before_train(runner_of(unasked, tiny_coco, tmp_path))
    assert not (tmp_path / 'teacher_ap.json').exists()


def telling(model, runner, seen):
    """The teachers find objects of the ground truth: ``a`` every second one of an image, ``b`` all discs; ``seen``
    counts the images.
    """
    dataset = runner.val_loop.dataloader.dataset
    truth = {info['img_id']: info['instances'] for info in map(dataset.get_data_info, range(len(dataset)))}
    for name, keeps in (('a', lambda k, one: k % 2 == 0), ('b', lambda k, one: one['bbox_label'] == 0)):
        def tells(data, name=name, keeps=keeps):
            seen[name] = seen.get(name, 0) + 1
            sample = data['data_samples'][0].new()
            found = [one for k, one in enumerate(truth[sample.img_id]) if keeps(k, one)]
            sample.pred_instances = type(sample.gt_instances)(
                bboxes=torch.tensor([one['bbox'] for one in found], dtype=torch.float32).reshape(-1, 4),
                scores=torch.ones(len(found)),
                labels=torch.tensor([one['bbox_label'] for one in found], dtype=torch.long))
            return [sample]
        model.sources[name].network.test_step = tells


def weigh(two, root, folder):
    """Weights of a fresh start in ``folder``, and how many images each teacher saw."""
    model, seen = model_of(two), {}
    runner = runner_of(model, root, folder)
    telling(model, runner, seen)
    EnsembleWeightsHook().before_train(runner)
    return dict(weights=model.sources['both']._weights, seen=seen)


def rank_of_two(rank, folder, two, root):
    starts = [weigh(two, root, folder / 'run'), weigh(two, root, folder / 'run')]
    if rank:  # the second rank's disk is another machine's, and does not have the file
        (folder / 'elsewhere').mkdir()
    starts.append(weigh(two, root, folder / ('elsewhere' if rank else 'run')))
    torch.save(starts, folder / f'rank{rank}.pth')


@pytest.mark.skipif(torch.cuda.is_available(), reason='forks, and a started CUDA cannot be forked')
def test_two_ranks_measure_once_and_have_the_weights_of_one(two, tiny_coco, tmp_path):
    """Half of the images on each rank, one set of figures; a later start finds them, by rank 0's disk alone."""
    (tmp_path / 'alone').mkdir(), (tmp_path / 'run').mkdir()
    alone = weigh(two, tiny_coco, tmp_path / 'alone')
    assert alone['seen'] == dict(a=4, b=4)
    forked(rank_of_two, tmp_path, two, tiny_coco)
    assert 0 < float(alone['weights'][0, 0]) < 1 == float(alone['weights'][1, 0])  # half of the discs, and all
    for starts in (torch.load(tmp_path / f'rank{rank}.pth') for rank in (0, 1)):
        assert [start['seen'] for start in starts] == [dict(a=2, b=2), {}, {}]
        assert all(torch.equal(start['weights'], alone['weights']) for start in starts)
    assert (tmp_path / 'run' / 'teacher_ap.json').read_text() == (tmp_path / 'alone' / 'teacher_ap.json').read_text()
    assert not list((tmp_path / 'elsewhere').iterdir())
