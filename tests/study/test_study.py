"""The study runner, with a stub in place of kd-det train: what it trains, skips, refuses, records and shows."""
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from kd_det.cli import study as cli
from kd_det.cli.command import call, guarded
from kd_det.compare.detections import file_hash, read_detections
from kd_det.errors import StudyError
from kd_det.study.breakdown import breakdown
from kd_det.study.configs import split_options
from kd_det.study.definition import Study, StudyRow, load_study
from kd_det.study.evaluating import detections_path
from kd_det.study.identity import config_hash, differing_keys, weights_hash
from kd_det.study.image_intervals import Found
from kd_det.study.importing import import_run
from kd_det.study.planning import Settings, option_arguments, plan
from kd_det.study.recording import annotations
from kd_det.study.records import read_record
from kd_det.study.running import Scheduler
from kd_det.study.table import paired_difference, replace_marked, study_table, t_quantile

ROOT = Path(__file__).resolve().parents[2]

# Trains nothing: writes what a run of kd-det train leaves. `stub` in the config says how it ends.
STUB = '''
import json, os, runpy, shutil, sys, time
args = sys.argv[1:]
def after(flag):
    return args[args.index(flag) + 1] if flag in args else None
cfg = {k: v for k, v in runpy.run_path(args[0]).items() if not k.startswith('__')}
seed, work_dir = int(after('--seed')), after('--work-dir')
cfg['randomness'] = dict(seed=seed)
cfg['work_dir'] = work_dir
cfg['resume'] = '--resume' in args
cfg['custom_hooks'] = [dict(type='WholeCheckpointHook'), dict(type='InterruptHook')]
for word in args[args.index('--cfg-options') + 1:] if '--cfg-options' in args else []:
    if '=' in word:
        key, value = word.split('=', 1)
        *path, last = key.split('.')
        part = cfg
        for name in path:
            part = part[name]
        part[last] = float(value) if value.replace('.', '').isdigit() else value
stub = cfg['stub']
print('OMP', os.environ['OMP_NUM_THREADS'], 'ARGS', args)
if stub.get('crash'):
    sys.exit('the stub crashes')
name = f'20260101_{len(os.listdir(work_dir)) if os.path.isdir(work_dir) else 0:06d}'
session = os.path.join(work_dir, name)
os.makedirs(os.path.join(session, 'vis_data'))
for path in (os.path.join(session, 'vis_data', 'config.py'), os.path.join(work_dir, 'config.py')):
    with open(path, 'w') as file:
        file.write('\\n'.join(f'{k} = {v!r}' for k, v in cfg.items()))
def stamp(text):
    with open(os.path.join(session, name + '.log'), 'a') as file:
        file.write(text + '\\n')
def line(**record):
    with open(os.path.join(session, 'vis_data', name + '.json'), 'a') as file:
        file.write(json.dumps(record) + '\\n')
epochs = cfg['train_cfg']['max_epochs']
first = 1
if '--resume' in args:
    first = int(open(os.path.join(work_dir, 'last_checkpoint')).read().split('epoch_')[1].split('.')[0]) + 1
stamp('2026/01/01 00:00:00 - mmengine - INFO - start')
for epoch in range(first, epochs + 1):
    line(loss=1.0, iter=10 * epoch, epoch=epoch, step=10 * epoch)
    shutil.copy(stub['weights'], os.path.join(work_dir, f'epoch_{epoch}.pth'))
    with open(os.path.join(work_dir, 'last_checkpoint'), 'w') as file:
        file.write(os.path.join(work_dir, f'epoch_{epoch}.pth'))
    if stub.get('sleep'):
        time.sleep(stub['sleep'])
    if stub.get('stop_once') and epoch == 1 and '--resume' not in args:
        sys.exit(1)
    ap = stub['ap'] + 0.01 * seed
    line(**{'coco/bbox_mAP': ap if epoch == epochs else 0.99, 'coco/bbox_mAP_50': 0.9, 'coco/disc_precision': ap,
            'step': epoch})
stamp('2026/01/01 00:01:30 - mmengine - INFO - end')
'''

