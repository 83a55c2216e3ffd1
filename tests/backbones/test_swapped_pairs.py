"""Backbones that no shipped pair has, on either side, by one line each; the rest of the configs is as it ships."""
from pathlib import Path

import pytest
from conftest import build
from mmengine.runner.checkpoint import save_checkpoint
from one_step import step_and_predict

from kd_det.config import load_config
from kd_det.errors import ConfigError

pytest.importorskip('timm')
ROOT = Path(__file__).resolve().parents[2]
PAIRS = {'faster-rcnn': 'distill_faster_rcnn/faster-rcnn_lite0_fpn-c64_8e_vehicles-416x416_distill-lite2',
         'gfl': 'bckd/gfl_lite0_fpn-c64_8e_vehicles-416x416_bckd-lite2'}
LINE = "model = dict({0}backbone=dict(model_name='{1}', checkpoint=None))\n"
OPTIONS = "model = dict(teacher=dict(cfg_options={{'model.backbone.model_name': '{0}', " \
          "'model.backbone.checkpoint': None}}))\n"


@pytest.mark.parametrize('side, pair', [
    ('student', 'gfl'), ('teacher', 'faster-rcnn'), pytest.param('student', 'faster-rcnn', marks=pytest.mark.slow),
    pytest.param('teacher', 'gfl', marks=pytest.mark.slow)])
def test_one_line_swaps_a_backbone(pair, side, tmp_path, monkeypatch):
    """It is built, taught and predicts; neck and image statistics follow the line that was changed."""
    monkeypatch.chdir(ROOT)  # teachers' configs are named from here
    name = 'regnetx_002' if side == 'student' else 'mobilenetv3_small_050'
    line = LINE.format('', name) if side == 'student' else OPTIONS.format(name)
    (tmp_path / 'mine.py').write_text(f"_base_ = 'kd_det::{PAIRS[pair]}.py'\n{line}")
    cfg = load_config(str(tmp_path / 'mine.py'))
    if side == 'student':
        assert cfg.model.neck.in_channels == [24, 56, 152, 368] and cfg.model.data_preprocessor.mean[0] == 123.675
    losses = step_and_predict(cfg, tmp_path)
    assert sum('distill' in name or 'hint' in name or 'bckd' in name for name in losses) >= 2


def test_a_teachers_file_of_two_lines(tmp_path):
    """As --teacher takes it: a file on a shipped config, and the checkpoint that a training of it wrote."""
    (tmp_path / 'teacher.py').write_text("_base_ = 'kd_det::gfl/gfl_lite2_fpn-c64_8e_vehicles-416x416.py'\n"
                                         + LINE.format('', 'mobilenetv3_small_050'))
    own = load_config(str(tmp_path / 'teacher.py'))
    assert own.model.neck.in_channels == [8, 16, 24, 288]
    save_checkpoint(dict(state_dict=build(own.model).state_dict()), str(tmp_path / 'teacher.pth'))
    cfg = load_config(f'kd_det::{PAIRS["gfl"]}.py')
    cfg.model.backbone.checkpoint = None
    cfg.model.teacher.update(config=str(tmp_path / 'teacher.py'), checkpoint=str(tmp_path / 'teacher.pth'))
    model = build(cfg.model)
    model.teacher.load()
    assert type(model.teacher.model.backbone).__name__ == 'TimmBackbone' and model.teacher.loaded


def test_a_name_that_timm_does_not_have(tmp_path):
    (tmp_path / 'mine.py').write_text(f"_base_ = 'kd_det::{PAIRS['gfl']}.py'\n"
                                      + LINE.format('', 'mobilenetv3_smal_050'))
    with pytest.raises(ConfigError, match=r"has no 'mobilenetv3_smal_050'; did you mean 'mobilenetv3_small_050'"):
        load_config(str(tmp_path / 'mine.py'))
