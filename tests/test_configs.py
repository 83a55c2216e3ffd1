"""Every config loads, passes the key check, and a distil config is a diff over its student's baseline."""
import re
from functools import cache
from pathlib import Path

import pytest

from kd_det.config import distilled as entry_of
from kd_det.config import load_config as read_config
from kd_det.config_types import check_types
from kd_det.plain import student_model

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = sorted(p for p in (ROOT / 'configs').glob('*/*.py') if p.parent.name != '_base_')
DIFFS = [p for p in CONFIGS if p.parent.name in (
    'distill_faster_rcnn', 'pkd', 'cwd', 'fgd', 'mgd', 'ld', 'crosskd', 'bckd') and "_base_ = '" in p.read_text()]


@cache
def load_config(path):
    """Each file is read once, though many are the base of others: reading is most of what these tests cost."""
    return read_config(path)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: f'{p.parent.name}/{p.stem}')
def test_config_loads_and_names_what_is_registered(path):
    from mmdet.registry import DATASETS, MODELS
    cfg = load_config(str(path))
    assert MODELS.get(cfg.model.type) is not None
    assert DATASETS.get(cfg.train_dataloader.dataset.type) is not None
    assert 'kd_det' in cfg.custom_imports.imports  # MMDetection's own tools can run it
    check_types(cfg)


@pytest.mark.parametrize('path', DIFFS, ids=lambda p: p.stem)
def test_without_distillation_it_is_the_baseline(path):
    base = re.search(r"^_base_ = '(.*)'", path.read_text(), re.M).group(1)
    # a column is a diff over the config with all terms
    while entry_of(load_config(str((path.parent / base).resolve())).model):
        path = path.parent / base
        base = re.search(r"^_base_ = '(.*)'", path.read_text(), re.M).group(1)
    plain, distilled = load_config(str((path.parent / base).resolve())), load_config(str(path))
    assert entry_of(distilled.model)
    student = student_model(distilled.model)
    student.type = plain.model.type
    assert student.to_dict() == plain.model.to_dict()
    for key in set(plain) - {'model', 'train_dataloader'}:
        assert plain[key] == distilled[key], key
    inner, ours = distilled.train_dataloader.dataset, plain.train_dataloader.dataset
    if inner.type == 'RepeatDataset':
        inner, ours = inner.dataset, ours.dataset
    if inner.type == 'TwoViewDataset':
        assert inner.scale_factor == distilled.model.teacher.scale_factor
        inner = inner.dataset
    assert inner.to_dict() == ours.to_dict()
    teacher = distilled.model.teacher
    if not teacher.config.startswith('mmdet::'):
        teacher_cfg = load_config(str(ROOT / teacher.config))
        name, epoch = re.fullmatch(r'work_dirs/(.*)/epoch_(\d+)\.pth', teacher.checkpoint).groups()
        assert name == Path(teacher.config).stem and int(epoch) == teacher_cfg.train_cfg.max_epochs


def test_a_loss_on_features_needs_nine_lines_in_a_config():
    """What a further method costs a user; PKD was the proof, a loss file and a line of registration."""
    folders = {name: [path for path in CONFIGS if path.parent.name == name] for name in ('pkd', 'cwd', 'fgd', 'mgd')}
    for paths in folders.values():
        assert paths and all(len(path.read_text().splitlines()) <= 9 for path in paths)
    names = ' '.join(path.stem for path in folders['pkd'])
    assert all(pair in names for pair in ('faster-rcnn_r50_fpn_1x_coco_pkd-r101',
                                          'retinanet_r50_fpn_1x_coco_pkd-fcos-x101', 'bccd-320x240_pkd-r18'))


def test_teachers_of_the_model_zoo_are_those_of_their_config():
    """MMDetection's own list says which weights belong to which config."""
    import mmdet
    text = ''.join(path.read_text()
                   for path in (Path(mmdet.__file__).parent / '.mim' / 'configs').glob('*/metafile.yml'))
    weights = {}
    for model in text.split('- Name: ')[1:]:
        found = {key: re.search(rf'^ *{key}: (\S+)', model, re.M) for key in ('Config', 'Weights')}
        if all(found.values()):
            weights[found['Config'].group(1).removeprefix('configs/')] = found['Weights'].group(1)
    seen = 0
    for path in CONFIGS:
        pairs = re.findall(r"config='mmdet::([^']*)',\s*(?:#.*\s*)*checkpoint='(http[^']*)'", path.read_text())
        for config, checkpoint in pairs:
            assert weights.get(config) == checkpoint, f'{path.name}: {config}'
        seen += len(pairs)
    assert seen > 10


def test_names_follow_mmdetections():
    for path in CONFIGS:
        assert re.fullmatch(r'[a-z0-9.]+(-[a-z0-9]+)*_[a-zA-Z0-9_.-]+', path.stem), path