# Evaluates nothing: says of every network of a run what the stub above logged, and that it detected one thing.
STUB_EVALUATOR = '''
import glob, gzip, hashlib, json, os, runpy, sys
run_dir, folder = sys.argv[1:3]
cfg = runpy.run_path(glob.glob(os.path.join(run_dir, "*.py"))[0])
ap = cfg["stub"]["ap"] + 0.01 * cfg["randomness"]["seed"] + cfg["stub"].get("evaluates_to", 0)
os.makedirs(folder, exist_ok=True)
name = f"{os.path.basename(os.path.dirname(run_dir))} {cfg['randomness']['seed']}"
found = [dict(image_id=1, category_id=1, bbox=[0, 0, 1, 1], score=1.0, name=name)]
packed = gzip.compress(json.dumps(found).encode(), mtime=0)
with open(os.path.join(folder, "first.detections.json.gz"), "wb") as file:
    file.write(packed)
with open(os.path.join(folder, "evaluation.json"), "w") as file:
    json.dump(dict(first=dict(accuracy=dict(AP=100 * ap, AP50=90.0, AP75=None, APs=None, APm=None, APl=None),
                              per_class=dict(disc=100 * ap), sha256=hashlib.sha256(packed).hexdigest())), file)
'''

CONFIG = '''
data_root = 'data/'
model = {model!r}
train_cfg = dict(max_epochs=2, val_interval=1)
optim_wrapper = dict(optimizer=dict(type='AdamW', lr=1e-3))
train_dataloader = dict(batch_size=4, dataset=dict(ann_file='annotations/train.json', data_root=data_root))
val_dataloader = dict(dataset=dict(ann_file='annotations/eval.json', data_root=data_root))
val_evaluator = dict(type='CocoMetric', ann_file=data_root + 'annotations/eval.json')
stub = {stub!r}
'''


@pytest.fixture
def place(tmp_path):
    """A function that writes a study of teacher, base and distilled row, and returns (study, settings)."""
    (tmp_path / 'configs').mkdir()
    (tmp_path / 'stub.py').write_text(STUB)
    (tmp_path / 'stub_evaluator.py').write_text(STUB_EVALUATOR)
    for name, value in (('teacher', 1.0), ('student', 2.0)):
        torch.save(dict(state_dict=dict(w=torch.full((3,), value)), meta={}), tmp_path / f'{name}.pth')

    def write(split='train->eval', jobs=1, seeds=(0, 1), **stubs):
        for name, ap in (('teacher', 0.6), ('base', 0.5), ('all', 0.54)):
            model = dict(type='Plain')
            if name == 'all':
                model['teacher'] = dict(config='configs/teacher.py', checkpoint='nowhere.pth')
            stub = dict(dict(ap=ap, weights=str(tmp_path / ('teacher.pth' if name == 'teacher' else 'student.pth'))),
                        **stubs.get(name, {}))
            (tmp_path / f'configs/{name}.py').write_text(CONFIG.format(model=model, stub=stub))
        (tmp_path / 'study.json').write_text(json.dumps(dict(
            name='toy', title='Toy', split=split, base='base', teacher=dict(row='teacher', seed=0), rows=[
                dict(name='teacher', config='configs/teacher.py', seeds=[0], description='large'),
                dict(name='base', config='configs/base.py', seeds=list(seeds), description='small'),
                dict(name='all', config='configs/all.py', seeds=list(seeds), description='taught')])))
        return load_study(str(tmp_path / 'study.json')), Settings(
            root=str(tmp_path), work_dir=str(tmp_path / 'work_dirs/studies'), results=str(tmp_path / 'results'),
            trainer=(str(tmp_path / 'stub.py'),), evaluator=(str(tmp_path / 'stub_evaluator.py'),), jobs=jobs,
            poll_seconds=0.02)
    return write


def train(study, settings, **chosen):
    return [task.name for task in Scheduler(study, settings, plan(study, settings, **chosen)).run()]


def record(settings, row, seed=0):
    return read_record(f'{settings.results}/toy/{row}_seed{seed}.json')


def edit(settings, name, old, new):
    path = Path(settings.root) / 'configs' / name
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


