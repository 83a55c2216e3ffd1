"""A chain of teachers: what each link starts from, and what happens when it stops in between."""
import contextlib
import copy
import io
import os
import shutil
import signal

import pytest
import torch
from conftest import RUN_CONFIG, build, run_script, run_tool, save_checkpoint
from dense_detectors import dense_cfg
from mmengine.config import Config, ConfigDict

from kd_det.chain import links_of
from kd_det.compat.checkpoint import load
from kd_det.engine.distill_hook import DistillHook
from kd_det.engine.seed_hook import SeedHook
from kd_det.errors import ConfigError

SCHEDULE = """
param_scheduler = [dict(type='LinearLR', start_factor=0.1, by_epoch=True, begin=0, end=2, convert_to_iter_based=True)]
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=2, val_interval=100)
train_dataloader.update(batch_size=2)
train_dataloader['dataset'].update(indices=4)
"""


@pytest.fixture(scope='module')
def teachers(tmp_path_factory):
    """Two teachers of different widths, as (config file, checkpoint)."""
    folder = tmp_path_factory.mktemp('teachers')
    found = []
    for width in (16, 24):
        cfg = dense_cfg('gfl', width=width)
        config = folder / f'teacher_{width}.py'
        config.write_text(f'model = {cfg.to_dict()!r}\n')
        found.append((str(config), save_checkpoint(build(cfg, width), folder / f'teacher_{width}.pth')))
    return found


@pytest.fixture(scope='module')
def config(tiny_coco, tmp_path_factory):
    """A distil config that inherits the head; its own teacher is not there, the chain brings others."""
    cfg = ConfigDict(dense_cfg('gfl'))
    cfg.update(student_type=cfg.type, type='Distiller',
               terms=[dict(type='LD'), dict(type='Hint', layer='neck')],
               teacher=dict(config='gone.py', checkpoint='gone.pth', check=0, inherit=['bbox_head']))
    path = tmp_path_factory.mktemp('config') / 'distil.py'
    path.write_text(RUN_CONFIG.format(root=f'{tiny_coco}/', model=cfg.to_dict()) + SCHEDULE)
    return str(path)


@pytest.fixture(scope='module')
def whole(config, teachers, tmp_path_factory):
    """(work directory, what its links began with, what was printed) of a chain that nothing interrupts."""
    work = tmp_path_factory.mktemp('whole') / 'w'
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as said:
        seen = begun(patch)
        run_tool('train', *chain_arguments(config, teachers, work))
    return work, seen, said.getvalue()


def chain_arguments(config, teachers, work, *more):
    return (config, *(word for pair in teachers for word in ('--chain', *pair)), '--work-dir', str(work), *more)


def begun(monkeypatch):
    """What every run begins with: (link, weights, adapters, states of the optimizer, epoch, learning rate, teacher)."""
    seen, hook = [], SeedHook.before_train_iter

    def look(self, runner, batch_idx, data_batch=None):
        if not seen or seen[-1]['link'] != runner.cfg.chain.link:
            model = runner.model
            seen.append(dict(
                link=runner.cfg.chain.link, weights={k: v.clone() for k, v in model.state_dict().items()},
                adapters=[p.clone() for p in model.terms.parameters()] if hasattr(model, 'terms') else [],
                states=len(runner.optim_wrapper.optimizer.state), epoch=runner.epoch, iter=runner.iter,
                rate=runner.optim_wrapper.get_lr()['lr'][0],
                teacher=model.teacher.checkpoint if hasattr(model, 'teacher') else None))
        hook(self, runner, batch_idx, data_batch)
    monkeypatch.setattr(SeedHook, 'before_train_iter', look)
    return seen


def equal(one, other):
    return set(one) == set(other) and all(torch.equal(one[k], other[k]) for k in one)


