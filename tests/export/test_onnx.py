"""The ONNX file gives the detector's own detections, and a wrong one is not kept."""
import json

import cv2
import numpy as np
import pytest
import torch
from any_detector import cascade_rcnn, mask_rcnn, sparse_rcnn, ssd
from conftest import build, faster_rcnn_cfg
from dense_detectors import dense_cfg
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import Config

from kd_det.errors import ConfigError
from kd_det.export import onnx_detect, onnx_file
from kd_det.export.onnx_file import write_onnx
from kd_det.export.two_stage_graph import ExportedTwoStage
from kd_det.export.verify import fitted

onnx = pytest.importorskip('onnx', reason='the extra "export" is not installed')


def detector(kind: str):
    """A tiny detector whose weights are large enough that it detects something, and its config."""
    if kind.startswith('faster_rcnn'):
        return two_stages(agnostic=kind.endswith('agnostic'))
    cfg = ssd(8) if kind == 'ssd' else dense_cfg(kind)
    model = build(cfg).eval()
    torch.manual_seed(1)
    if kind == 'ssd':  # its untrained batch norms leave next to nothing, so that all scores are equal
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.no_grad():
            maps = model.train().extract_feat(torch.randn(2, 3, 320, 320))
            model.bbox_head(maps)
        model.eval()
    for name, parameter in model.bbox_head.named_parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.05 if 'offset' in name else 0.08)
        elif ('cls' in name or 'obj' in name) and 'bias' in name:
            torch.nn.init.constant_(parameter, -1.0)
    return Config(dict(model=cfg)), model


def two_stages(agnostic=False):
    """A tiny Faster R-CNN of large weights; with one box for each class, or one for all."""
    cfg = faster_rcnn_cfg()
    cfg.roi_head.bbox_head.reg_class_agnostic = agnostic
    model = build(cfg).eval()
    torch.manual_seed(1)
    for part in (model.rpn_head, model.roi_head.bbox_head):
        for parameter in part.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.08)
    return Config(dict(model=cfg)), model


