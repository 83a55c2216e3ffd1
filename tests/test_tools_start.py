"""Every tool starts: kd_det prepares the stack before MMDetection is imported, and says what it takes."""
import ast
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted((ROOT / 'tools').glob('**/*.py'))
TOOLS = [path for path in FILES if "__name__ == '__main__'" in path.read_text()]
STACK = ('mmengine', 'mmcv', 'mmdet')


def name_of(path):
    return str(path.relative_to(ROOT / 'tools').with_suffix(''))


@pytest.mark.parametrize('path', FILES, ids=name_of)
def test_nothing_of_mmdetection_is_imported_before_kd_det(path):
    """At the top of a file; a file beside it that it imports counts with what that one imports."""
    order = []

    def look(file):
        for node in ast.parse(file.read_text()).body:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
                for name in names:
                    beside = file.parent / f'{name}.py'
                    look(beside) if beside.is_file() else order.append(name.partition('.')[0])
    look(path)
    first = next((i for i, name in enumerate(order) if name in STACK), len(order))
    assert first == len(order) or 'kd_det' in order[:first], order


@pytest.mark.parametrize('path', TOOLS, ids=name_of)
def test_help(path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(path.parent))
    monkeypatch.setattr(sys, 'argv', [str(path), '--help'])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(path), run_name='__main__')
    assert not stop.value.code and 'usage' in capsys.readouterr().out


@pytest.mark.parametrize('path', [path if name_of(path) in ('train', 'benchmarks/step_cost') else
                                  pytest.param(path, marks=pytest.mark.slow) for path in TOOLS], ids=name_of)
def test_in_an_interpreter_of_its_own(path, tmp_path):
    """What the two above put together."""
    done = subprocess.run([sys.executable, '-W', 'ignore', str(path), '--help'], cwd=tmp_path,
                          env={**os.environ, 'PYTHONPATH': str(ROOT)}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert 'usage' in done.stdout


def test_mmdetections_own_config_inheritance_and_import_are_enough(tmp_path):
    """custom_imports alone makes a config of kd_det usable in a process that did not import kd_det first."""
    code = ('from mmengine.config import Config; cfg = Config.fromfile({!r}); from mmdet.registry import MODELS; '
            "assert MODELS.get('FasterRCNNDistiller').__module__.startswith('kd_det')")
    config = ROOT / 'configs/distill_faster_rcnn/faster-rcnn_r18_fpn_1x_coco_distill-r50.py'
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', code.format(str(config))], cwd=tmp_path,
                          env={**os.environ, 'PYTHONPATH': str(ROOT)}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]


def test_mmdetections_own_tools_run_a_distil_config(teacher_checkpoint, run_config, tmp_path):
    """train.py as it is; test.py imports ops before it reads the config and is started through ``python -m kd_det``."""
    import mmdet
    from conftest import faster_rcnn_cfg
    tools = Path(mmdet.__file__).parent / '.mim' / 'tools'
    if not tools.is_dir():
        pytest.skip('this MMDetection was installed without its tools')
    cfg = faster_rcnn_cfg()
    cfg.update(student_type=cfg.type, type='FasterRCNNDistiller', rpn_distill=dict(), rcnn_distill=dict(),
               hints=[dict(layer='neck')],
               teacher=dict(config=teacher_checkpoint[0].to_dict(), checkpoint=teacher_checkpoint[1]))
    config, work = run_config(cfg), tmp_path / 'run'

    def run(*command):
        done = subprocess.run([sys.executable, '-W', 'ignore', *command], cwd=tmp_path, capture_output=True, text=True,
                              env={**os.environ, 'PYTHONPATH': str(ROOT)}, timeout=300)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout + done.stderr
    run(str(tools / 'train.py'), config, '--work-dir', str(work), '--cfg-options', 'train_cfg.max_epochs=1')
    from kd_det.compat.checkpoint import load
    assert load(str(work / 'epoch_1.pth'))['kd_det']['terms']  # the hook attached itself
    run('-m', 'kd_det', str(tools / 'test.py'), config, str(work / 'epoch_1.pth'), '--work-dir', str(work))