def test_the_second_run_starts_from_the_firsts_student_and_from_nothing_else(whole, teachers):
    """Trap 10: its weights, a fresh optimizer and schedule, adapters of its own, nothing inherited."""
    work, (first, second), said = whole
    end = load(str(work / 'link_1' / 'epoch_2.pth'))
    assert equal(second['weights'], end['state_dict']) and not equal(first['weights'], end['state_dict'])
    assert (second['states'], second['epoch'], second['iter'], second['rate']) == (0, 0, 0, first['rate'])
    assert len(end['optimizer']['state']) > 0 and end['optimizer']['param_groups'][0]['lr'] > second['rate']
    assert [first['teacher'], second['teacher']] == [checkpoint for _, checkpoint in teachers]
    trained = list(end['kd_det']['terms'].values())
    assert len(trained) == len(second['adapters']) > 0
    assert not any(torch.equal(a, b) for a, b in zip(trained, second['adapters']))
    # the first inherits the head from its teacher, the second does not
    near, far = (load(checkpoint)['state_dict']['bbox_head.gfl_reg.weight'] for _, checkpoint in teachers)
    assert torch.equal(first['weights']['bbox_head.gfl_reg.weight'], near)
    assert not torch.equal(second['weights']['bbox_head.gfl_reg.weight'], far)
    build(dense_cfg('gfl')).load_state_dict(load(str(work / 'link_2' / 'epoch_2.pth'))['state_dict'])
    assert said.strip().endswith(f'end of the chain: {work}/link_2/epoch_2.pth')


def test_a_link_is_an_ordinary_run_which_its_own_config_trains_alone(whole, tmp_path):
    work = whole[0]
    alone = next((work / 'link_2').glob('*.py'))
    assert alone.name == 'distil_link_2.py' and 'inherit' not in alone.read_text()
    run_tool('train', str(alone), '--work-dir', str(tmp_path / 'alone'))
    ours, theirs = (load(str(path / 'epoch_2.pth'))['state_dict'] for path in (tmp_path / 'alone', work / 'link_2'))
    assert equal(ours, theirs)


def test_done_is_done_unless_a_link_began_with_other_weights(whole, config, teachers, tmp_path):
    work = tmp_path / 'w'
    shutil.copytree(whole[0], work)
    before = {path: path.stat().st_mtime_ns for path in work.glob('link_*/*.pth')}
    run_tool('train', *chain_arguments(config, teachers, work))
    assert before == {path: path.stat().st_mtime_ns for path in work.glob('link_*/*.pth')} and len(before) == 4
    end = load(str(work / 'link_1' / 'epoch_2.pth'))
    end['state_dict']['bbox_head.gfl_reg.bias'] += 1
    torch.save(end, work / 'link_1' / 'epoch_2.pth')
    with pytest.raises(ConfigError,
                       match=r'link 2 was trained with another config, or from other weights:\n  chain.st'):
        run_tool('train', *chain_arguments(config, teachers, work))


def test_a_chain_that_stops_goes_on_where_it_stopped_and_ends_the_same(whole, config, teachers, tmp_path, monkeypatch):
    """Stopped in the second link, by a signal; the first is not trained again."""
    work, hook = tmp_path / 'w', DistillHook.after_train_iter
    shutil.copytree(whole[0], work)
    shutil.rmtree(work / 'link_2')
    first = work / 'link_1' / 'epoch_2.pth'
    before = first.stat().st_mtime_ns

    def stop(self, runner, *args, **kwargs):
        hook(self, runner, *args, **kwargs)
        if runner.iter == 2:
            signal.raise_signal(signal.SIGTERM)
    monkeypatch.setattr(DistillHook, 'after_train_iter', stop)
    with pytest.raises(SystemExit) as stopped:
        run_tool('train', *chain_arguments(config, teachers, work))
    assert stopped.value.code == 128 + signal.SIGTERM and (work / 'link_2' / 'interrupted.pth').exists()
    monkeypatch.setattr(DistillHook, 'after_train_iter', hook)
    seen = begun(monkeypatch)
    run_tool('train', *chain_arguments(config, teachers, work))
    assert [(one['link'], one['iter']) for one in seen] == [(2, 3)] and first.stat().st_mtime_ns == before
    ours, theirs = (load(str(path / 'link_2' / 'epoch_2.pth'))['state_dict'] for path in (work, whole[0]))
    assert equal(ours, theirs)


@pytest.mark.slow
def test_two_processes_train_a_chain(config, teachers, tmp_path):
    output = run_script('dist_train.sh', config, '2', *chain_arguments(config, teachers, tmp_path / 'w')[1:],
                        '--cfg-options', 'train_cfg.max_epochs=1', 'log_level=INFO')
    assert 'link 2 of 2 begins' in output and (tmp_path / 'w' / 'link_2' / 'epoch_1.pth').exists()
    again = run_script('dist_train.sh', config, '2', *chain_arguments(config, teachers, tmp_path / 'w')[1:],
                       '--cfg-options', 'train_cfg.max_epochs=1', 'log_level=INFO')
    assert 'link 2 of 2 is finished' in again


