"""From a folder to an exported student: every stage a command of its own; stopped runs go on; nothing is lost."""
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import data_folders as folders
import pytest
import torch
from conftest import build, save_checkpoint
from mmengine.logging import MMLogger
from small_pairs import FOREIGN, in_process, make_pair, model_of, write_config

from kd_det.cli import distill as command
from kd_det.cli.command import call
from kd_det.config import load_config
from kd_det.errors import CheckpointMismatch, ConfigError, DataError
from kd_det.mydata.prepare import prepare
from kd_det.workflow import running
from kd_det.workflow.methods import METHODS, PREFERRED, chosen, why_not
from kd_det.workflow.planning import make_plan
from kd_det.workflow.request import Request

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp('pairs')
    return {kind: make_pair(folder, kind) for kind in ('faster', 'paa', 'gfl')}


@pytest.fixture(scope='module')
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp('folders')
    return {name: str(getattr(folders, name)(folder / name)) for name in ('coco', 'voc', 'yolo')}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """An empty directory, commands in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(running, 'launch', in_process)
    yield
    MMLogger._instance_dict.clear()


def words(pair, folder, *more):
    teacher, checkpoint, student = pair
    return ['--data', folder, '--teacher', teacher, checkpoint, '--student', student, '--epochs', '1',
            '--teacher-epochs', '1', '--out', 'out', *more]


def planned(pair, folder, **request):
    teacher, checkpoint, student = pair
    return make_plan(Request(teacher, checkpoint, student, 'out', **request), prepare(folder))


def tree(folder='out'):
    return {path: path.stat().st_mtime_ns for path in Path(folder).rglob('*') if path.is_file()}


def test_a_run_that_is_stopped_between_stages_goes_on_to_an_exported_student(pairs, data, monkeypatch, capsys):
    """Two-stage pair, COCO: three trainings, comparison, export; then nothing more is done, and nothing is replaced."""
    asked = words(pairs['faster'], data['coco'], '--no-estimate')

    def stops_at_student(command, log, report):
        if command[1].endswith('student.py'):
            raise KeyboardInterrupt
        return in_process(command, log, report)
    monkeypatch.setattr(running, 'launch', stops_at_student)
    with pytest.raises(KeyboardInterrupt):
        call(command, asked)
    teacher = Path('out/teacher/epoch_1.pth')
    before = teacher.stat().st_mtime_ns
    assert not Path('out/student').exists()
    monkeypatch.setattr(running, 'launch', in_process)
    capsys.readouterr()
    assert call(command, asked) == 0
    said = capsys.readouterr().out
    assert '[1/5] teacher: done before' in said and '[2/5] student begins' in said
    assert '[2/5] student: train [1][1/9] eta 0:00:07' in said  # as the run's own log has it
    assert teacher.stat().st_mtime_ns == before and 'AP: plain' in said
    state = torch.load('out/distilled/epoch_1.pth', weights_only=True)['state_dict']
    assert state['roi_head.bbox_head.fc_cls.weight'].shape[0] == 3  # two classes of the data, and the background
    assert [row['name'] for row in json.loads(Path('out/comparison.json').read_text())['rows']] \
        == ['plain', 'distilled', 'teacher']
    exported = next(Path('out/exported').glob('*.py')).read_text()
    assert 'kd_det' not in exported and 'teacher' not in exported and list(Path('out/exported').glob('*.pth'))
    assert '<html' in Path('out/report.html').read_text()
    for name in ('teacher', 'student', 'distilled'):
        assert Path(f'out/logs/{name}.log').is_file()
        cfg = load_config(f'out/configs/{name}.py')  # an ordinary config that runs alone
        assert cfg.train_dataloader.dataset.metainfo.classes == ('disc', 'square')
    whole = tree()
    assert call(command, asked) == 0
    assert capsys.readouterr().out.count('done before') == 5 and tree() == whole
    with pytest.raises(DataError, match=r'out/configs/\w+\.py is there with another content.*--overwrite'):
        call(command, [*asked, '--seed', '3'])
    assert tree() == whole
    Path('out/configs/distilled.py').write_text('# mine')
    with pytest.raises(DataError, match=r'distilled\.py'):
        call(command, asked)
    assert Path('out/configs/distilled.py').read_text() == '# mine'


def test_a_dry_run_measures_steps_prints_all_and_writes_nothing(pairs, data, tmp_path, capsys):
    """Dense pair of static assignment, YOLO: CrossKD by default; its configs are printed as they would be written."""
    assert call(command, words(pairs['gfl'], data['yolo'], '--dry-run')) == 0
    said = capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    assert "dict(type='CrossHead')" in said and 'method: crosskd' in said and '--- ' in said
    assert said.count(', about ') >= 4 and 'all stages: about' in said and 'measured on this machine' in said


def test_dense_heads_that_assign_by_predictions_learn_assignments(pairs, data):
    """PAA, VOC: LAD by default; objects of 29 pixels have no anchors of 64, so teacher and student get smaller ones."""
    plan = planned(pairs['paa'], data['voc'], epochs=1)
    text = '\n'.join(plan.decisions)
    assert 'method: lad' in text and 'ANCHORS: scale 8 becomes 3 in teacher and student' in text
    assert {name: cfg.model.bbox_head.anchor_generator.octave_base_scale for name, cfg in plan.configs.items()} \
        == dict(teacher=3, student=3, distilled=3)
    assert all(cfg.model.bbox_head.num_classes == 2 for cfg in plan.configs.values())
    assert plan.configs['distilled'].model.teacher.cfg_options == {'model.bbox_head.type': 'BatchedPAAHead'}
    assert plan.configs['distilled'].model.student_type == 'SingleStageDetector'
    assert plan.fine_tunes == ['bbox_head.atss_cls.weight', 'bbox_head.atss_cls.bias'] and len(plan.stages) == 5


@pytest.mark.parametrize('names', [('disc', 'square'), ('square', 'disc')])
def test_a_teacher_of_the_same_classes_teaches_as_it_comes(names, data, tmp_path):
    """In its own order of classes; with its own pipeline and anchors; no fine-tuning unless asked for."""
    pair = make_pair(tmp_path, 'paa', names)
    plan = planned(pair, data['coco'])
    assert [stage.name for stage in plan.stages] == ['student', 'distilled', 'compare', 'export']
    assert plan.configs['student'].train_dataloader.dataset.metainfo.classes == names
    assert plan.configs['student'].model.bbox_head.anchor_generator.octave_base_scale == 8
    assert any('stays, because the teacher is taken as it comes' in line for line in plan.decisions)
    assert plan.configs['distilled'].model.teacher.checkpoint == pair[1]
    longer = planned(pair, data['coco'], teacher_epochs=2)
    assert longer.fine_tunes == [] and longer.stages[0].epochs == 2


def test_fine_tuning_starts_from_everything_but_the_classes(data, tmp_path):
    """As many classes under other names: their tensors have the right shape, and must not be taken over."""
    pair = make_pair(tmp_path, 'faster', ('cat', 'dog'))
    plan = planned(pair, data['coco'], teacher_epochs=1)
    plan.write()
    start = torch.load('out/teacher_start.pth', weights_only=True)['state_dict']
    own = torch.load(pair[1], weights_only=True)['state_dict']
    assert set(own) - set(start) == {f'roi_head.bbox_head.fc_{part}.{kind}' for part in ('cls', 'reg')
                                     for kind in ('weight', 'bias')}
    assert all(torch.equal(start[name], own[name]) for name in start)
    before = tree()
    plan.write()
    assert Path('out/teacher_start.pth').stat().st_mtime_ns == before[Path('out/teacher_start.pth')]
    other = save_checkpoint(build(model_of('faster', 16, 2), seed=8), tmp_path / 'other.pth', ('cat', 'dog'))
    with pytest.raises((ConfigError, DataError), match='--overwrite'):
        planned((pair[0], other, pair[2]), data['coco'], teacher_epochs=1).write()


def test_a_teacher_without_a_checkpoint_is_trained_first(pairs, data, tmp_path):
    """From what its config begins with, which stays in its config; the flag alone is enough on the command line."""
    teacher, _, student = pairs['faster']
    plan = planned((teacher, None, student), data['coco'], teacher_epochs=2)
    assert [stage.name for stage in plan.stages] == ['teacher', 'student', 'distilled', 'compare', 'export']
    assert any('no checkpoint is given; it is trained first, from RANDOM WEIGHTS' in line for line in plan.decisions)
    assert plan.stages[0].what == 'train the teacher, epochs: 2'
    assert plan.configs['distilled'].model.teacher.checkpoint == str(tmp_path / 'out' / 'teacher' / 'epoch_2.pth')
    plan.write()
    assert not Path('out/teacher_start.pth').exists() and not plan.configs['teacher'].get('load_from')
    text = Path(teacher).read_text()
    for more, words, kept in (
            ("model['backbone'].update(init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18'))",
             r'from the backbone torchvision://resnet18', lambda cfg: cfg.model.backbone.init_cfg.checkpoint),
            ("load_from = 'of_coco.pth'", r'from of_coco\.pth \(load_from', lambda cfg: cfg.load_from),
            ("model['backbone'] = dict(type='TimmBackbone', model_name='resnet18', checkpoint='own.pth')\n"
             "model['neck'].update(in_channels='auto')", r'from the backbone own\.pth',
             lambda cfg: cfg.model.backbone.checkpoint)):
        (tmp_path / 'other.py').write_text(f'{text}\n{more}\n')
        plan = planned(('other.py', None, student), data['coco'], teacher_epochs=2)
        assert re.search(words, '\n'.join(plan.decisions)) and kept(plan.configs['teacher'])
    asked = words_without_checkpoint(pairs['faster'], data['coco'])
    assert call(command, [*asked, '--dry-run', '--no-estimate', '--overwrite']) == 0
    with pytest.raises(ConfigError, match=r'--teacher-epochs 0: the teacher .*has no checkpoint; give one'):
        planned((teacher, None, student), data['coco'], teacher_epochs=0)
    with pytest.raises(ConfigError, match=r'--teacher: found a b c; CONFIG CHECKPOINT is expected, or CONFIG alone'):
        call(command, ['--data', data['coco'], '--teacher', 'a', 'b', 'c', '--student', student])


def words_without_checkpoint(pair, folder):
    asked = words(pair, folder)
    return [word for word in asked if word != pair[1]]


def test_options_reach_both_students_and_not_the_teacher(pairs, data):
    plan = planned(pairs['faster'], data['coco'], options={'model.train_cfg.rcnn.sampler.num': 16}, seed=5,
                   batch_size=3)
    sizes = {name: cfg.model.train_cfg.rcnn.sampler.num for name, cfg in plan.configs.items()}
    assert sizes == dict(teacher=32, student=16, distilled=16)
    assert {(cfg.train_dataloader.batch_size, cfg.randomness.seed) for cfg in plan.configs.values()} == {(3, 5)}


def test_the_teacher_is_fine_tuned_on_what_the_student_sees(pairs, data, tmp_path):
    teacher, checkpoint, student = pairs['faster']
    text = Path(student).read_text().replace('scale=(128, 96)', 'scale=(64, 48)')
    (tmp_path / 'half.py').write_text(text)
    plan = planned((teacher, checkpoint, 'half.py'), data['coco'])
    seen = [cfg.train_dataloader.dataset.pipeline[2].scale for cfg in plan.configs.values()]
    assert seen == [(64, 48)] * 3


# -- methods ------------------------------------------------------------------------------------------------------
def test_a_method_that_does_not_suit_is_refused_by_name_with_those_that_do(pairs, data):
    with pytest.raises(ConfigError, match=r'--method chen does not suit this pair: .*These do: .*pkd.*soft-label'):
        planned(pairs['gfl'], data['coco'], method='chen')
    with pytest.raises(ConfigError, match=r'--method lad does not suit .*These do: chen, pkd'):
        planned(pairs['faster'], data['coco'], method='lad')
    with pytest.raises(ConfigError, match=r'--method best: unknown; known are chen, lad'):
        planned(pairs['faster'], data['coco'], method='best')


def test_a_pair_of_different_kinds_takes_a_feature_method(pairs, data):
    plan = planned((*pairs['faster'][:2], pairs['gfl'][2]), data['coco'])
    assert plan.configs['distilled'].model.terms[0].loss.type == 'PKDLoss'
    plan = planned((*pairs['gfl'][:2], pairs['faster'][2]), data['coco'])
    assert plan.configs['distilled'].model.terms[0].loss.type == 'PKDLoss'
    assert 'rpn_head' not in plan.configs['teacher'].model  # the student's anchors are no business of a dense teacher


@pytest.mark.parametrize('name, kind', [
    ('chen', 'faster'), ('lad', 'paa'), ('solad', 'paa'), ('soft-label', 'paa'), ('crosskd', 'gfl'), ('ld', 'gfl'),
    ('bckd', 'gfl'), ('pseudo-label', 'gfl'), ('pkd', 'faster'), ('pkd', 'gfl'), ('cwd', 'faster'), ('fgd', 'gfl'),
    ('mgd', 'faster'), ('hint', 'gfl'), ('backbone-hint', 'faster')])
def test_every_method_builds_for_a_pair_that_it_is_made_for(name, kind):
    assert why_not(name, model_of(kind, 8, 2), model_of(kind, 16, 2)) is None
    assert set(PREFERRED) <= set(METHODS)


@pytest.mark.parametrize('kind, method', [('faster', 'pkd'), ('gfl', 'crosskd'), ('paa', 'lad')])
def test_the_default_is_what_the_studies_favour_for_the_head(kind, method):
    assert chosen(None, model_of(kind, 8, 2), model_of(kind, 16, 2)) == method


# -- bad input ----------------------------------------------------------------------------------------------------
def base_that_is_not_there(pairs, folder):
    (folder / 'broken.py').write_text("_base_ = './nowhere.py'\n")
    return {'--student': 'broken.py'}


def distil_config(pairs, folder):
    model = model_of('faster', 8, 2)
    model.update(type='Distiller', student_type='FasterRCNN', terms=[], teacher=dict(config='x', checkpoint='y'))
    return {'--student': write_config(folder / 'distil.py', model)}


def backbone_weights(pairs, folder):
    torch.save(dict(state_dict={'conv1.weight': torch.zeros(8, 3, 7, 7)}), folder / 'imagenet.pth')
    return {'--teacher': (pairs['faster'][0], 'imagenet.pth')}


def masks(pairs, folder):
    (folder / 'mask.py').write_text("_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'\n")
    return {'--student': 'mask.py'}


def in_the_way(pairs, folder):
    (folder / 'out' / 'student').mkdir(parents=True)
    (folder / 'out' / 'configs').mkdir()
    (folder / 'out' / 'configs' / 'student.py').write_text('# of somebody else\n')
    return {}


@pytest.mark.parametrize('change, error, message', [
    (lambda pairs, folder: {'--teacher': (pairs['faster'][0], 'nowhere.pth')}, ConfigError,
     r"there is no checkpoint 'nowhere\.pth'"),
    (lambda pairs, folder: {'--teacher': (pairs['faster'][0], pairs['gfl'][1])}, CheckpointMismatch,
     r'--teacher checkpoint .*gfl\.pth does not fit'),
    (lambda pairs, folder: {'--teacher-epochs': '0'}, ConfigError,
     r"--teacher-epochs 0: .*'a', 'b', 'c'.*fine-tuned first"),
    (lambda pairs, folder: {'--epochs': '0'}, ConfigError, '--epochs 0: at least 1'),
    (lambda pairs, folder: {'--teacher-epochs': '-1'}, ConfigError, '--teacher-epochs -1: at least 0'),
    (lambda pairs, folder: {'--data': 'nowhere'}, DataError, "'nowhere' does not exist"),
    (lambda pairs, folder: {'--student': 'nowhere.py'}, ConfigError, r"'nowhere\.py' does not exist"),
    (backbone_weights, CheckpointMismatch, r'imagenet\.pth does not fit.*Not one tensor is .*--teacher CONFIG alone'),
    (base_that_is_not_there, ConfigError, r'broken\.py.* cannot be read.*nowhere\.py'),
    (distil_config, ConfigError, r'--student .*distil\.py: it is itself a distil config'),
    (masks, ConfigError, r'mask\.py: it learns masks, and \d+ objects have boxes only.*train\.json'),
    (in_the_way, DataError, r'student\.py is there with another content')])
def test_bad_input_is_refused_before_anything_is_written(change, error, message, pairs, data, tmp_path):
    asked = words(pairs['faster'], data['coco'], '--no-estimate')
    for flag, value in change(pairs, tmp_path).items():
        at = asked.index(flag) + 1
        asked[at:at + (2 if flag == '--teacher' else 1)] = value if isinstance(value, tuple) else [value]
    before = tree('.')
    with pytest.raises(error, match=f'(?s){message}'):
        call(command, asked)
    assert tree('.') == before


def test_a_stage_that_fails_is_named_with_its_log(pairs, data, monkeypatch, capsys):
    def fails(command, log, report):
        Path(log).write_text('so\nit went wrong\n')
        return 3
    monkeypatch.setattr(running, 'launch', fails)
    assert call(command, words(pairs['faster'], data['coco'], '--no-estimate')) == 1
    said = capsys.readouterr().out
    assert '[1/5] teacher: FAILED with status 3' in said and 'it went wrong' in said
    assert 'Give the same command again' in said


# -- as processes -------------------------------------------------------------------------------------------------
def runs(pid: int) -> bool:
    """A process that was killed stays as a zombie where nobody waits for it; that is no longer a run."""
    try:
        return Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize('kind, format, how', [('faster', 'voc', signal.SIGKILL), ('paa', 'yolo', signal.SIGKILL),
                                               ('gfl', 'coco', signal.SIGTERM)])
def test_stopped_inside_a_stage_it_goes_on(kind, format, how, pairs, data, tmp_path):
    """SIGKILL of everything while the distilled student trains, or SIGTERM, which is passed on to the training."""
    asked = [sys.executable, '-m', 'kd_det', 'distill', *words(pairs[kind], data[format], '--no-estimate')]
    asked[asked.index('--epochs') + 1] = '6'
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1'}
    first = subprocess.Popen(asked, cwd=tmp_path, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    lock = tmp_path / 'out' / 'distilled' / '.lock'
    try:
        for _ in range(3000):
            if list((tmp_path / 'out' / 'distilled').glob('epoch_*.pth')) or first.poll() is not None:
                break
            time.sleep(0.1)
        assert first.poll() is None
    finally:
        first.send_signal(how)
        first.wait()
        trainer = int(lock.read_text().split()[1])
        if how == signal.SIGKILL:
            os.kill(trainer, signal.SIGKILL)
    time.sleep(1)
    assert not runs(trainer) and first.returncode == (130 if how == signal.SIGTERM else -signal.SIGKILL)
    assert not (tmp_path / 'out' / 'distilled' / 'epoch_6.pth').exists()
    done = subprocess.run(asked, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert 'student: done before' in done.stdout and 'distilled goes on' in done.stdout
    assert (tmp_path / 'out' / 'report.html').is_file() and FOREIGN
