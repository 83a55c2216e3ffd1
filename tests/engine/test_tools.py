"""tools/train.py and tools/test.py: a detector trains, resumes and is evaluated; bad input is refused in words."""
import json
import pickle
import shutil

import pytest
import torch
from conftest import faster_rcnn_cfg, run_tool
from mmengine.config import Config

from kd_det.config import check_keys, load_config
from kd_det.errors import CheckpointMismatch, ConfigError, DataError


@pytest.fixture(scope='module')
def trained(tiny_coco, tmp_path_factory):
    """A plain detector trained for two epochs by tools/train.py."""
    from conftest import RUN_CONFIG
    folder = tmp_path_factory.mktemp('trained')
    config = folder / 'config.py'
    config.write_text(RUN_CONFIG.format(root=f'{tiny_coco}/', model=faster_rcnn_cfg().to_dict()))
    run_tool('train', str(config), '--work-dir', str(folder / 'run'))
    return str(config), folder / 'run'


def test_training_writes_checkpoints_and_metrics(trained):
    _, run = trained
    assert (run / 'epoch_2.pth').exists() and (run / 'last_checkpoint').exists()
    assert list(run.glob('best_coco_bbox_mAP_epoch_*.pth'))
    records = [json.loads(line) for line in next(run.glob('*/vis_data/scalars.json')).read_text().splitlines()]
    assert any('coco/bbox_mAP' in r for r in records)
    assert all(r['loss'] == r['loss'] for r in records if 'loss' in r)  # an image without objects gave no NaN


def test_evaluation_equals_the_validation_of_training(trained, tmp_path):
    config, run = trained
    out = tmp_path / 'detections.pkl'
    run_tool('test', config, str(run / 'epoch_2.pth'), '--work-dir', str(tmp_path), '--out', str(out))
    tested = json.loads(next(tmp_path.glob('*/*.json')).read_text().splitlines()[-1])
    validated = [json.loads(line) for line in next(run.glob('*/vis_data/scalars.json')).read_text().splitlines()]
    assert tested['coco/bbox_mAP'] == [r for r in validated if 'coco/bbox_mAP' in r][-1]['coco/bbox_mAP']
    assert len(pickle.loads(out.read_bytes())) == 4


def test_show_dir_draws(trained, tmp_path):
    config, run = trained
    run_tool('test', config, str(run / 'epoch_2.pth'), '--work-dir', str(tmp_path), '--show-dir', 'drawn')
    assert len(list(tmp_path.glob('*/drawn/*.png')) + list(tmp_path.glob('*/drawn/*.jpg'))) == 4


def test_data_root_moves_the_data_set(trained, tiny_coco, tmp_path):
    config, run = trained
    shutil.copytree(tiny_coco, tmp_path / 'elsewhere')
    cfg = load_config(config, data_root=str(tmp_path / 'elsewhere'))
    assert cfg.val_evaluator.ann_file == f'{tmp_path}/elsewhere/annotations/val.json'
    assert cfg.train_dataloader.dataset.data_root == f'{tmp_path}/elsewhere/'
    run_tool('test', config, str(run / 'epoch_2.pth'), '--work-dir', str(tmp_path / 'w'), '--data-root',
             str(tmp_path / 'elsewhere'))


def test_checkpoint_of_another_architecture_is_refused(trained, run_config, tmp_path):
    _, run = trained
    wide = run_config(faster_rcnn_cfg(width=16))
    with pytest.raises(CheckpointMismatch, match=r'(?s)epoch_2.*backbone.conv1.weight: checkpoint \(8, .*\(16, '):
        run_tool('test', wide, str(run / 'epoch_2.pth'), '--work-dir', str(tmp_path))
    before = {p: p.read_bytes() for p in run.glob('*.pth')}
    with pytest.raises(CheckpointMismatch, match='cannot resume'):
        run_tool('train', wide, '--work-dir', str(run), '--resume')
    assert {p: p.read_bytes() for p in run.glob('*.pth')} == before  # nothing on disk is lost


def test_resume_of_a_missing_file(trained, tmp_path):
    with pytest.raises(ConfigError, match='no such checkpoint'):
        run_tool('train', trained[0], '--work-dir', str(tmp_path), '--resume', str(tmp_path / 'none.pth'))


# -- config -------------------------------------------------------------------------------------------------------
def test_unknown_config_keys(trained):
    with pytest.raises(ConfigError, match=r"'train_dataloder'.*did you mean 'train_dataloader'"):
        check_keys(Config(dict(train_dataloder=dict())), {})
    with pytest.raises(ConfigError, match=r"--cfg-options max_epochs"):
        load_config(trained[0], dict(max_epochs=3))
    with pytest.raises(ConfigError, match='does not exist'):
        load_config('nowhere.py')


def test_mmdetections_own_configs_pass_the_key_check():
    from mmengine.hub import get_config
    for name in ('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 'paa/paa_r50_fpn_1x_coco.py',
                 'rtmdet/rtmdet_tiny_8xb32-300e_coco.py', 'yolox/yolox_s_8xb8-300e_coco.py',
                 'tood/tood_r50_fpn_1x_coco.py', 'dino/dino-4scale_r50_8xb2-12e_coco.py',
                 'pascal_voc/faster-rcnn_r50_fpn_1x_voc0712-cocofmt.py'):
        check_keys(get_config(f'mmdet::{name}'), {})


def test_missing_data_folder_stops_the_tool_before_it_writes(trained, tmp_path):
    with pytest.raises(DataError, match=r'data_root: the folder .*nowhere.* does not exist.*--data-root'):
        run_tool('train', trained[0], '--work-dir', str(tmp_path / 'w'), '--data-root', str(tmp_path / 'nowhere'))
    assert not (tmp_path / 'w').exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason='mixed precision is refused only without a GPU')
def test_amp_without_a_gpu_is_refused_in_words(run_config, tmp_path):
    with pytest.raises(ConfigError, match='needs a GPU'):
        run_tool('train', run_config(faster_rcnn_cfg()), '--work-dir', str(tmp_path / 'w'), '--amp')