def test_the_control_is_the_plain_student_trained_as_long(run_config, tmp_path, monkeypatch):
    seen = begun(monkeypatch)
    run_tool('train', run_config(dense_cfg('gfl'), 'plain.py', SCHEDULE), '--links', '2', '--work-dir',
             str(tmp_path / 'w'), '--cfg-options', 'train_cfg.max_epochs=1')
    assert [one['link'] for one in seen] == [1, 2]
    assert equal(seen[1]['weights'], load(str(tmp_path / 'w' / 'link_1' / 'epoch_1.pth'))['state_dict'])
    assert seen[1]['states'] == 0 and seen[1]['rate'] == seen[0]['rate']


def test_a_link_of_another_chain_is_refused(whole, config, teachers, tmp_path):
    shutil.copytree(whole[0], tmp_path / 'w')
    rate = ('--cfg-options', 'optim_wrapper.optimizer.lr=0.002')
    for words, more in ((r'optim_wrapper.optimizer.lr: was 0.001, is 0.002', rate),
                        (r'model.teacher.checkpoint: was \'teacher_16.pth\', is \'teacher_24.pth\'', ())):
        with pytest.raises(ConfigError,
                           match=rf'link_1: link 1 was trained with another config(.|\n)*{words}(.|\n)*Give'):
            run_tool('train', *chain_arguments(config, teachers if more else teachers[::-1], tmp_path / 'w', *more))


def test_the_plan_shows_every_link(config, teachers, tmp_path, capsys):
    run_tool('train', *chain_arguments(config, teachers, tmp_path / 'w', '--print-plan'))
    said = capsys.readouterr().out
    places = [said.index(words) for words in ('link 1 of 2', 'teacher_16.pth', 'link 2 of 2', 'teacher_24.pth')]
    assert places == sorted(places)
    assert said.count('the student begins with the teacher\'s bbox_head') == 1 and not (tmp_path / 'w').exists()


@pytest.mark.parametrize('words, message', [
    (['T1'], '--chain: one teacher is no chain'), (['T1', 'gone'], r'there is no file .*gone.pth'),
    (['T1', 'T2', '--links', '2'], '--chain and --links'),
    (['T1', 'T2', '--resume', 'x.pth'], '--resume CHECKPOINT: has no'),
    (['T1', 'T2', '--teacher', 'a', 'b'], '--teacher: has no meaning'), (['--links', '1'], '--links: found 1'),
    (['--links', '0'], '--links: found 0'), (['T1', 'broken'], 'have 17 bins, the teacher\'s 9'),
], ids=' '.join)
def test_what_cannot_be_meant_is_refused_before_anything_is_written(config, teachers, tmp_path, words, message):
    cfg = dense_cfg('gfl', reg_max=8)  # edges of nine bins
    broken = tmp_path / 'broken.py'
    broken.write_text(f'model = {cfg.to_dict()!r}\n')
    pairs = dict(T1=teachers[0], T2=teachers[1], gone=('a.py', str(tmp_path / 'gone.pth')),
                 broken=(str(broken), teachers[1][1]))
    line = [word for name in words for word in (('--chain', *pairs[name]) if name in pairs else (name,))]
    with pytest.raises(ConfigError, match=message):
        run_tool('train', config, '--work-dir', str(tmp_path / 'w'), *line)
    assert not (tmp_path / 'w').exists()


def test_a_plain_config_has_no_chain_of_teachers(run_config, teachers, tmp_path):
    with pytest.raises(ConfigError, match='\'SingleStageDetector\' has no teacher'):
        run_tool('train', *chain_arguments(run_config(dense_cfg('gfl')), teachers, tmp_path / 'w'))


def test_links_are_copies(teachers):
    cfg = Config(dict(model=dict(type='Distiller', student_type='GFL', teacher=dict(
        config='a', checkpoint='b', inherit=['neck']), terms=[]), work_dir='w'))
    before = copy.deepcopy(cfg._cfg_dict.to_dict())
    links = links_of(cfg, [*teachers, teachers[0]])
    assert cfg._cfg_dict.to_dict() == before and [link.work_dir for link in links] == [os.path.join('w', f'link_{i}')
                                                                                      for i in (1, 2, 3)]
    assert ['inherit' in link.cfg.model.teacher for link in links] == [True, False, False]