# -- identity ----------------------------------------------------------------------------------------------------------
def test_hash_ignores_place_and_seed_and_sees_everything_else():
    content = dict(data_root='data/x/', optim_wrapper=dict(optimizer=dict(lr=1e-3)), work_dir='a',
                   val_evaluator=dict(ann_file='data/x/annotations/eval.json'), randomness=dict(seed=0),
                   model=dict(teacher=dict(config='t.py', checkpoint='a.pth')), sizes=(1, 2))
    moved = dict(content, data_root='/far/x/', val_evaluator=dict(ann_file='/far/x/annotations/eval.json'),
                 work_dir='b', resume=True, load_from='c.pth', launcher='none', randomness=dict(seed=3), sizes=[1, 2],
                 custom_hooks=[dict(type='WholeCheckpointHook'), dict(type='InterruptHook')],
                 model=dict(teacher=dict(config='t.py', checkpoint='b.pth')))
    reference = config_hash(Config(content))
    assert config_hash(Config(moved)) == reference
    for other in (dict(optim_wrapper=dict(optimizer=dict(lr=2e-3))), dict(custom_hooks=[dict(type='EMAHook')]),
                  dict(randomness=dict(seed=0, deterministic=True)),
                  dict(model=dict(teacher=dict(config='u.py', checkpoint='a.pth'))),
                  dict(val_evaluator=dict(ann_file='data/x/annotations/dev.json'))):
        assert config_hash(Config(dict(content, **other))) != reference
    assert differing_keys(Config(content), Config(dict(content, optim_wrapper=dict(optimizer=dict(lr=1))))) \
        == ['optim_wrapper.optimizer.lr']


def test_weights_hash_depends_on_the_tensors_alone(tmp_path):
    w, b = torch.arange(4.0), torch.ones(2, dtype=torch.float64)
    torch.save(dict(state_dict=dict(w=w, b=b), meta=dict(time='now'), optimizer=dict(a=1)), tmp_path / 'a.pth')
    torch.save(dict(state_dict=dict(b=b, w=w)), tmp_path / 'b.pth')
    assert weights_hash(str(tmp_path / 'a.pth')) == weights_hash(str(tmp_path / 'b.pth'))
    for state in (dict(w=w + 1, b=b), dict(w=w.reshape(2, 2), b=b), dict(v=w, b=b), dict(w=w, b=b.float())):
        torch.save(dict(state_dict=state), tmp_path / 'c.pth')
        assert weights_hash(str(tmp_path / 'c.pth')) != weights_hash(str(tmp_path / 'a.pth'))


def test_the_studies_of_this_repository_name_existing_configs():
    files = sorted((ROOT / 'tools/benchmarks/studies').glob('*.json'))
    assert files
    for path in files:
        study = load_study(str(path))
        assert study.name == path.stem
        for row in study.rows:
            assert (ROOT / row.config).is_file(), row.config


def test_a_split_changes_every_annotation_file():
    loader = dict(dataset=dict(type='TwoViewDataset', dataset=dict(ann_file='annotations/train.json')))
    cfg = Config(dict(train_dataloader=loader, val_dataloader=dict(dataset=dict(ann_file='annotations/eval.json')),
                      val_evaluator=[dict(ann_file='data/annotations/eval.json')]))
    assert split_options(cfg, 'train->eval') == {}
    assert split_options(cfg, 'fit->dev') == {
        'train_dataloader.dataset.dataset.ann_file': 'annotations/fit.json',
        'val_dataloader.dataset.ann_file': 'annotations/dev.json',
        'val_evaluator.0.ann_file': 'data/annotations/dev.json'}


def test_a_split_leaves_files_of_a_config_own_and_refuses_them_where_they_may_hold_its_evaluation_images():
    """20 % of the labels stay 20 %: train.json in their place would be all of them, and the study would say nothing."""
    cfg = Config(dict(
        train_dataloader=dict(dataset=dict(datasets=[dict(ann_file='data/x-labels20/labelled.json'),
                                                     dict(ann_file='data/x-labels20/pseudo.json')])),
        val_dataloader=dict(dataset=dict(ann_file='annotations/val.json')),
        val_evaluator=dict(ann_file='data/annotations/eval.json')))
    assert split_options(cfg, 'train->eval') == {'val_dataloader.dataset.ann_file': 'annotations/eval.json'}
    with pytest.raises(StudyError,
                       match=r"datasets\.0\.ann_file of the config is .*labelled.json.*may hold images of dev"):
        split_options(cfg, 'fit->dev')


