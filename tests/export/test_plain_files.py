"""What is exported needs no kd_det: it is loaded where importing kd_det fails."""
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import build, faster_rcnn_cfg, make_batch, save_checkpoint
from dense_detectors import dense_cfg

from kd_det.config import load_config
from kd_det.errors import CheckpointMismatch, ConfigError
from kd_det.export.plain_files import write_plain

ROOT = Path(__file__).resolve().parent.parent.parent
# Plain MMDetection: kd_det cannot be imported. MMCV's ops are torchvision's nms, which any compiled MMCV has too.
ALONE = """
import sys, types, torch, torchvision
class Refuse:
    def find_spec(self, name, *rest):
        if name.split('.')[0] == 'kd_det':
            raise ImportError('no kd_det here')
sys.meta_path.insert(0, Refuse())
def nms(boxes, scores, iou_threshold, offset):
    assert offset == 0
    return torchvision.ops.nms(boxes, scores, iou_threshold)
class Ops(types.ModuleType):
    def __getattr__(self, name):
        if name.startswith('__'):
            raise AttributeError(name)
        return lambda *args, **kwargs: (_ for _ in ()).throw(NotImplementedError(name))
ops = Ops('mmcv._ext'); ops.nms = nms
sys.modules['mmcv._ext'] = ops
from mmengine.config import Config
from mmengine.registry import init_default_scope
config, checkpoint, data, out = sys.argv[1:]
import mmdet.models
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
cfg = Config.fromfile(config)
init_default_scope(cfg.default_scope)
model = MODELS.build(cfg.model).eval()
file = torch.load(checkpoint, weights_only=True)
model.load_state_dict(file['state_dict'], strict=True)
image = torch.load(data, weights_only=True)
sample = DetDataSample(metainfo=dict(img_shape=(96, 128), ori_shape=(96, 128), scale_factor=(1., 1.), img_id=0))
found = model.test_step(dict(inputs=[image], data_samples=[sample]))[0].pred_instances
assert 'kd_det' not in sys.modules
torch.save(dict(boxes=found.bboxes, scores=found.scores, classes=list(file['meta']['dataset_meta']['classes'])), out)
"""


def distilled(cfg, kind, **added):
    cfg = cfg.copy()
    cfg.update(student_type=cfg.type, type=kind, **added)
    return cfg


def test_a_distilled_paa_student_without_kd_det(run_config, tmp_path):
    """Detections bit for bit, in a process in which kd_det cannot be imported."""
    plain = dense_cfg('paa')
    plain.bbox_head.type = 'BatchedPAAHead'
    plain.bbox_head.covariance_type = 'diag'
    model = build(plain).eval()
    torch.nn.init.normal_(model.bbox_head.atss_cls.weight, std=0.2)
    checkpoint = save_checkpoint(model, tmp_path / 'c.pth')
    cfg = distilled(plain, 'LADDistiller', teacher=dict(config='none.py', checkpoint='none.pth'))
    files = write_plain(load_config(run_config(cfg, 'student.py')), checkpoint, str(tmp_path / 'out'))
    assert not files.needs
    text = Path(files.config).read_text()
    assert 'kd_det' not in text and 'teacher' not in text and "'PAAHead'" in text
    digest = hashlib.sha256(Path(files.checkpoint).read_bytes()).hexdigest()[:8]
    assert Path(files.checkpoint).name == f'student-{digest}.pth'
    batch = make_batch(sizes=((96, 128),), objects=(3,))
    torch.save(batch['inputs'][0], tmp_path / 'image.pt')
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', ALONE, files.config, files.checkpoint,
                           str(tmp_path / 'image.pt'), str(tmp_path / 'found.pt')], capture_output=True, text=True,
                          cwd=tmp_path, env={**os.environ, 'PYTHONPATH': ''}, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = torch.load(tmp_path / 'found.pt', weights_only=True)
    ours = model.test_step(batch)[0].pred_instances
    assert len(ours) > 5 and found['classes'] == ['disc', 'square']
    assert torch.equal(found['boxes'], ours.bboxes) and torch.equal(found['scores'], ours.scores)


def test_what_stays_ours_is_said(run_config, tmp_path):
    """A COP head has no equivalent: the config keeps its import, and the reason is named."""
    cfg = dense_cfg('paa')
    cfg.bbox_head.type = 'COPHead'
    checkpoint = save_checkpoint(build(cfg), tmp_path / 'c.pth')
    files = write_plain(load_config(run_config(cfg)), checkpoint, str(tmp_path / 'out'))
    assert set(files.needs) == {'COPHead'} and "'kd_det'" in Path(files.config).read_text()


def test_nothing_is_replaced_or_written_for_a_checkpoint_that_does_not_fit(run_config, tmp_path):
    cfg, out = faster_rcnn_cfg(), tmp_path / 'out'
    config = load_config(run_config(distilled(cfg, 'FasterRCNNDistiller', hints=[])))
    other = save_checkpoint(build(faster_rcnn_cfg(width=16)), tmp_path / 'other.pth')
    with pytest.raises(CheckpointMismatch, match='another shape'):
        write_plain(config, other, str(out))
    assert not out.exists()
    own = save_checkpoint(build(cfg), tmp_path / 'own.pth')
    first = write_plain(config, own, str(out))
    with pytest.raises(ConfigError, match='--overwrite'):
        write_plain(config, own, str(out))
    assert write_plain(config, own, str(out), overwrite=True) == first
