"""Every tool starts in an interpreter of its own: kd_det prepares the stack before MMDetection is imported."""
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize('tool', ['train', 'test', 'compare', 'benchmarks/accuracy', 'benchmarks/mixtures',
                                  'benchmarks/step_cost', 'datasets/make_digits', 'datasets/voc_to_coco'])
def test_help(tool, tmp_path):
    done = subprocess.run([sys.executable, '-W', 'ignore', str(ROOT / 'tools' / f'{tool}.py'), '--help'], cwd=tmp_path,
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