def test_the_record_names_every_file_that_was_trained_on(tmp_path):
    for place in ('data/annotations/eval.json', 'data/annotations/train.json', 'part/labelled.json',
                  'part/unlabelled.json'):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(place)
    cfg = Config(dict(
        train_dataloader=dict(dataset=dict(datasets=[dict(ann_file='part/labelled.json'),
                                                     dict(ann_file='annotations/train.json')])),
        unlabelled_dataloader=dict(dataset=dict(ann_file='part/unlabelled.json')),
        val_evaluator=dict(ann_file='data/annotations/eval.json')))
    found = annotations(cfg, str(tmp_path))
    assert set(found) == {'eval.json', 'train.json', 'labelled.json', 'unlabelled.json'}
    assert len(set(found.values())) == 4


def test_options_survive_the_command_line_or_are_refused():
    assert option_arguments({'a.lr': 0.5, 'b': [1, 2], 'c': True, 'd': 'x.pth'}) \
        == ['a.lr=0.5', 'b=[1,2]', 'c=True', 'd=x.pth']
    with pytest.raises(StudyError, match='config file'):
        option_arguments({'bbox': dict(type='BoxMimicryLoss')})


# -- running -----------------------------------------------------------------------------------------------------------
def test_runs_everything_records_it_without_machine_paths_and_then_has_nothing_to_do(place, monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '7')
    study, settings = place(jobs=2)
    assert train(study, settings) == []
    found = record(settings, 'all', 1)
    assert found['accuracy']['AP'] == pytest.approx(55.0)  # the last epoch's, not the better first one's 99
    assert found['per_class'] == {'disc': found['accuracy']['AP']} and found['accuracy']['APs'] is None
    assert found['wall_seconds'] == 90 and found['schedule'] == dict(epochs=2, batch_size=4, optimizer='AdamW', lr=1e-3)
    assert found['teacher'] == dict(row='teacher', seed=0, weights_sha256=record(settings, 'teacher')['weights_sha256'])
    assert 'teacher' not in record(settings, 'base')
    assert found['hardware']['threads'] == 1 and found['hardware']['jobs'] == 2
    assert {'torch', 'mmdet', 'mmengine', 'mmcv', 'numpy', 'kd_det'} <= set(found['versions'])
    assert found['command'] == (
        'kd-det train configs/all.py --seed 1 --work-dir work_dirs/studies/toy/all/seed1 --cfg-options '
        'model.teacher.checkpoint=work_dirs/studies/toy/teacher/seed0/epoch_2.pth')
    for path in Path(settings.results).rglob('*.json'):
        assert settings.root not in path.read_text()
    for row, seed in (('all', 1), ('base', 0), ('teacher', 0)):
        kept = detections_path(settings.results, study.row(row), seed)
        assert read_detections(kept)[0]['name'] == f'{row} {seed}'
        assert file_hash(kept) == record(settings, row, seed)['detections']['sha256']
    output = Path(settings.run_dir(study.row('all'), 1) + '.log').read_text()
    assert 'OMP 1' in output and 'work_dirs/studies/toy/teacher/seed0/epoch_2.pth' in output
    assert {task.state for task in plan(study, settings)} == {'recorded'}
    before = Path(settings.run_dir(study.row('all'), 1) + '.log').stat().st_mtime_ns
    assert train(study, settings) == []
    assert Path(settings.run_dir(study.row('all'), 1) + '.log').stat().st_mtime_ns == before


