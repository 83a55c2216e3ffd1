"""LAD, soft labels and BCKD as the command line trains them, with hooks of RTMDet's and YOLOX's recipes: EMA, resume.
"""
import json

import pytest
import torch
from conftest import build, run_tool, save_checkpoint
from dense_detectors import dense_cfg

from kd_det.compat.checkpoint import load

# RTMDet: EMA and a change of the pipeline before the end; YOLOX: EMA, synchronised norms, an L1 loss before the end
HOOKS = dict(
    paa="custom_hooks = []",
    rtmdet="custom_hooks = [dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.1, update_buffers=True, "
           "priority=49), dict(type='PipelineSwitchHook', switch_epoch=1, switch_pipeline=train_pipeline)]",
    yolox="train_dataloader['dataset'] = dict(type='MultiImageMixDataset', dataset=train_dataloader['dataset'], "
          "pipeline=[])\ncustom_hooks = [dict(type='YOLOXModeSwitchHook', num_last_epochs=1, priority=48), "
          "dict(type='SyncNormHook', priority=48), dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.1, "
          "update_buffers=True, priority=49)]")


@pytest.mark.parametrize('kind', ['paa', 'rtmdet', 'yolox'])
def test_a_run_with_its_recipes_hooks_leaves_the_student_and_resumes(kind, run_config, tmp_path):
    wide = dense_cfg(kind, width=16)
    checkpoint = save_checkpoint(build(wide, 7), tmp_path / 'teacher.pth')
    cfg = dense_cfg(kind)
    cfg.update(student_type=cfg.type, type='LADDistiller', teacher=dict(config=wide.to_dict(), checkpoint=checkpoint))
    cfg.update(soft_label=dict(), terms=[dict(type='BCKD')])
    config, work = run_config(cfg, extra='\n' + HOOKS[kind] + '\n'), tmp_path / 'run'
    run_tool('train', config, '--work-dir', str(work), '--cfg-options', 'train_cfg.max_epochs=1',
             'train_cfg.val_interval=1')
    run_tool('train', config, '--work-dir', str(work), '--resume')
    plain = build(dense_cfg(kind))
    for path in (work / 'epoch_1.pth', work / 'epoch_2.pth', *work.glob('best_*.pth')):
        stored = load(str(path))
        plain.load_state_dict(stored['state_dict'], strict=True)
        assert len(stored['state_dict']) == len(plain.state_dict())
    assert stored['meta']['epoch'] in (1, 2)
    second = load(str(work / 'epoch_2.pth'))
    moved = [k for k, v in load(str(work / 'epoch_1.pth'))['state_dict'].items()
             if v.is_floating_point() and not torch.equal(v, second['state_dict'][k])]
    assert moved, 'the second epoch trained nothing'
    if kind != 'paa':  # the average is what is deployed; the weights that train are kept beside it, and differ
        average = second['ema_state_dict']
        assert not any('teacher' in key for key in average)
        assert {key.removeprefix('module.') for key in average if key != 'steps'} == set(plain.state_dict())
    records = [json.loads(line) for log in work.glob('*/vis_data/scalars.json')
               for line in log.read_text().splitlines()]
    assert all(r['loss'] == r['loss'] for r in records if 'loss' in r)
    for name in ('loss_cls_distill', 'loss_cls_bckd', 'loss_bbox_bckd'):
        assert any(r.get(name, 0) > 0 for r in records), name
    run_tool('test', config, str(work / 'epoch_2.pth'), '--work-dir', str(tmp_path / 'tested'))
