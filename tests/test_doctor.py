"""The doctor says what is broken and what mends it, and starts on anything."""
import json
import os
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import pytest

from kd_det import doctor

ROOT = Path(__file__).parent.parent
STACK = all(find_spec(name) for name in ('torch', 'torchvision', 'mmengine', 'mmcv', 'mmdet'))
needs_stack = pytest.mark.skipif(not STACK, reason='MMDetection is not installed')

# runs before anything else in the doctor's process: makes packages look as if they were absent
HIDE = '''
import importlib.machinery, importlib.metadata
MODULES, DISTRIBUTIONS = {modules!r}, {distributions!r}
find_spec, from_name = importlib.machinery.PathFinder.find_spec, importlib.metadata.distribution
def find(name, *args):
    return None if name.partition('.')[0] in MODULES else find_spec(name, *args)
def distribution(name):
    if name in DISTRIBUTIONS:
        raise importlib.metadata.PackageNotFoundError(name)
    return from_name(name)
importlib.machinery.PathFinder.find_spec = find
importlib.metadata.distribution = distribution
'''


@pytest.fixture
def examine(tmp_path):
    """Runs the doctor with ``files`` first on the path and ``hidden`` packages absent."""

    def run_doctor(*flags, files=None, hidden=()):
        packages = [p for p in doctor.PACKAGES if p.module.partition('.')[0] in hidden]
        distributions = {name for package in packages for name in package.distributions}
        for name, text in {'sitecustomize.py': HIDE.format(modules=set(hidden),
                                                           distributions=distributions),
                           **(files or {})}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        done = subprocess.run(
            [sys.executable, '-m', 'kd_det.doctor', *flags], capture_output=True, text=True,
            timeout=300, cwd=ROOT,
            env={**os.environ, 'PYTHONPATH': os.pathsep.join([str(tmp_path), str(ROOT)])})
        assert done.stdout, done.stderr  # there is a report, whatever is missing
        return done

    return run_doctor


