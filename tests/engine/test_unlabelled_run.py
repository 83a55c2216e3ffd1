"""Runs with images without labels: resumed, with other workers, with several processes."""
import json
from types import SimpleNamespace

import pytest
import torch
from conftest import RUN_CONFIG, build, faster_rcnn_cfg, run_tool
from mmengine.config import Config
from test_distill_run import distilled_cfg
from test_distributed import WITNESS, run_script
from test_repeatable import INNER, assert_same, train

from kd_det.compat.checkpoint import load
from kd_det.config import load_config
from kd_det.engine.unlabelled_hook import check_unlabelled
from kd_det.errors import ConfigError

LOADER = """
unlabelled_dataloader = dict(batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='UnlabelledImages', data_root=data_root, data_prefix=dict(img='images/'),
                 ann_file='annotations/val.json', pipeline=train_pipeline))
"""
SEEN = '''
import json
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from mmengine.model import is_model_wrapper


@HOOKS.register_module()
class Seen(Hook):
    """Every rank writes which images without labels it saw, and which with labels."""

    def before_train(self, runner):
        self.images = []
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        take = model.unlabelled.take

        def listening(batch):
            self.images.append([sample.img_id for sample in batch['data_samples']])
            take(batch)
        model.unlabelled.take = listening

    def after_train(self, runner):
        with open(f'{runner.work_dir}/seen{get_rank()}.json', 'w') as file:
            json.dump(self.images, file)
'''


def cfg_of(teacher_checkpoint, **changes):
    return distilled_cfg(teacher_checkpoint, **{'unlabelled': dict(weight=1.0), **changes})


def test_resumed_anywhere_the_run_ends_equal_whatever_the_workers(teacher_checkpoint, run_config, tmp_path):
    config = run_config(cfg_of(teacher_checkpoint), extra=INNER + LOADER + 'train_cfg.update(max_epochs=1)\n')
    train(config, tmp_path / 'whole')
    train(config, tmp_path / 'from3', 'unlabelled_dataloader.num_workers=2', resume=tmp_path / 'whole' / 'iter_3.pth')
    assert_same(tmp_path / 'whole' / 'iter_4.pth', tmp_path / 'from3' / 'iter_4.pth')  # inside a lap of 2 batches
    log = (tmp_path / 'whole').glob('*/vis_data/scalars.json')
    line = json.loads(next(log).read_text().splitlines()[0])
    assert {'unlabelled.loss_hint_neck', 'unlabelled.loss_cls_distill', 'loss_hint_neck', 'loss_cls'} <= set(line)
    with pytest.raises(ConfigError, match=r'unlabelled_dataloader\.batch_size: was 2, is 1'):
        train(config, tmp_path / 'other', 'unlabelled_dataloader.batch_size=1',
              resume=tmp_path / 'whole' / 'iter_3.pth')


def test_weight_0_is_the_run_without_and_reads_nothing(teacher_checkpoint, run_config, tmp_path):
    train(run_config(distilled_cfg(teacher_checkpoint)), tmp_path / 'without')
    gone = LOADER.replace('val.json', 'gone.json')
    off = run_config(cfg_of(teacher_checkpoint, unlabelled=dict(weight=0)), 'off.py', gone)
    train(off, tmp_path / 'off')
    assert_same(tmp_path / 'without' / 'epoch_2.pth', tmp_path / 'off' / 'epoch_2.pth')
    assert set(load(str(tmp_path / 'off' / 'epoch_2.pth'))['state_dict']) == set(
        load(str(tmp_path / 'without' / 'epoch_2.pth'))['state_dict'])


