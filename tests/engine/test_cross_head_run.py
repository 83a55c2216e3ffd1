"""A CrossKD run as the command line makes it: the mapper trains, travels beside the student, and comes back on resume.
"""
import torch
from conftest import build, run_tool, save_checkpoint
from dense_detectors import dense_cfg, stirred

from kd_det.compat.checkpoint import load


def test_checkpoints_are_the_plain_students_and_resume_goes_on_with_the_mapper(run_config, tmp_path):
    plain, wide = dense_cfg('paa', channels=8, stacked_convs=2), dense_cfg('paa', width=16, stacked_convs=2)
    cfg = plain.copy()
    cfg.update(student_type=cfg.type, type='Distiller', terms=[dict(type='CrossHead')], teacher=dict(
        config=wide.to_dict(), checkpoint=save_checkpoint(stirred(build(wide, 7)), tmp_path / 't.pth'), check=0))
    config, work = run_config(cfg), tmp_path / 'run'
    run_tool('train', config, '--work-dir', str(work), '--cfg-options', 'train_cfg.max_epochs=1')
    first = load(str(work / 'epoch_1.pth'))
    build(plain).load_state_dict(first['state_dict'], strict=True)
    mappers, fresh = first['kd_det']['terms'], build(cfg).terms.own_state_dict()
    assert set(mappers) == set(fresh) == {f'0.adapters.{branch}.layers.0.weight' for branch in ('cls', 'bbox')}
    run_tool('train', config, '--work-dir', str(work), '--resume')  # to epoch 2
    second = load(str(work / 'epoch_2.pth'))
    assert second['meta']['epoch'] == 2
    for name, value in mappers.items():
        assert not torch.equal(value, fresh[name]), 'the mapper did not train'
        step = (second['kd_det']['terms'][name] - value).abs().max()
        assert 0 < step <= 2.1e-3 * 2, 'resume must go on from the trained mapper: two AdamW steps of lr 1e-3'
    assert len(second['optimizer']['state']) == len(list(build(cfg).parameters()))
