"""What is exported needs no kd_det: it is loaded where importing kd_det fails."""
import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import build, faster_rcnn_cfg, make_batch, save_checkpoint
from dense_detectors import dense_cfg, stirred

from kd_det.channels import feature_channels
from kd_det.config import load_config
from kd_det.errors import CheckpointMismatch, ConfigError
from kd_det.export.plain_files import PlainFiles, write_plain

ROOT = Path(__file__).resolve().parent.parent.parent
# Plain MMDetection: kd_det cannot be imported. MMCV's ops are torchvision's nms, which any compiled MMCV has too.
ALONE = """
import importlib.machinery, json, sys, types, torch, torchvision
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
ops = Ops('mmcv._ext'); ops.nms = nms; ops.__spec__ = importlib.machinery.ModuleSpec('mmcv._ext', None)
sys.modules['mmcv._ext'] = ops
from mmdet.apis import init_detector
from mmdet.structures import DetDataSample
for config, checkpoint, data, out in json.loads(sys.argv[1]):
    model = init_detector(config, checkpoint, device='cpu')
    file = torch.load(checkpoint, weights_only=True)
    model.load_state_dict(file['state_dict'], strict=True)
    image = torch.load(data, weights_only=True)
    sample = DetDataSample(metainfo=dict(img_shape=(96, 128), ori_shape=(96, 128), scale_factor=(1., 1.), img_id=0))
    with torch.no_grad():
        found = model.test_step(dict(inputs=[image], data_samples=[sample]))[0].pred_instances
    torch.save(dict(boxes=found.bboxes, scores=found.scores, classes=list(model.dataset_meta['classes'])), out)
assert 'kd_det' not in sys.modules
"""


def found_alone(exported: list[PlainFiles], batch: dict, tmp_path: Path) -> list[dict]:
    """What plain MMDetection detects with each export, in one process, from a directory that has none of the files."""
    torch.save(batch['inputs'][0], tmp_path / 'image.pt')
    results = [str(tmp_path / f'found{i}.pt') for i in range(len(exported))]
    jobs = [(one.config, one.checkpoint, str(tmp_path / 'image.pt'), out) for one, out in zip(exported, results)]
    elsewhere = tmp_path / 'elsewhere'
    elsewhere.mkdir()
    done = subprocess.run([sys.executable, '-W', 'ignore', '-c', ALONE, json.dumps(jobs)], capture_output=True,
                          text=True, cwd=elsewhere, env={**os.environ, 'PYTHONPATH': ''}, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return [torch.load(out, weights_only=True) for out in results]


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
    found, = found_alone([files], batch, tmp_path)
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
    times = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert write_plain(config, own, str(out)) == first  # the same again: nothing is written
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == times
    Path(first.config).write_text('# edited')
    with pytest.raises(ConfigError, match='--overwrite'):
        write_plain(config, own, str(out))
    assert write_plain(config, own, str(out), overwrite=True) == first


SMALL_SWIN = dict(embed_dim=12, depths=(1, 1, 2, 1), num_heads=(1, 1, 1, 1))
TIMM = {'a transformer whose maps are (N, h, w, C)': (
            dict(model_name='swin_tiny_patch4_window7_224', model_args=SMALL_SWIN), {'channels_last': True}),
        'blocks left out behind the last map': (
            dict(model_name='test_efficientnet', out_indices=(1, 2, -2), frozen_stages=1),
            {'left_out': ('blocks.4',), 'out_indices': (1, 2, 3)})}


def test_students_with_timm_backbones_without_kd_det(run_config, tmp_path):
    """A module of their own beside the files: the strict load fits, and detections are the same bit for bit."""
    pytest.importorskip('timm')
    batch = make_batch(sizes=((96, 128),), objects=(3,))
    exported, models = [], []
    for number, (backbone, resolved) in enumerate(TIMM.values()):
        plain = dense_cfg('gfl')
        plain.test_cfg.score_thr = 0.  # a fresh head is sure of nothing
        plain.backbone = dict(type='TimmBackbone', checkpoint='not/there.pth', **backbone)
        plain.neck.in_channels = feature_channels(plain.backbone)
        plain.backbone.checkpoint = None
        model = build(plain).eval()
        checkpoint = save_checkpoint(stirred(model), tmp_path / f'{number}.pth')
        plain.backbone.checkpoint = 'not/there.pth'  # only training reads it
        files = write_plain(load_config(run_config(plain, f'student{number}.py')), checkpoint, str(tmp_path / 'out'))
        text = Path(files.config).read_text()
        assert not files.needs and 'kd_det' not in text and 'not/there' not in text
        arguments = load_config(files.config).model.backbone
        assert arguments.type == 'TimmMaps' and {key: arguments[key] for key in resolved} == resolved
        exported.append(files)
        models.append(model)
    for found, model in zip(found_alone(exported, batch, tmp_path), models):
        with torch.no_grad():
            ours = model.test_step(batch)[0].pred_instances
        assert len(ours) > 5 and found['classes'] == ['disc', 'square']
        assert torch.equal(found['boxes'], ours.bboxes) and torch.equal(found['scores'], ours.scores)
    # what was exported can be exported again, and is the same
    again = write_plain(load_config(exported[1].config), exported[1].checkpoint, str(tmp_path / 'again'))
    assert Path(again.config).read_text() == Path(exported[1].config).read_text()
    assert Path(again.checkpoint).name.rpartition('-')[2] == Path(exported[1].checkpoint).name.rpartition('-')[2]
    # one module serves all students in a folder; somebody else's of that name is left alone
    Path(exported[0].module).write_text('# mine')
    other = load_config(run_config(plain, 'other.py'))
    with pytest.raises(ConfigError, match=r'timm_maps\.py is there already'):
        write_plain(other, checkpoint, str(tmp_path / 'out'))
    assert Path(exported[0].module).read_text() == '# mine' and not (tmp_path / 'out' / 'other.py').exists()
