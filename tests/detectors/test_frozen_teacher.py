"""What a frozen teacher may be turned into, and what its checkpoint may carry."""
import copy
import gc

import pytest
import torch
from conftest import build, faster_rcnn_cfg, losses_of, make_batch, save_checkpoint
from dense_detectors import dense_cfg
from mmengine.config import ConfigDict
from test_faster_rcnn import ALL, distil_cfg

from kd_det.errors import CheckpointMismatch
from kd_det.sources import FrozenTeacher
from kd_det.weights import load_whole


def trained_statistics(cfg, path):
    """A checkpoint whose batch norms are none that do nothing."""
    model = build(cfg, 1)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.5, 0.5)
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    return save_checkpoint(model, path)


@pytest.mark.parametrize('kind', ['faster_rcnn', 'rtmdet', 'rtmdet_bn_head'])
def test_fused_and_channels_last_teachers_say_the_same(kind, tmp_path):
    """Also where one convolution serves all levels, each with a batch norm of its own (RTMDet)."""
    cfg = faster_rcnn_cfg() if kind == 'faster_rcnn' else dense_cfg('rtmdet')
    if kind == 'rtmdet_bn_head':
        assert cfg.bbox_head.type == 'RTMDetSepBNHead' and cfg.bbox_head.share_conv
    path = trained_statistics(cfg, tmp_path / 't.pth')
    image = torch.randn(2, 3, 96, 128)
    outputs = []
    for options in (dict(), dict(fuse_conv_bn=True), dict(channels_last=True),
                    dict(fuse_conv_bn=True, channels_last=True)):
        teacher = FrozenTeacher(copy.deepcopy(cfg), path,
                                **{**dict(fuse_conv_bn=False, channels_last=False), **options})
        teacher.load()
        model = teacher.model
        head = model.rpn_head if kind == 'faster_rcnn' else model.bbox_head
        with torch.no_grad():
            outputs.append([level for part in head(model.extract_feat(image)) for level in part])
        norms = sum(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
        assert (norms == 0) == bool(options.get('fuse_conv_bn')) == bool(teacher.folded)
    for other in outputs[1:]:
        for one, two in zip(outputs[0], other):
            assert torch.allclose(one, two, rtol=1e-3, atol=1e-4 * float(one.abs().max()))


def test_a_folded_convolution_is_no_hint_layer(teacher_checkpoint):
    cfg = distil_cfg(teacher_checkpoint, hints=[dict(layer='backbone.layer2.0.conv1')])
    losses = []
    for fuse in (False, True):
        cfg.teacher.fuse_conv_bn = fuse
        model = build(copy.deepcopy(cfg), 1)
        block = model.teacher.model.backbone.layer2[0]
        assert isinstance(block.bn1, torch.nn.BatchNorm2d) and isinstance(block.bn2, torch.nn.BatchNorm2d) != fuse
        losses.append(float(losses_of(model, make_batch())['loss_hint_backbone_layer2_0_conv1']))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


def test_a_copy_on_another_device_or_precision_leaves_the_teacher(teacher_checkpoint):
    model = build(distil_cfg(teacher_checkpoint, hints=[dict(layer='neck')]), 1)
    weight = model.teacher.model.backbone.conv1.weight
    averaged = copy.deepcopy(model).double()
    assert averaged.teacher is model.teacher and weight.dtype == torch.float32
    assert torch.isfinite(losses_of(model, make_batch())['loss_hint_neck'])
    model.double()
    assert model.teacher.model.backbone.conv1.weight.dtype == torch.float64
    del model
    gc.collect()  # now the copy is what there is
    averaged.float()
    assert averaged.teacher.model.backbone.conv1.weight.dtype == torch.float32


def test_normalisation_and_averages_in_older_checkpoints():
    """Early MMDetection 3 wrote mean and std, MMCV 1 a second copy of every weight; neither is a mismatch."""
    cfg = ConfigDict(faster_rcnn_cfg())
    model = build(cfg, 1)
    own = {k: v + 1 if v.is_floating_point() else v for k, v in model.state_dict().items()}
    old = dict(own, **{'data_preprocessor.mean': model.data_preprocessor.mean.clone(),
                       'data_preprocessor.std': model.data_preprocessor.std.clone(),
                       'ema_backbone_conv1_weight': own['backbone.conv1.weight'] + 5})
    load_whole(model, old, 'checkpoint old.pth')
    assert all(torch.equal(v, own[k]) for k, v in model.state_dict().items())
    with pytest.raises(CheckpointMismatch, match=r'with mean \[0\.0, 0\.0, 0\.0\].*preprocessor\.mean is \[123'):
        load_whole(model, dict(old, **{'data_preprocessor.mean': torch.zeros(3, 1, 1)}), 'checkpoint old.pth')
    with pytest.raises(CheckpointMismatch, match='ema_of_something_else'):
        load_whole(model, dict(old, ema_of_something_else=torch.zeros(3)), 'checkpoint old.pth')


def test_teacher_with_other_normalisation_sees_what_it_was_trained_on(tmp_path):
    cfg = faster_rcnn_cfg()
    cfg.data_preprocessor.update(mean=[103.53, 116.28, 123.675], std=[1.0, 2.0, 3.0], bgr_to_rgb=False)
    path = save_checkpoint(build(cfg, 1), tmp_path / 't.pth')
    model = build(distil_cfg((cfg, path), **ALL), 2)
    batch = make_batch(sizes=((96, 128), (80, 100)))
    alone = model.teacher.model.data_preprocessor(copy.deepcopy(batch), False)['inputs']
    data = model.data_preprocessor(batch, True)
    assert not torch.allclose(data['inputs'], alone)
    assert torch.allclose(model.teacher.prepare(data['inputs'], data['data_samples']), alone, atol=1e-3)
    assert any('re-normalised' in line for line in model.plan())


def test_teacher_loads_whole_or_not_at_all(teacher_checkpoint, tmp_path, caplog):
    with pytest.raises(CheckpointMismatch, match=r'(?s)backbone\.conv1\.weight: checkpoint \(16, .* network \(8, '):
        build(distil_cfg((faster_rcnn_cfg(), teacher_checkpoint[1]), **ALL))
    model = build(faster_rcnn_cfg(), 1)
    state = model.state_dict()
    del state['neck.lateral_convs.0.conv.weight']
    state['extra'] = torch.zeros(1)
    torch.save(dict(state_dict=state), tmp_path / 'part.pth')
    with pytest.raises(CheckpointMismatch, match=r'(?s)missing.*neck\.lateral_convs\.0\.conv\.weight.*extra'):
        build(distil_cfg((faster_rcnn_cfg(), str(tmp_path / 'part.pth')), **ALL))
    cfg = distil_cfg((faster_rcnn_cfg(), str(tmp_path / 'part.pth')), **ALL)
    cfg.teacher.strict = False
    assert build(cfg).teacher.model is not None
    torch.save(dict(state_dict=dict(nothing=torch.zeros(1))), tmp_path / 'none.pth')
    cfg.teacher.checkpoint = str(tmp_path / 'none.pth')
    with pytest.raises(CheckpointMismatch, match='not a single tensor'):
        build(cfg)


def test_teacher_from_path_model_dict_or_whole_config(teacher_checkpoint, tmp_path):
    cfg, path = teacher_checkpoint
    (tmp_path / 't.py').write_text(f'model = {cfg.to_dict()!r}\n')
    for config in (str(tmp_path / 't.py'), cfg, dict(model=cfg)):
        assert build(distil_cfg((config, path), **ALL)).teacher.classes == ('disc', 'square')
