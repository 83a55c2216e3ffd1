"""Ctrl-C and SIGTERM in validation and while a checkpoint is written: a checkpoint from which the run ends bit-equal.
"""
import logging
import signal

import pytest
from conftest import faster_rcnn_cfg, run_tool
from mmengine.runner import ValLoop
from test_repeatable import assert_same

from kd_det import files
from kd_det.engine.checkpoint_files import latest_whole

EXTRA = """
default_hooks['checkpoint'].update(max_keep_ckpts=1, save_best=None)
train_cfg.update(val_interval=1)
custom_hooks = [dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.1)]
"""


class Once:
    """A function that first sends its process a signal, the first time that it is asked for ``wanted``."""

    def __init__(self, function, number, wanted=lambda *arguments: True):
        self.function, self.number, self.wanted = function, number, wanted

    def __get__(self, owner, kind=None):
        return lambda *arguments: self(owner, *arguments)

    def __call__(self, *arguments):
        if self.number and self.wanted(*arguments):
            number, self.number = self.number, None
            signal.raise_signal(number)
        return self.function(*arguments)


@pytest.fixture(scope='module')
def whole(tiny_coco, tmp_path_factory):
    """(config, work directory) of a run that nothing stopped."""
    from conftest import RUN_CONFIG
    folder = tmp_path_factory.mktemp('whole')
    config = folder / 'config.py'
    config.write_text(RUN_CONFIG.format(root=f'{tiny_coco}/', model=faster_rcnn_cfg().to_dict()) + EXTRA)
    run_tool('train', str(config), '--work-dir', str(folder / 'run'))
    return str(config), folder / 'run'


@pytest.mark.parametrize('when, number, left', [
    ('validation', signal.SIGINT, ['epoch_1.pth', 'interrupted.pth']),
    ('saving', signal.SIGTERM, ['epoch_1.pth', 'interrupted.pth'])])
def test_interrupted(when, number, left, whole, tmp_path, monkeypatch):
    """With averaged weights, which lie in the model's place while it is validated."""
    config, work = whole[0], tmp_path / 'run'
    validated = []
    if when == 'validation':
        monkeypatch.setattr(ValLoop, 'run_iter', Once(ValLoop.run_iter, number, lambda *a: validated.append(a) is None))
    else:
        monkeypatch.setattr(files.os, 'replace', Once(files.os.replace, number,
                                                      lambda source, target: str(target).endswith('epoch_1.pth')))
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        run_tool('train', config, '--work-dir', str(work))
    assert stop.value.code == 128 + number
    assert handlers == (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM))
    assert sorted(path.name for path in work.glob('*.pth*')) == left
    assert len(validated) == (when == 'validation'), 'it stops with the running batch'
    log = next(work.glob('*/*.log')).read_text()
    assert f'interrupted at iteration 2: the state is in {work}/interrupted.pth; --resume goes on from there' in log
    monkeypatch.undo()
    logging.disable(logging.NOTSET)
    assert latest_whole(str(work)) == str(work / 'interrupted.pth')
    run_tool('train', config, '--work-dir', str(work), '--resume')
    assert_same(whole[1] / 'epoch_2.pth', work / 'epoch_2.pth')