def test_rows_and_seeds_are_chosen_and_the_teacher_comes_along(place):
    study, settings = place()
    assert [t.name for t in plan(study, settings, rows=['all'], seeds=[4, 2])] \
        == ['teacher seed 0', 'all seed 2', 'all seed 4']
    assert [t.name for t in plan(study, settings, rows=['base'])] == ['base seed 0', 'base seed 1']
    assert [t.name for t in plan(study, settings)][1:] == ['base seed 0', 'all seed 0', 'base seed 1', 'all seed 1']
    with pytest.raises(StudyError, match="no row 'nosuch'"):
        plan(study, settings, rows=['nosuch'])


def test_a_changed_config_is_refused_until_redo(place):
    study, settings = place(seeds=[0])
    train(study, settings)
    edit(settings, 'base.py', "'ap': 0.5", "'ap': 0.3")
    with pytest.raises(StudyError, match=r'another config.*base seed 0.*--redo'):
        train(study, settings)
    assert train(study, settings, rows=['all']) == []
    settings.redo = True
    assert train(study, settings) == []
    assert record(settings, 'base')['accuracy']['AP'] == 30.0


def test_an_interrupted_run_is_resumed(place):
    study, settings = place(seeds=[0], base=dict(stop_once=True))
    assert train(study, settings) == ['base seed 0'] and record(settings, 'base') is None
    assert record(settings, 'all') is not None      # the failure stops nobody else
    assert train(study, settings) == []
    assert record(settings, 'base')['accuracy']['AP'] == 50.0
    assert "'--resume'" in Path(settings.run_dir(study.row('base'), 0) + '.log').read_text()


def test_a_finished_run_without_a_record_is_recorded_and_not_trained(place):
    study, settings = place(seeds=[0])
    train(study, settings, rows=['base'])
    expected = record(settings, 'base')
    os.remove(f'{settings.results}/toy/base_seed0.json')
    os.remove(detections_path(settings.results, study.row('base'), 0))
    settings.trainer = ('nowhere.py',)
    assert train(study, settings, rows=['base']) == []
    assert record(settings, 'base') == expected
    assert os.path.isfile(detections_path(settings.results, study.row('base'), 0))


def test_a_failed_teacher_fails_its_students_and_no_one_else(place, capsys):
    study, settings = place(seeds=[0], teacher=dict(crash=True))
    assert train(study, settings) == ['teacher seed 0', 'all seed 0']
    assert record(settings, 'base') is not None and record(settings, 'all') is None
    assert 'the stub crashes' in capsys.readouterr().out


def test_a_teacher_whose_weights_are_gone_is_trained_again_for_a_new_student(place):
    study, settings = place()
    train(study, settings, rows=['all'], seeds=[0])
    before = record(settings, 'teacher')
    for path in Path(settings.run_dir(study.row('teacher'), 0)).glob('*.pth'):
        path.unlink()                               # logs and last_checkpoint stay
    assert [t.state for t in plan(study, settings, rows=['all'], seeds=[0])] == ['recorded', 'recorded']
    assert [t.state for t in plan(study, settings, rows=['all'], seeds=[1])] == ['retrain', 'missing']
    assert train(study, settings, rows=['all'], seeds=[1]) == []
    assert record(settings, 'teacher') == before
    assert record(settings, 'all', 1)['teacher'] == record(settings, 'all', 0)['teacher']


def test_a_checkpoint_that_contradicts_its_own_validation_is_not_recorded(place, capsys):
    study, settings = place(seeds=[0], base=dict(evaluates_to=0.01))
    assert train(study, settings, rows=['base']) == ['base seed 0'] and record(settings, 'base') is None
    assert 'evaluates to AP 51.0, the run\'s last validation says 50.0' in capsys.readouterr().out


def test_a_failed_evaluation_is_repeated_without_training_again(place):
    study, settings = place(seeds=[0])
    evaluator, settings.evaluator = settings.evaluator, ('nowhere.py',)
    assert train(study, settings, rows=['base']) == ['base seed 0'] and record(settings, 'base') is None
    settings.evaluator, settings.trainer = evaluator, 'nowhere.py'
    assert train(study, settings, rows=['base']) == [] and record(settings, 'base') is not None


