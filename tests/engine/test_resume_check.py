"""A run is resumed under its own config, and is alone in its work directory."""
import os
import shutil
import signal
from types import SimpleNamespace

import pytest
import torch
from conftest import build, faster_rcnn_cfg, run_tool
from mmengine.config import Config
from mmengine.runner import EpochBasedTrainLoop

from kd_det.compat.checkpoint import load
from kd_det.engine import run_identity, training
from kd_det.engine.resume_check import ResumeCheckHook, differences
from kd_det.engine.run_identity import changes, made_of
from kd_det.engine.run_lock import work_directory
from kd_det.engine.seed_hook import RUN_STATE, SeedHook
from kd_det.errors import CheckpointMismatch, ConfigError
from kd_det.files import save_whole

CFG = """
data_root = '/a'
model = dict(type='Distiller', teacher=dict(checkpoint='/x/t.pth'), terms=[dict(weight=0.5)])
train_dataloader = dict(batch_size=2, num_workers=2, dataset=dict(ann='/a/train.json'))
optim_wrapper = dict(optimizer=dict(lr=0.1))
"""


@pytest.mark.parametrize('old, new, key', [
    ('weight=0.5', 'weight=1.0', 'model.terms.0.weight: was 0.5, is 1.0'),
    ('t.pth', 'u.pth', "model.teacher.checkpoint: was 't.pth', is 'u.pth'"),
    ('batch_size=2', 'batch_size=4', 'train_dataloader.batch_size: was 2, is 4'),
    ('train.json', 'more.json', "train_dataloader.dataset.ann: was 'train.json', is 'more.json'"),
    ('lr=0.1', 'lr=0.2', 'optim_wrapper.optimizer.lr: was 0.1, is 0.2'),
    ('/a', '/b', None), ('/x/', '/y/', None), ('num_workers=2', 'num_workers=0', None)])
def test_what_differs(old, new, key):
    assert differences(CFG, CFG.replace(old, new)) == ([key] if key else [])


def test_the_config_in_a_checkpoint_is_not_executed():
    assert differences(CFG + "model['x'] = exit(3)\nmodel = exit(3)\n", CFG)


@pytest.fixture
def parts(tmp_path, teacher_checkpoint, monkeypatch):
    """A runner of a distiller whose teacher's checkpoint, and whose annotation files, are one's own copies."""
    teacher = shutil.copy(teacher_checkpoint[1], tmp_path / 'epoch_1.pth')
    (tmp_path / 'train.json').write_text('{"images": []}')
    dataset = dict(type='RepeatDataset', times=2, dataset=dict(data_root=str(tmp_path), ann_file='train.json'))

    def runner(processes=1):
        cfg = faster_rcnn_cfg()
        cfg.update(student_type=cfg.type, type='Distiller', terms=[dict(type='Hint', layer='neck')],
                   teacher=dict(config=teacher_checkpoint[0].to_dict(), checkpoint=str(teacher)))
        monkeypatch.setattr(run_identity, 'get_world_size', lambda: processes)
        return SimpleNamespace(model=build(cfg), cfg=Config(dict(train_dataloader=dict(dataset=dataset))))
    return runner, tmp_path


def test_files_of_the_same_name_with_another_content_and_other_processes(parts):
    runner, folder = parts
    before = made_of(runner())
    assert changes(before, made_of(runner())) == changes({}, before) == []
    (folder / 'train.json').write_text('{"images": [1]}')
    state = load(str(folder / 'epoch_1.pth'))
    state['state_dict']['backbone.conv1.weight'] += 1e-3
    save_whole(state, folder / 'epoch_1.pth')
    found = changes(before, made_of(runner(2)))
    assert [line.split(': ')[0] for line in found] == [
        'content of train_dataloader.dataset.dataset.ann_file', 'number of processes',
        'weights of teacher.checkpoint']
    assert found[1] == 'number of processes: was 1, is 2'


@pytest.mark.parametrize('iteration, length, seen', [(7, 4, 3), (7, 8, 6), (7, 2, 1), (4, 2, 0), (8, 3, 3)])
def test_an_epoch_of_another_length_goes_on_after_the_same_share(iteration, length, seen):
    """Written in the second epoch, of 4 iterations each; 8: when all of it was seen, and not yet counted."""
    loop = EpochBasedTrainLoop.__new__(EpochBasedTrainLoop)
    loop._epoch, loop._iter, loop.dataloader = 1, iteration, range(4)
    runner = SimpleNamespace(train_loop=loop, train_dataloader=range(4), optim_wrapper=None, _resume=True,
                             epoch=1, iter=4, seed=0, logger=SimpleNamespace(warning=print))
    wrote, checkpoint = SeedHook(), dict(optimizer={}, meta=dict(epoch=1, iter=iteration))
    wrote.before_train_epoch(runner)
    wrote.before_save_checkpoint(runner, checkpoint)
    ended = dict(optimizer={}, meta=dict(epoch=2, iter=8))
    wrote.before_save_checkpoint(runner, ended)
    assert ended[RUN_STATE]['place'] == dict(seen=0, length=4)
    loop.dataloader = range(length)
    goes_on = SeedHook()
    goes_on._batches = SimpleNamespace(skip=0)
    goes_on.after_load_checkpoint(runner, checkpoint)
    goes_on._continue_inside(runner)
    assert goes_on._batches.skip == seen and goes_on._begun == (1, iteration - seen)