def test_loader_and_model_must_agree(teacher_checkpoint):
    loader = dict(unlabelled_dataloader=dict(dataset=dict(type='UnlabelledImages')))
    deaf = cfg_of(teacher_checkpoint, hints=[], rpn_distill=None, rcnn_distill=dict(images='labelled'))
    for cfg, extra, words in (
            (distilled_cfg(teacher_checkpoint), loader, r'add model\.unlabelled=dict'),
            (faster_rcnn_cfg(), loader, 'FasterRCNN distils nothing'),
            (cfg_of(teacher_checkpoint), {}, 'unlabelled_dataloader: found None'),
            (cfg_of(teacher_checkpoint), dict(unlabelled_dataloader=dict(batch_size=2)), "found {'batch_size': 2}"),
            (deaf, loader, r"no term acts .*'rcnn_distill'")):
        with pytest.raises(ConfigError, match=words):
            check_unlabelled(SimpleNamespace(model=build(cfg), cfg=Config(extra)))


def test_every_run_of_ours_looks_before_it_begins(run_config, tmp_path):
    with pytest.raises(ConfigError, match='FasterRCNN distils nothing'):
        run_tool('train', run_config(faster_rcnn_cfg(), extra=LOADER), '--work-dir', str(tmp_path / 'w'))
    assert not list(tmp_path.glob('w/*.pth'))
    for wrong, words in (('batch_size=2', "batch_size='2'"), ('unlabelled_dataloader', 'unlabeled_dataloader')):
        with pytest.raises(ConfigError, match='unlabelled_dataloader'):
            load_config(run_config(faster_rcnn_cfg(), extra=LOADER.replace(wrong, words)))


@pytest.mark.slow
def test_two_ranks_share_them(teacher_checkpoint, tiny_coco, tmp_path):
    (tmp_path / 'witness_hook.py').write_text(WITNESS)
    (tmp_path / 'seen_hook.py').write_text(SEEN)
    config = tmp_path / 'config.py'
    config.write_text(RUN_CONFIG.format(root=f'{tiny_coco}/', model=cfg_of(teacher_checkpoint).to_dict()) + LOADER + """
custom_imports = dict(imports=['kd_det', 'witness_hook', 'seen_hook'])
custom_hooks = [dict(type='Witness'), dict(type='Seen')]
train_dataloader.update(batch_size=2)
unlabelled_dataloader.update(batch_size=1)
""")
    run_script('dist_train.sh', str(config), '2', '--work-dir', str(tmp_path / 'run'), path=str(tmp_path))
    first, second = (json.loads((tmp_path / 'run' / f'seen{rank}.json').read_text()) for rank in (0, 1))
    assert len(first) == len(second) == 4
    for lap in (0, 2):  # 4 images, two ranks, batches of one
        seen = [image for batch in first[lap:lap + 2] + second[lap:lap + 2] for image in batch]
        assert sorted(seen) == list(range(4))
    one, two = (json.loads((tmp_path / 'run' / f'rank{rank}.json').read_text())['sums'] for rank in (0, 1))
    assert one == two, 'the ranks hold different weights'
    assert all(torch.isfinite(torch.tensor(value)) for value in one.values())


def test_scores_of_pseudo_labels_reach_the_loss_of_a_run(run_config, tiny_coco, tmp_path):
    """From the annotation file through workers and the hook: other scores are other weights; scores of 1 are plain."""
    content = json.loads((tiny_coco / 'annotations' / 'train.json').read_text())
    found = {}
    for score in (None, 1.0, 0.3):
        for note in content['annotations']:
            note['score'] = score or 1.0
        (tmp_path / 'scored.json').write_text(json.dumps(content))
        extra = 'train_cfg.update(max_epochs=1)\n' if score is None else (
            f"train_cfg.update(max_epochs=1)\ntrain_dataloader['dataset'].update(type='ScoredCocoDataset', "
            f"ann_file={str(tmp_path / 'scored.json')!r})\ntrain_dataloader.update(num_workers=1)\n"
            "custom_hooks = [dict(type='ScoreWeightHook')]\n")
        train(run_config(faster_rcnn_cfg(), f'{score}.py', extra), tmp_path / str(score))
        found[score] = load(str(tmp_path / str(score) / 'epoch_1.pth'))['state_dict']
    assert all(torch.equal(value, found[1.0][name]) for name, value in found[None].items())
    assert not all(torch.equal(value, found[0.3][name]) for name, value in found[None].items())
    assert found[None].keys() == found[0.3].keys()