def test_a_record_from_before_detections_were_kept_gets_them_when_its_teacher_is_trained_again(place):
    study, settings = place()
    train(study, settings, rows=['all'], seeds=[0])
    path = Path(settings.results) / 'toy/teacher_seed0.json'
    complete = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in complete.items() if k != 'detections'}))
    for weights in Path(settings.run_dir(study.row('teacher'), 0)).glob('*.pth'):
        weights.unlink()
    train(study, settings, rows=['all'], seeds=[1])
    assert json.loads(path.read_text()) == complete


def test_interrupting_the_runner_ends_its_runs(place, tmp_path):
    study, settings = place(seeds=[0], base=dict(sleep=60))
    code = (f'import signal, sys; sys.path.insert(0, {str(ROOT)!r})\n'
            'signal.signal(signal.SIGINT, signal.default_int_handler)\n'  # ignored where the tests run in background
            'import kd_det\nfrom kd_det.study.definition import load_study\n'
            'from kd_det.study.planning import Settings, plan\nfrom kd_det.study.running import Scheduler\n'
            f'study, s = load_study({str(tmp_path / "study.json")!r}), {settings!r}\n'
            'Scheduler(study, s, plan(study, s, rows=["base"])).run()\n')
    process = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    pointer = Path(settings.run_dir(study.row('base'), 0)) / 'last_checkpoint'
    deadline = time.monotonic() + 180
    while not pointer.is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert pointer.is_file()
    process.send_signal(signal.SIGINT)
    assert process.wait(90) != 0
    # the run's lock is free again only when no process of it is left
    import fcntl
    with open(f'{pointer.parent}.lock') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


# -- import ------------------------------------------------------------------------------------------------------------
def test_import_takes_a_run_of_the_same_config_only(place, tmp_path):
    study, settings = place(seeds=[0])
    command = [sys.executable, *settings.trainer, 'configs/teacher.py', '--work-dir', str(tmp_path / 'elsewhere')]
    subprocess.run([*command, '--seed', '0'], check=True, cwd=tmp_path, env=dict(os.environ, OMP_NUM_THREADS='1'),
                   stdout=subprocess.DEVNULL)
    with pytest.raises(StudyError, match=r"another config than row 'base'.*stub.ap"):
        import_run(study, 'base', 0, str(tmp_path / 'elsewhere'), settings)
    with pytest.raises(StudyError, match='trained with seed 0, not 1'):
        import_run(study, 'teacher', 1, str(tmp_path / 'elsewhere'), settings)
    import_run(study, 'teacher', 0, str(tmp_path / 'elsewhere'), settings)
    found = record(settings, 'teacher')
    assert found['accuracy']['AP'] == 60.0 and found['imported'] and found['wall_seconds'] == 90
    assert 'elsewhere' not in json.dumps(found)
    assert os.path.isfile(detections_path(settings.results, study.row('teacher'), 0))
    assert [t.state for t in plan(study, settings, rows=['teacher'])] == ['recorded']
    assert train(study, settings) == []             # the copied weights teach
    assert record(settings, 'all')['teacher']['weights_sha256'] == found['weights_sha256']


# -- tables ------------------------------------------------------------------------------------------------------------
def test_paired_difference_equals_numbers_by_hand():
    # differences 1, 2, 3: mean 2, sd 1, t(2) = 4.3027, half width 4.3027 / sqrt(3) = 2.4842
    found = paired_difference({0: 51.0, 1: 54.0, 2: 57.0, 9: 99.0}, {0: 50.0, 1: 52.0, 2: 54.0}, teacher=56.0)
    assert found.seeds == [0, 1, 2] and found.mean == pytest.approx(2)
    assert found.low == pytest.approx(2 - 2.4842, abs=1e-4) and found.high == pytest.approx(2 + 2.4842, abs=1e-4)
    assert found.gap_share == pytest.approx(2 / (56 - 52)) and found.wins is False
    one = paired_difference({0: 51.0}, {0: 50.0}, teacher=50.0)
    assert (one.mean, one.low, one.gap_share, one.wins) == (1.0, None, None, None)
    assert paired_difference({0: 1.0}, {1: 1.0}) is None


def test_t_quantiles_equal_scipy():
    stats = pytest.importorskip('scipy.stats')
    for freedom in [*range(1, 30), 60, 200]:
        assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), abs=2e-4), freedom