@pytest.fixture
def photos(tmp_path):
    """Three images of coarse noise: padded a little, not at all, and by almost half the width (equal scores there)."""
    rng, paths = np.random.default_rng(0), []
    for i, (height, width) in enumerate([(100, 140), (128, 160), (128, 90)]):
        paths.append(str(tmp_path / f'{i}.png'))
        noise = rng.integers(0, 255, (height // 4, width // 4, 3)).astype(np.uint8)
        cv2.imwrite(paths[-1], cv2.resize(noise, (width, height)))
    return paths


def exported(kind, photos, tmp_path):
    cfg, model = detector(kind)
    return write_onnx(cfg, model, str(tmp_path / 'out' / 'student.onnx'), ('disc', 'square'), photos, size=(128, 160),
                      progress=lambda message: None)


KINDS = [kind if kind in ('retinanet', 'faster_rcnn') else pytest.param(kind, marks=pytest.mark.slow)
         for kind in ('retinanet', 'faster_rcnn', 'faster_rcnn_agnostic',
                      'yolox', 'fcos', 'atss', 'gfl', 'paa', 'tood', 'ddod', 'rtmdet', 'ssd')]


@pytest.mark.parametrize('kind', KINDS)
def test_the_same_detections_through_onnxruntime(kind, photos, tmp_path):
    """Against PyTorch's own predict; the copied post-processing works without kd_det's package."""
    path, found = exported(kind, photos, tmp_path)
    assert found.detections > 20 and not found.faults
    assert found.box < 0.01 and found.score < 1e-4
    meta = json.loads({p.key: p.value for p in onnx.load(path).metadata_props}['kd_det'])
    assert meta['classes'] == ['disc', 'square'] and meta['input_size'] == [128, 160] and not meta['nms_included']
    beside = (tmp_path / 'out' / 'student_detect.py').read_text()
    assert 'kd_det import' not in beside and len(beside.splitlines()) < 60


def test_a_file_that_disagrees_is_not_kept(photos, tmp_path, monkeypatch):
    """The weights change between export and verification: as an exporter that is silently wrong."""
    true = onnx_file.export

    def wrong(model, *args):
        true(model, *args)
        with torch.no_grad():
            model.bbox_head.retina_reg.weight += 0.05
    monkeypatch.setattr(onnx_file, 'export', wrong)
    with pytest.raises(ConfigError, match=r'disagrees with PyTorch.*not written'):
        exported('retinanet', photos, tmp_path)
    assert list((tmp_path / 'out').iterdir()) == []


def test_proposals_are_the_rpns_own(tmp_path):
    """NMS looks at each level by itself: boxes of two levels that cover the whole image both stay."""
    _, model = two_stages()
    with torch.no_grad():
        model.rpn_head.rpn_reg.bias.view(-1, 4)[:, 2:] = 3.0  # so large that many are cut to the image
    image = torch.randn(1, 3, 128, 160)
    graph = ExportedTwoStage(model, (128, 160)).eval()
    with torch.no_grad():
        features = model.extract_feat(image)
        boxes, alive = graph._proposals(features, torch.tensor([160., 128., 160., 128.]))
        sample = DetDataSample(metainfo=dict(img_shape=(128, 160), scale_factor=(1.0, 1.0)))
        expected = model.rpn_head.predict(features, [sample], rescale=False)[0].bboxes
    ours = boxes[alive > 0]
    assert ours.shape == expected.shape and torch.allclose(_sorted(ours), _sorted(expected), atol=1e-4)
    assert float((bbox_overlaps(expected, expected) > 0.7).sum(1).max()) > 1  # one NMS over all levels would drop some


def _sorted(boxes):
    return boxes[sorted(range(len(boxes)), key=lambda i: [round(v, 2) for v in boxes[i].tolist()])]


def test_padding_is_no_part_of_a_two_stage_detectors_image(photos, tmp_path):
    """Its proposals are cut at the image's border, which it has to be told; without that, padded images differ."""
    _, model = two_stages()
    image = fitted(cv2.imread(photos[2]), (128, 160))
    graph = ExportedTwoStage(model, (128, 160)).eval()
    meta = dict(input_size=[128, 160], mean=model.data_preprocessor.mean.flatten().tolist(),
                std=model.data_preprocessor.std.flatten().tolist(), pad_value=[0.0] * 3, channel_order='rgb')
    inputs = torch.from_numpy(onnx_detect.prepare(image, meta).copy()).float()
    with torch.no_grad():
        told, whole = (graph(inputs, torch.tensor(shape))[1] for shape in ([128., 90.], [128., 160.]))
    assert float(told[..., 2].max()) == 90 and float(whole[..., 2].max()) > 91


def test_what_cannot_be_exported_says_why(photos, tmp_path, monkeypatch):
    cfg, model = detector('retinanet')
    out = str(tmp_path / 'a.onnx')
    with pytest.raises(ConfigError, match='--images: no image'):
        write_onnx(cfg, model, out, (), [], size=(128, 160))
    with pytest.raises(ConfigError, match='multiples of 32'):
        write_onnx(cfg, model, out, (), photos, size=(100, 160))
    with pytest.raises(ConfigError, match='test pipeline names no size'):
        write_onnx(cfg, model, out, (), photos)
    vfnet = dense_cfg('vfnet')
    with pytest.raises(ConfigError, match=r'VFNetHead.*deformable'):
        write_onnx(Config(dict(model=vfnet)), build(vfnet).eval(), out, (), photos, size=(128, 160))
    for other, words in ((cascade_rcnn(8), 'CascadeRoIHead is not'), (mask_rcnn(8), 'its masks need a second pass'),
                         (sparse_rcnn(8), 'SparseRoIHead is not')):
        with pytest.raises(ConfigError, match=words):
            write_onnx(Config(dict(model=other)), build(other).eval(), out, (), photos, size=(128, 160))
    monkeypatch.setattr(onnx_file, 'find_spec', lambda name: None)
    with pytest.raises(ConfigError, match=r'kd_det\[export\]'):
        write_onnx(cfg, model, out, (), photos, size=(128, 160))
    assert not (tmp_path / 'a.onnx').exists()