def test_refused_by_name_and_gone_on_anyway(run_config, tiny_coco, tmp_path):
    config, work = run_config(faster_rcnn_cfg()), tmp_path / 'run'
    run_tool('train', config, '--work-dir', str(work), '--cfg-options', 'train_cfg.max_epochs=1')
    resume = ('train', config, '--work-dir', str(work), '--resume')
    with pytest.raises(ConfigError, match=r'optimizer\.lr: was 0\.001, is 0\.01'):
        run_tool(*resume, '--cfg-options', 'optim_wrapper.optimizer.lr=0.01')
    with pytest.raises(ConfigError, match=r'randomness\.seed: was 0, is 1'):
        run_tool(*resume, '--seed', '1')
    shutil.copytree(tiny_coco, tmp_path / 'copy')
    notes = tmp_path / 'copy' / 'annotations' / 'train.json'
    notes.write_text(notes.read_text().replace('"iscrowd": 0', '"iscrowd": 1', 1))
    with pytest.raises(ConfigError, match=r'other files.*\n  content of train_dataloader\.dataset\.ann_file: was '):
        run_tool(*resume, '--data-root', str(tmp_path / 'copy'))
    content = load(str(work / 'epoch_1.pth'))
    for broken, message in ((dict(content, meta=dict(content['meta'], epoch=1000)), 'its epoch is 1000'),
                            (dict(content, meta=dict(content['meta'], epoch=-3)), 'epoch is -3'),
                            ({k: v for k, v in content.items() if k != 'optimizer'}, 'no optimizer state')):
        save_whole(broken, tmp_path / 'broken.pth')
        with pytest.raises(CheckpointMismatch, match=message):
            run_tool('train', config, '--work-dir', str(work), '--resume', str(tmp_path / 'broken.pth'))
    assert not (work / 'epoch_2.pth').exists()
    run_tool(*resume, '--resume-anyway', '--cfg-options', 'optim_wrapper.optimizer.lr=0.01')
    assert (work / 'epoch_2.pth').exists()


def test_resume_in_the_config_means_the_newest_whole_checkpoint(run_config, tmp_path, monkeypatch):
    """MMEngine would take the file that last_checkpoint names, damaged or not there at all. In an empty directory a
    warning says that training begins afresh: a cluster's job script says --resume on its first start too.
    """
    cfg = Config.fromfile(run_config(faster_rcnn_cfg(), extra='resume = True\n'))
    cfg.work_dir = str(tmp_path / 'run')
    said = []
    monkeypatch.setattr(training, 'print_log', lambda text, logger, level: said.append((text, level)))
    monkeypatch.setattr(training, 'check_data', lambda cfg, loaders: said.append(cfg.get('load_from')) or exit(3))
    with pytest.raises(SystemExit):
        training.prepared_runner(cfg)
    assert said == [(f'--resume: {tmp_path}/run holds no checkpoint; training begins afresh', 30), None]
    assert not cfg.resume, 'MMEngine would look for a checkpoint itself'
    (tmp_path / 'run').mkdir()
    save_whole(dict(meta={}, optimizer={}, state_dict={}), tmp_path / 'run' / 'epoch_1.pth')
    (tmp_path / 'run' / 'last_checkpoint').write_text('gone.pth')
    cfg.resume = True
    with pytest.raises(SystemExit):
        training.prepared_runner(cfg)
    assert said[-1] == str(tmp_path / 'run' / 'epoch_1.pth') and cfg.resume


@pytest.fixture
def resumed():
    """Ask the hook about a checkpoint of one optimizer in a run with another."""
    def check(stored, own, groups=1):
        parameters = [torch.nn.Parameter(torch.ones(2)) for _ in range(4)]
        split = [dict(params=parameters[i::groups]) for i in range(groups)]
        runner = type('R', (), dict(
            model=None, _resume=True, _load_from='epoch_1.pth', max_epochs=2, max_iters=8,
            cfg=Config(dict(model=dict(type='X'))),
            optim_wrapper=type('W', (), dict(optimizer=own(split))), logger=type('L', (), dict(warning=print))))
        state = stored([torch.nn.Parameter(torch.ones(2)) for _ in range(4)]).state_dict()
        ResumeCheckHook(anyway=True).after_load_checkpoint(runner, dict(meta=dict(epoch=1, iter=4), optimizer=state))
    return check


def sgd(groups):
    return torch.optim.SGD(groups, lr=0.1, momentum=0.9)


def test_the_state_of_another_optimizer_is_refused_in_words(resumed):
    resumed(sgd, sgd)
    resumed(torch.optim.AdamW, torch.optim.AdamW)
    with pytest.raises(CheckpointMismatch, match=r"state in it is not SGD's: it has .*'betas'.* SGD has .*'momentum'"):
        resumed(torch.optim.AdamW, sgd)
    with pytest.raises(CheckpointMismatch, match=r"not AdamW's: it has .*'momentum'.*load_from=CHECKPOINT"):
        resumed(sgd, torch.optim.AdamW)
    with pytest.raises(CheckpointMismatch, match=r'of 4 parameters in 1 groups, this run.s SGD has 4 in 2'):
        resumed(sgd, sgd, groups=2)


def test_one_run_a_directory_and_a_dead_one_keeps_nothing(tmp_path):
    if (child := os.fork()) == 0:
        try:
            with work_directory(str(tmp_path)):
                os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
    with work_directory(str(tmp_path)), pytest.raises(ConfigError, match='another run is training in it'), \
            work_directory(str(tmp_path)):
        pass
    with work_directory(str(tmp_path)):
        pass