def test_table_rows(place):
    study, settings = place()
    assert 'No run is recorded yet' in study_table(study, settings.results)
    train(study, settings)
    lines = study_table(study, settings.results).splitlines()
    assert '| teacher | large | 1 | 60.0 | 90.0 |  |  |' in lines
    assert '| base | small | 2 | 50.5 ± 0.7 | 90.0 ± 0.0 |  |  |' in lines
    # both seeds differ by 4.0 AP, of a gap of 60 - 50.5
    assert '| all | taught | 2 | 54.5 ± 0.7 | 90.0 ± 0.0 | +4.0 [+4.0, +4.0] | 42 % |' in lines


def test_a_row_may_have_a_base_of_its_own(place):
    study, settings = place()
    train(study, settings)
    study.row('all').base = 'teacher'
    line = next(text for text in study_table(study, settings.results).splitlines() if text.startswith('| all '))
    assert '(over teacher)' in line


def test_a_row_that_others_are_compared_with_is_compared_itself_where_its_base_is_named(place):
    study, settings = place()
    train(study, settings)
    study.row('teacher').base = 'all'
    for own, expected in ((None, False), ('base', True)):
        study.row('all').base = own
        line = next(text for text in study_table(study, settings.results).splitlines() if text.startswith('| all '))
        assert ('+4.0' in line) is expected


def test_a_base_that_is_no_row_is_refused(place, tmp_path):
    content = dict(name='s', split='a->b', base='one', rows=[
        dict(name='one', config='c.py', seeds=[0]), dict(name='two', config='c.py', seeds=[0], base='three')])
    (tmp_path / 's.json').write_text(json.dumps(content))
    with pytest.raises(StudyError, match="no row 'three'"):
        load_study(str(tmp_path / 's.json'))


def test_a_table_replaces_only_what_stands_between_its_markers():
    text = 'a\n<!-- study:x -->\nold\n<!-- /study:x -->\nb <!-- study:xy -->c<!-- /study:xy -->\n'
    new = replace_marked(text, 'x', 'NEW')
    assert new == 'a\n<!-- study:x -->\nNEW\n<!-- /study:x -->\nb <!-- study:xy -->c<!-- /study:xy -->\n'
    assert replace_marked(new, 'x', 'NEW') == new
    assert replace_marked(text, 'z', 'NEW') is None
    with pytest.raises(StudyError, match='once each'):
        replace_marked('<!-- study:x -->', 'x', 'NEW')


def test_the_command_line_writes_the_readme(place, tmp_path):
    def main(words):
        return guarded('study', call, cli, words, root=str(tmp_path))
    place(seeds=[0])
    (tmp_path / 'README.md').write_text('head\n<!-- study:toy -->\n<!-- /study:toy -->\n')
    arguments = [str(tmp_path / 'study.json'), '--trainer', 'stub.py', '--evaluator', 'stub_evaluator.py', '--results',
                 'results']
    assert main([*arguments, '--list']) == 0 and not (tmp_path / 'results').exists()
    assert main([*arguments, '--rows', 'base']) == 0
    assert '| base | small | 1 | 50.0 |' in (tmp_path / 'README.md').read_text()
    assert main([*arguments, '--rows', 'nosuch']) == 2
    assert main([*arguments, '--import', str(tmp_path / 'none'), '--row', 'base']) == 2