@needs_stack
def test_healthy_environment_trains_and_exits_with_0(examine):
    done = examine('--json')
    report = json.loads(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert report['can_train'] and report['safe_checkpoints'] and not report['problems']
    assert report['ops'] in ('compiled', 'torchvision')
    assert 'loss' in report['training']['cpu']
    assert report['versions']['torch'] == metadata.version('torch')


@needs_stack
def test_no_pkg_resources(examine):
    source = Path(find_spec('mmengine').origin).parent / 'utils' / 'package_utils.py'
    if 'pkg_resources' not in source.read_text():
        pytest.skip('this MMEngine does without pkg_resources')
    done = examine(hidden=['pkg_resources'])
    assert done.returncode == 1
    assert 'mend  pip install "setuptools<81"' in done.stdout
    assert 'A detector can train here, but not all is well.' in done.stdout


def test_nothing_installed(examine):
    hidden = [package.module.partition('.')[0] for package in doctor.PACKAGES]
    done = examine('--json', hidden=hidden)
    report = json.loads(done.stdout)
    assert done.returncode == 1 and not report['can_train']
    assert [problem['what'] for problem in report['problems']] == [
        f'{name} is not installed' for name in hidden]
    lines = [problem['mend'] for problem in report['problems']]
    assert 'pip install "torch>=2.6"' in lines and 'pip install "mmcv-lite==2.1.0"' in lines
    assert 'pip install "opencv-python"' in lines


@needs_stack
def test_all_that_is_broken_is_listed_at_once(examine):
    done = examine(hidden=['pycocotools'], files={
        'torchvision/__init__.py':
            'raise RuntimeError("operator torchvision::nms does not exist")'})
    minor = int(metadata.version('torch').split('.')[1])
    assert done.returncode == 1
    assert 'operator torchvision::nms does not exist' in done.stdout
    assert f'mend  pip install "torchvision==0.{minor + 15}.*"' in done.stdout
    assert 'BROKEN  pycocotools is not installed' in done.stdout
    assert 'mend  pip install "pycocotools"' in done.stdout
    assert '(not tried: needs torchvision, pycocotools.mask)' in done.stdout
    assert 'No detector can train here.' in done.stdout


@needs_stack
def test_mmcv_too_new_for_mmdet(examine):
    if 'mmcv_maximum_version' not in Path(find_spec('mmdet').origin).read_text():
        pytest.skip('this MMDetection takes any MMCV')
    done = examine(files={'mmcv/__init__.py': '__version__ = "2.9.0"'})
    assert done.returncode == 1
    assert 'BROKEN  import mmdet fails with AssertionError: MMCV==2.9.0 is used' in done.stdout
    assert 'mend  pip install "mmcv-lite>=2.0.0rc4,<' in done.stdout


def package(module):
    return next(package for package in doctor.PACKAGES if package.module == module)


@pytest.mark.parametrize(('module', 'error', 'line'), [
    ('mmdet', ModuleNotFoundError("No module named 'terminaltables'", name='terminaltables'),
     'pip install "terminaltables"'),
    ('mmdet', ModuleNotFoundError("No module named 'imgaug'", name='imgaug'),
     'pip install "imaug"'),
    ('mmengine', ModuleNotFoundError("No module named 'yaml'", name='yaml'),
     'pip install "pyyaml"'),
    ('mmengine', ModuleNotFoundError("No module named 'pkg_resources'", name='pkg_resources'),
     'pip install "setuptools<81"'),
    ('mmdet', AssertionError('MMCV==2.2.0 is used but incompatible. Please install '
                             'mmcv>=2.0.0rc4, <2.2.0.'),
     'pip install "mmcv-lite>=2.0.0rc4,<2.2.0"'),
    ('mmdet', AssertionError('MMEngine==0.5 is used but incompatible. Please install '
                             'mmengine>=0.7.1, <1.0.0.'), 'pip install "mmengine>=0.7.1,<1.0.0"'),
    ('cv2', ImportError('libGL.so.1: cannot open shared object file'),
     'pip uninstall -y opencv-python && pip install "opencv-python-headless"'),
    ('pycocotools.mask', ImportError('A module that was compiled using NumPy 1.x cannot be run'),
     'pip install "numpy<2"'),
])
def test_line_that_mends(module, error, line):
    assert doctor.mend(package(module), error) == line


@pytest.mark.parametrize(('torch', 'torchvision'), [
    ('2.6.0+cu124', 'torchvision==0.21.*'), ('2.14.1', 'torchvision==0.29.*')])
def test_torchvision_made_for_a_torch(torch, torchvision, monkeypatch):
    monkeypatch.setattr(metadata, 'version', lambda name: torch)
    assert doctor.matching_torchvision() == torchvision


def test_fork_is_mended_with_forks(monkeypatch):
    def version(name):
        if name != 'onedl-mmengine':
            raise metadata.PackageNotFoundError(name)
        return '0.10.12'

    monkeypatch.setattr(metadata, 'version', version)
    assert doctor.requirement_of(package('mmdet')) == 'onedl-mmdetection'


def test_two_packages_in_one_folder_are_reported(monkeypatch):
    monkeypatch.setattr(metadata, 'version', lambda name: '1.0')
    monkeypatch.setattr(doctor, '_import', lambda module: None)
    report = doctor.Report()
    doctor.check_packages(report)
    lines = [problem.mend for problem in report.problems if 'mmcv-full' in problem.what]
    assert lines == ['pip uninstall -y mmcv mmcv-lite mmcv-full onedl-mmcv onedl-mmcv-lite && '
                     'pip install "mmcv"']


def test_check_that_raises_is_a_problem_not_a_crash(monkeypatch, capsys):
    def check_hardware(report):
        raise OSError('no such device')

    monkeypatch.setattr(doctor, 'check_packages', lambda report: report.broken.append('torch'))
    monkeypatch.setattr(doctor, 'check_hardware', check_hardware)
    assert doctor.main([]) == 1
    assert 'the check of hardware fails: OSError: no such device' in capsys.readouterr().out


@needs_stack
def test_loss_that_is_not_finite_is_no_training(monkeypatch):
    from kd_det import doctor_training
    config = doctor_training.tiny_faster_rcnn()
    config['rpn_head']['loss_cls']['loss_weight'] = float('nan')
    monkeypatch.setattr(doctor_training, 'tiny_faster_rcnn', lambda: config)
    with pytest.raises(ArithmeticError, match='loss of the first training step on cpu is nan'):
        doctor_training.train_one_step('cpu')


@needs_stack
def test_step_on_gpu():
    import torch
    if not torch.cuda.is_available():
        pytest.skip('no GPU')
    from kd_det.doctor_training import train_one_step
    assert train_one_step('cuda')[0] > 0
