"""Every shipped config is built, takes one training step and predicts once: all of them with --slow, a sample always.
"""
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from one_step import step_and_predict

from kd_det.config import load_config
from kd_det.shipped import shipped_configs

CONFIGS = shipped_configs()
# one of each kind of student, method and data pipeline that CI sees at every change
SAMPLE = {f'kd_det::{name}.py' for name in (
    'distill_faster_rcnn/faster-rcnn_r18-w16_fpn-c64_8e_bccd-160x120_distill-r18',  # two resolutions
    'lad/paa_r18-w8_fpn-c32_6e_digits-160x120_lad-r18-w16',
    'lad/rtmdet_w0.125_8e_bccd-320x240_lad-w0.25',
    'colad/paa_r18-w16_fpn-c32_6e_digits-160x120_colad-r18-w8',
    'unlabelled/faster-rcnn_r18-w8_fpn-c64_8e_bccd-320x240-labels20_pseudo',
    'several_teachers/faster-rcnn_r18-w8_fpn-c64_8e_bccd-320x240_two-teachers')}
ROOT = Path(__file__).resolve().parent.parent


def test_the_sample_ships():
    assert set(CONFIGS) >= SAMPLE


@pytest.mark.parametrize('name', [pytest.param(name, id=name.removeprefix('kd_det::').removesuffix('.py'),
                                               marks=[] if name in SAMPLE else [pytest.mark.slow]) for name in CONFIGS])
def test_config_steps_and_predicts(name, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    step_and_predict(load_config(name), tmp_path)


def test_the_table_of_pairs_is_up_to_date():
    """configs/README.md lists what ships; run python tools/config_matrix.py after adding a config."""
    done = subprocess.run([sys.executable, 'tools/config_matrix.py', '--check'], cwd=ROOT, capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr


def test_pairs_are_read_from_names_and_syntax(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location('config_matrix', ROOT / 'tools' / 'config_matrix.py')
    matrix = importlib.util.module_from_spec(spec)
    sys.modules['config_matrix'] = matrix
    spec.loader.exec_module(matrix)
    assert matrix.split('retinanet_r50_fpn_1x_coco_pkd-fcos-x101') == ('retinanet_r50_fpn', 'coco')
    assert matrix.split('yolox_s_8xb8-300e_coco') == ('yolox_s', 'coco')
    assert matrix.split('fcos_x101-64x4d_fpn_gn-head_ms-640-800-2x_coco') == ('fcos_x101-64x4d_fpn_gn-head', 'coco')
    folder = tmp_path / 'pkd'
    folder.mkdir()
    (folder / 'a_r18_1x_coco_x.py').write_text("model = dict(teacher=dict(config='mmdet::b/b_r50_1x_coco.py'))")
    (folder / 'a_r18_1x_coco_y.py').write_text("_base_ = './a_r18_1x_coco_x.py'\nmodel = dict(terms=[dict(weight=2)])")
    (folder / 'a_r18_1x_coco.py').write_text("model = dict(type='A')")
    monkeypatch.setattr(matrix, 'CONFIGS', tmp_path)
    found = {Path(entry.name).stem: entry for entry in matrix.entries()}
    assert found['a_r18_1x_coco_x'].teachers == found['a_r18_1x_coco_y'].teachers == ('b_r50_1x_coco',)
    assert found['a_r18_1x_coco'].teachers == () and found['a_r18_1x_coco_y'].student == ('a_r18', 'coco')
    assert '| `a_r18` <- `b_r50` | 2 |' in matrix.table()