def test_sources_of_a_row_are_trained_before_and_named_in_its_record(place, tmp_path):
    """Two networks of ``sources``, each by a row of its own; the checkpoint of each is handed over by its place."""
    study, settings = place(seeds=[0])
    root = Path(settings.root)
    base = (root / 'configs/base.py').read_text()
    several = dict(a=dict(config='configs/teacher.py', checkpoint='x.pth'),
                   b=dict(config='configs/base.py', checkpoint='y.pth'), both=dict(type='Ensemble', members=['a', 'b']))
    (root / 'configs/several.py').write_text(base + f"\nmodel = dict(model, sources={several!r})\n")
    row = StudyRow('several', 'configs/several.py', [0], 'several', 'toy/several', sources=dict(a=('teacher', 0),
                                                                                          b=('base', 0)))
    study.rows.append(row)
    tasks = plan(study, settings, ['several'])
    assert [task.name for task in tasks] == ['teacher seed 0', 'base seed 0', 'several seed 0']
    assert set(tasks[-1].teachers) == {'model.sources.a', 'model.sources.b'} and study.teaching() == {'teacher', 'base'}
    assert train(study, settings, rows=['several']) == []
    found = record(settings, 'several')
    assert 'teacher' not in found and {place: one['row'] for place, one in found['sources'].items()} == {
        'model.sources.a': 'teacher', 'model.sources.b': 'base'}
    assert 'model.sources.a.checkpoint=work_dirs/studies/toy/teacher/seed0/epoch_2.pth' in found['command']
    row.sources = dict(a=('teacher', 0))
    with pytest.raises(StudyError, match=r'names no model\.sources\.b; add "sources"'):
        plan(study, settings, ['several'])
    row.sources = dict(a=('teacher', 0), b=('base', 0), c=('base', 0))
    with pytest.raises(StudyError, match=r"no trained source \['c'\]"):
        plan(study, settings, ['several'])
    row.sources = dict(a=('base', 0), b=('base', 0))
    with pytest.raises(StudyError, match=r"names the teacher 'configs/teacher.py' \(model\.sources\.a\)"):
        plan(study, settings, ['several'])


def test_a_trained_peer_is_another_recipe_and_is_trained_before(place):
    study, settings = place(seeds=[0])
    root = Path(settings.root)
    base = (root / 'configs/base.py').read_text()
    peer = dict(config='configs/teacher.py', checkpoint=None)
    (root / 'configs/fresh.py').write_text(base + f"\nmodel = dict(model, peer={peer!r})\n")
    study.rows += [StudyRow('fresh', 'configs/fresh.py', [0], 'fresh', 'toy/fresh'),
                   StudyRow('trained', 'configs/fresh.py', [0], 'trained', 'toy/trained',
                            options={'model.peer.checkpoint': 'x.pth'}, sources=dict(peer=('teacher', 0)))]
    fresh, = plan(study, settings, ['fresh'])
    teacher, trained = plan(study, settings, ['trained'])
    assert not fresh.teachers and trained.teachers == {'model.peer': teacher} and fresh.sha != trained.sha
    assert train(study, settings, rows=['trained']) == []
    found = record(settings, 'trained')
    assert found['sources']['model.peer']['row'] == 'teacher' and found['config_sha256'] == trained.sha
    assert 'model.peer.checkpoint=work_dirs/studies/toy/teacher/seed0/epoch_2.pth' in found['command']
    study.rows[-1].sources = {}
    with pytest.raises(StudyError, match=r'names no model\.peer; add "sources": {"peer"'):
        plan(study, settings, ['trained'])


def test_groups_of_classes_get_a_table_of_mean_ap(tmp_path):
    study = Study('toy', 'Toy', 'train->eval', 'base', None, [StudyRow('base', 'b.py', [0, 1], 'plain', 'toy/base'),
                                                               StudyRow('new', 'n.py', [0], 'new', 'toy/new')],
                  dict(rare=['x', 'y'], frequent=['z']))
    records = dict(base={0: dict(per_class=dict(x=10.0, y=20.0, z=50.0)),
                         1: dict(per_class=dict(x=20.0, y=30.0, z=60.0))},
                   new={0: dict(per_class=dict(x=None, y=40.0, z=50.0))})
    found = breakdown(study, {row.name: Found({}, {}) for row in study.rows}, records)
    assert '| rare (x, y) | frequent (z) |' in found
    assert '| plain | 20.0 ± 7.1 | 55.0 ± 7.1 |' in found and '| new | 40.0 | 50.0 |' in found
    path = tmp_path / 's.json'
    path.write_text(json.dumps(dict(name='s', split='train->eval', base='b', groups=dict(rare='x'), rows=[
        dict(name='b', config='b.py', seeds=[0])])))
    with pytest.raises(StudyError, match=r'groups .*lists of classes'):
        load_study(str(path))
