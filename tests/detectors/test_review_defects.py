"""What a review found, one test each: silent ways for a student to be another one, or to be taught nothing."""
import copy
import logging
from types import SimpleNamespace

import pytest
import torch
from any_detector import DETECTORS
from conftest import build, faster_rcnn_cfg, losses_of, make_batch, save_checkpoint, total
from dense_detectors import dense_cfg
from mmdet.models.detectors import FasterRCNN, RTMDet
from mmdet.models.task_modules.coders import TBLRBBoxCoder
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.logging import MessageHub, MMLogger
from mmengine.runner import Runner
from test_faster_rcnn import ALL, distil_cfg
from torch import nn

from kd_det.engine import DistillHook
from kd_det.errors import ConfigError
from kd_det.sources.folding import fold_batch_norms
from kd_det.terms.box_coding import same_coder


@pytest.fixture(scope='module')
def dense_teacher(tmp_path_factory):
    made = {}

    def of(kind, **head):
        key = (kind, *head)
        if key not in made:
            cfg = dense_cfg(kind, width=16, **head)
            made[key] = cfg, save_checkpoint(build(copy.deepcopy(cfg), 7), tmp_path_factory.mktemp('t') / f'{kind}.pth')
        return made[key]
    return of


def taught(cfg, teacher, kind='Distiller', **options):
    cfg = ConfigDict(copy.deepcopy(cfg))
    cfg.update(student_type=cfg.type, type=kind, **options,
               teacher=dict(config=copy.deepcopy(teacher[0]), checkpoint=teacher[1]))
    return cfg


@pytest.fixture(autouse=True)
def epoch():
    """TOOD asks for the epoch."""
    MessageHub.get_current_instance().update_info('epoch', 100)
    yield
    MessageHub.get_current_instance().update_info('epoch', 0)


# -- 1: the student's own class
# --------------------------------------------------------------------------------------------
class HalvedFasterRCNN(FasterRCNN):
    """A detector of the user's own."""

    def extract_feat(self, batch_inputs):
        return tuple(level / 2 for level in super().extract_feat(batch_inputs))


def test_a_student_of_the_users_own_class_stays_it(teacher_checkpoint):
    MODELS.register_module(module=HalvedFasterRCNN, force=True)
    cfg = faster_rcnn_cfg()
    cfg.type = 'HalvedFasterRCNN'
    model, plain = build(distil_cfg(teacher_checkpoint, cfg, **ALL), 1), build(copy.deepcopy(cfg), 1)
    assert isinstance(model, HalvedFasterRCNN)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for one, other in zip(model.eval().extract_feat(image), plain.eval().extract_feat(image)):
            assert torch.equal(one, other)


@pytest.mark.parametrize('method', ['LADDistiller', 'CoLAD'])
def test_rtmdet_keeps_its_arguments_and_sync_batch_norms(method, dense_teacher, monkeypatch):
    monkeypatch.setattr('mmdet.models.detectors.rtmdet.get_world_size', lambda: 2)
    cfg = dense_cfg('rtmdet')
    cfg.update(type='RTMDet', use_syncbn=True)
    if method == 'CoLAD':
        model = build(ConfigDict(cfg, student_type='RTMDet', type='CoLAD', peer=dict(config=cfg.to_dict())), 1)
        networks = [model, model.peer]
    else:
        networks = [build(taught(cfg, dense_teacher('rtmdet'), method), 1)]
    for network in networks:
        assert isinstance(network, RTMDet)
        assert any(isinstance(m, nn.SyncBatchNorm) for m in network.backbone.modules())
        assert not any(isinstance(m, nn.BatchNorm2d) for m in network.modules())


def test_a_student_whose_class_is_not_known_is_refused(teacher_checkpoint):
    cfg = distil_cfg(teacher_checkpoint, **ALL)
    del cfg.student_type
    with pytest.raises(ConfigError, match=r"model\.student_type: missing.*student_type='FasterRCNN'"):
        build(cfg)
    cfg.student_type = 'FasterRCNNDistiller'
    with pytest.raises(ConfigError, match='no plain detector'):
        build(cfg)


# -- 2: folding
# ------------------------------------------------------------------------------------------------------------
class Standardised(nn.Conv2d):
    """Like ConvAWS: its weights are changed on the way."""

    def forward(self, x):
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(x, weight / (weight.std((1, 2, 3), keepdim=True) + 1e-5), self.bias)


class Block(nn.Module):
    """Declares its convolutions before its norms, in another order than it uses them."""

    def __init__(self, kind=nn.Conv2d):
        super().__init__()
        self.one, self.two = kind(4, 4, 3, padding=1, bias=False), kind(4, 4, 3, padding=1, bias=False)
        self.norm_two, self.norm_one = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x):
        return self.norm_two(self.two(self.norm_one(self.one(x)).relu()))


class Leaking(Block):
    """Uses what lies between a convolution and its norm."""

    def forward(self, x):
        between = self.one(x)
        return self.norm_two(self.two(self.norm_one(between).relu())) + between


def stirred(model):
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize('block, folds', [(Block(), 2), (Block(Standardised), 0)])
def test_only_plain_convolutions_are_folded_with_the_norm_that_follows_them(block, folds):
    stirred(block)
    image = torch.randn(2, 4, 8, 8)
    before = block(image)
    assert len(fold_batch_norms(block, lambda: [block(image)])) == folds
    assert torch.allclose(block(image), before, atol=1e-5)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in block.modules()) == 2 - folds


class Scaled(Block):
    """A hook changes what a plain convolution returns."""

    def __init__(self):
        super().__init__()
        self.two.register_forward_hook(lambda _module, _inputs, output: 2 * output)


@pytest.mark.parametrize('kind, norm, convolution', [(Leaking, 'norm_one', 'one'), (Scaled, 'norm_two', 'two')])
def test_a_fold_that_changes_what_the_network_says_is_refused_with_its_name_and_undone(kind, norm, convolution):
    block = stirred(nn.Sequential(Block(), kind()))
    image = torch.randn(2, 4, 8, 8)
    before = block(image)
    with pytest.raises(ConfigError,
                       match=rf'b\.fuse_conv_bn: .*batch norm 1\.{norm} .*between it and 1\.{convolution}\. '
                                          r'Set sources\.b\.fuse_conv_bn=False'):
        fold_batch_norms(block, lambda: [block(image)], key='sources.b')
    assert torch.equal(block(image), before)


# -- 3: branches that nothing trains
# ---------------------------------------------------------------------------------------
def test_parameters_without_a_gradient_are_named(dense_teacher, caplog):
    """Hints on the backbone alone, the student's own losses off: its head is never trained, and prediction uses it."""
    model = build(taught(dense_cfg('atss'), dense_teacher('atss'), ground_truth=False,
                         terms=[dict(type='Hint', layer='neck')]), 1)
    MMLogger.get_current_instance().addHandler(caplog.handler)
    with caplog.at_level(logging.ERROR):
        for step in range(10):
            total(losses_of(model, make_batch(seed=step))).backward()
    message = next(r.getMessage() for r in caplog.records if 'had no gradient' in r.getMessage())
    assert 'bbox_head.' in message and 'ground_truth=True' in message and 'backbone.conv1' not in message


# -- 4, 5: hints
# -----------------------------------------------------------------------------------------------------------
def test_a_hint_on_a_frozen_layer_stops_at_the_first_step(teacher_checkpoint):
    student = faster_rcnn_cfg()
    student.backbone.frozen_stages = 2
    model = build(distil_cfg(teacher_checkpoint, student, hints=[dict(layer='backbone.layer2')]), 1)
    with pytest.raises(ConfigError, match=r"hints\[0\]\.layer: nothing that trains.*'backbone\.layer2'"):
        losses_of(model, make_batch())
    student.backbone.frozen_stages = 1
    losses_of(build(distil_cfg(teacher_checkpoint, student, hints=[dict(layer='backbone.layer2')]), 1), make_batch())


@pytest.mark.parametrize('layer, negative', [
    ('backbone.layer2.0.bn1', True), ('backbone.layer2.0.bn2', True), ('backbone.layer2', False),
    ('roi_head.bbox_head.shared_fcs.1', True)])
def test_a_layer_means_what_it_returns_also_before_an_activation_in_place(teacher_checkpoint, layer, negative):
    """An activation, or a sum with a residual, that writes over the layer's output changes nothing of the hint."""
    model = build(distil_cfg(teacher_checkpoint, hints=[dict(layer=layer, loss=dict(scale_free=False))]), 1)
    returned, compared = [], []
    for network in (model, model.teacher.model):
        nn.init.ones_(network.backbone.layer2[0].bn2.weight)  # begins as 0
        network.get_submodule(layer).register_forward_hook(lambda _m, _args, output: returned.append(output.clone()))
    model.terms[0].adapters[0].register_forward_hook(lambda _m, args, _o: compared.append(args[0]))
    model.terms[0].loss.register_forward_hook(lambda _m, args, _o: compared.append(args[1]))
    total(losses_of(model, make_batch())).backward()
    assert len(returned) == len(compared) == 2
    for one, other in zip(returned, compared):  # the student's, then the teacher's
        assert torch.equal(one, other) and bool((other < 0).any()) == negative
    assert model.backbone.layer2[0].bn1.weight.grad is not None


# -- 6: a teacher that says nothing
# ----------------------------------------------------------------------------------------
@pytest.mark.parametrize('kind', ['rtmdet', 'tood', 'ddod', 'paa', 'yolox'])
def test_an_assigning_teacher_without_finite_predictions_stops_the_run(kind, dense_teacher):
    model = build(taught(dense_cfg(kind), dense_teacher(kind), 'LADDistiller'), 1)
    assert float(losses_of(model, make_batch())['teacher_positives']) > 0
    with torch.no_grad():
        for parameter in model.teacher.model.bbox_head.parameters():
            parameter.fill_(float('nan'))
    with pytest.raises(ValueError, match=r'predictions of the teacher.*inf or nan'):
        losses_of(model, make_batch())


# -- 8: other numbers of channels
# ------------------------------------------------------------------------------------------
@pytest.mark.parametrize('channels', [1, 4])
def test_images_of_other_channel_counts(channels, tmp_path):
    def cfg(width, mean):
        made = faster_rcnn_cfg(width=width)
        made.backbone.in_channels = channels
        # MMDetection normalises one or three channels
        statistics = dict(mean=[mean], std=[50.]) if channels == 1 else {}
        made.data_preprocessor = dict(type='DetDataPreprocessor', pad_size_divisor=32, **statistics)
        return made
    path = save_checkpoint(build(cfg(16, 90.), 1), tmp_path / 't.pth')
    model = build(distil_cfg((cfg(16, 90.), path), cfg(8, 100.), **ALL), 2)
    batch = make_batch()
    batch['inputs'] = [image[:1].repeat(channels, 1, 1) for image in batch['inputs']]
    seen = []
    model.teacher.model.backbone.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    assert total(losses_of(model, batch)).isfinite()
    mean, std = (90., 50.) if channels == 1 else (0., 1.)
    for image, raw in zip(seen[0], batch['inputs']):  # normalised as the teacher was trained
        assert torch.allclose(image, (raw.float() - mean) / std, atol=1e-4)


# -- 9: inference
# ----------------------------------------------------------------------------------------------------------
def test_inference_with_a_distil_config_needs_no_teacher(teacher_checkpoint, tmp_path):
    from mmdet.apis import inference_detector, init_detector
    cfg = distil_cfg((teacher_checkpoint[0].to_dict(), str(tmp_path / 'gone.pth')), **ALL)
    path = save_checkpoint(build(faster_rcnn_cfg(), 1), tmp_path / 'student.pth')
    pipeline = [dict(type='LoadImageFromNDArray'), dict(type='Resize', scale=(128, 96)),
                dict(type='PackDetInputs', meta_keys=('img_shape', 'ori_shape', 'scale_factor'))]
    (tmp_path / 'config.py').write_text(
        f"default_scope = 'mmdet'\nmodel = {ConfigDict(cfg).to_dict()!r}\n"
        f'test_pipeline = {pipeline!r}\ntest_dataloader = dict(dataset=dict(pipeline=test_pipeline))\n')
    detector = init_detector(str(tmp_path / 'config.py'), path, device='cpu', palette='random')
    image = make_batch()['inputs'][0].permute(1, 2, 0).numpy()
    assert inference_detector(detector, image).pred_instances is not None
    with pytest.raises(ConfigError, match=r'teacher\.checkpoint.*gone\.pth'):
        detector.init_weights()


def test_mmdetections_test_loop_with_a_distil_config_needs_no_teacher(teacher_checkpoint, run_config, tmp_path):
    """What its ``tools/test.py`` does: a runner of the config as it is, and ``test()``."""
    cfg = Config.fromfile(run_config(distil_cfg((teacher_checkpoint[0].to_dict(), str(tmp_path / 'gone.pth')), **ALL)))
    cfg.update(work_dir=str(tmp_path / 'work'), load_from=save_checkpoint(build(faster_rcnn_cfg(), 1),
                                                                          tmp_path / 's.pth'))
    assert 'coco/bbox_mAP' in Runner.from_cfg(cfg).test()


# -- 10, 11, 17, 18: configs
# -----------------------------------------------------------------------------------------------
def test_mmdetections_own_distillation_loss_can_be_used(teacher_checkpoint):
    model = build(distil_cfg(teacher_checkpoint, rcnn_distill=dict(
        cls=dict(type='KnowledgeDistillationKLDivLoss', T=2, loss_weight=1.0))), 1)
    assert float(losses_of(model, make_batch())['loss_cls_distill']) > 0


def test_a_softmax_over_the_one_column_of_an_rpn_is_refused(teacher_checkpoint):
    """It would be 0 for ever, and take away half of the ground truth's weight."""
    with pytest.raises(ConfigError,
                       match=r'rpn_distill\.cls\.type: KnowledgeDistillationKLDivLoss .*SoftTargetLoss takes'):
        build(distil_cfg(teacher_checkpoint, rpn_distill=dict(cls=dict(type='KnowledgeDistillationKLDivLoss', T=2))))


@pytest.mark.parametrize('stage, cls', [('rcnn_distill', 'CrossEntropyLoss'), ('rpn_distill', 'FocalLoss')])
def test_a_loss_of_another_kind_is_refused(teacher_checkpoint, stage, cls):
    with pytest.raises(ConfigError, match=rf'{stage}\.cls\.type: {cls} does not compare.*SoftTargetLoss'):
        build(distil_cfg(teacher_checkpoint, **{stage: dict(cls=dict(type=cls))}))


def test_an_adapter_or_loss_without_type_is_the_default(teacher_checkpoint):
    model = build(distil_cfg(teacher_checkpoint, hints=[dict(layer='neck', adapter=dict(kernel_size=3),
                                                             loss=dict(loss_weight=5))]))
    assert model.terms[0].adapters[0].layers[0].kernel_size == (3, 3) and model.terms[0].loss.loss_weight == 5


def test_coders_of_other_normalisers_differ():
    assert same_coder(TBLRBBoxCoder(normalizer=4.0), TBLRBBoxCoder(normalizer=4.0))
    assert not same_coder(TBLRBBoxCoder(normalizer=4.0), TBLRBBoxCoder(normalizer=1.0))


def test_a_teacher_without_preprocessor_sees_raw_pixels(tmp_path):
    cfg = faster_rcnn_cfg(width=16)
    cfg.data_preprocessor = None
    path = save_checkpoint(build(copy.deepcopy(cfg), 1), tmp_path / 't.pth')
    model = build(distil_cfg((cfg, path), scale_factor=2, **ALL), 2)
    assert total(losses_of(model, make_batch(teacher_scale=2))).isfinite()


# -- 12: checkpoints
# -------------------------------------------------------------------------------------------------------
def test_training_state_goes_to_the_cpu():
    from torch._subclasses.fake_tensor import FakeTensorMode
    checkpoint = {}
    with FakeTensorMode():  # tensors of a GPU without a GPU
        state = dict(terms=dict(weight=torch.zeros(2, device='cuda')), written=dict(a='b'))
        model = SimpleNamespace(distill_state=lambda: state)
        DistillHook().before_save_checkpoint(SimpleNamespace(model=model), checkpoint)
        assert checkpoint['kd_det']['terms']['weight'].device.type == 'cpu'
        assert checkpoint['kd_det']['written'] == dict(a='b')


# -- 15, 16: LAD
# -----------------------------------------------------------------------------------------------------------
def test_paas_first_assignment_is_made_once(dense_teacher, monkeypatch):
    model = build(taught(dense_cfg('paa'), dense_teacher('paa'), 'LADDistiller'), 1)
    calls = []
    for head in (model.bbox_head, model.teacher.model.bbox_head):
        original = head.assigner.assign
        monkeypatch.setattr(head.assigner, 'assign',
                            lambda *a, original=original, **k: calls.append(1) or original(*a, **k))
    losses_of(model, make_batch())
    assert len(calls) == 2  # images


def test_soft_labels_need_the_students_own_resolution(dense_teacher):
    cfg = taught(dense_cfg('paa'), dense_teacher('paa'), 'LADDistiller', lad=False, soft_label=dict())
    cfg.teacher.scale_factor = 2
    with pytest.raises(ConfigError, match=r'teacher\.scale_factor: found 2'):
        build(cfg)


# -- 19: tokens and padding
# ------------------------------------------------------------------------------------------------
def test_tokens_have_linear_adapters(tmp_path):
    cfg = DETECTORS['detr'](16)
    path = save_checkpoint(build(copy.deepcopy(cfg), 1), tmp_path / 't.pth')
    model = build(taught(DETECTORS['detr'](8), (cfg, path), terms=[dict(type='Hint', layer='encoder')]), 1)
    assert type(model.terms[0].adapters[0]).__name__ == 'LinearAdapter'


def test_padding_is_left_out_of_hints(teacher_checkpoint):
    """Whatever lies in the padding of the smaller image changes nothing."""
    model = build(distil_cfg(teacher_checkpoint, hints=[dict(layer='backbone.layer1')]), 1).eval()
    masks = []
    model.terms[0].loss.register_forward_hook(lambda _m, _args, kwargs, _o: masks.append(kwargs['mask']),
                                              with_kwargs=True)
    losses_of(model, make_batch(sizes=((96, 128), (64, 64)), objects=(3, 1)))
    assert masks[0].shape == (2, 1, 24, 32) and masks[0][0].all()
    assert masks[0][1, 0, :16, :16].all() and masks[0][1].sum() == 16 * 16


@pytest.mark.parametrize('kind, cells', [('detr', [(4, 4)]), ('deformable_detr', [(16, 16), (8, 8), (4, 4), (2, 2)])])
@pytest.mark.parametrize('loss', ['HintLoss', 'PKDLoss'])
def test_tokens_of_padding_are_left_out_of_hints(kind, cells, loss, made_once):
    """An encoder's tokens are the cells of the maps behind the neck, row by row."""
    model = build(taught(DETECTORS[kind](8), made_once(kind, DETECTORS[kind]), terms=[
        dict(type='Hint', layer='encoder', loss=dict(type=loss, loss_weight=1.0))]), 1)
    seen = []
    model.terms[0].loss.register_forward_hook(lambda _m, args, kwargs, out: seen.append((*args, kwargs['mask'], out)),
                                              with_kwargs=True)
    batch = make_batch(sizes=((128, 128), (64, 96)), objects=(3, 1))
    for sample in batch['data_samples']:
        sample.set_metainfo(dict(batch_input_shape=(128, 128), pad_shape=(128, 128)))
    losses_of(model, batch)
    ours, theirs, mask, value = seen[0]
    assert mask.shape == (2, sum(h * w for h, w in cells), 1) and mask[0].all()
    begin = 0
    for h, w in cells:
        level = mask[1, begin:begin + h * w, 0].view(h, w)
        expected = torch.zeros(h, w, dtype=torch.bool)
        expected[:(h + 1) // 2, :-(-w * 3 // 4)] = True
        assert torch.equal(level, expected)
        begin += h * w
    assert torch.equal(model.terms[0].loss(ours.where(mask, 1e6), theirs, mask=mask), value)


# -- 20: mixed precision
# ---------------------------------------------------------------------------------------------------
def test_weights_are_cast_once_under_autocast_and_come_back(teacher_checkpoint):
    model = build(distil_cfg(teacher_checkpoint, **ALL), 1)
    weight = model.teacher.model.backbone.conv1.weight
    whole = weight.detach().clone()
    addresses = []
    for _ in range(2):
        with torch.autocast('cpu', dtype=torch.bfloat16):
            assert total(losses_of(model, make_batch())).isfinite()
        assert weight.dtype == torch.bfloat16
        addresses.append(weight.data_ptr())
    assert addresses[0] == addresses[1]
    losses_of(model, make_batch())
    assert weight.dtype == torch.float32 and torch.equal(weight, whole)


# -- 21: suspected
# ---------------------------------------------------------------------------------------------------------
def test_a_cascade_that_ends_early_is_no_error(tmp_path, monkeypatch):
    cfg = DETECTORS['cascade_rcnn'](16)
    path = save_checkpoint(build(copy.deepcopy(cfg), 1), tmp_path / 't.pth')
    model = build(distil_cfg((cfg, path), DETECTORS['cascade_rcnn'](8), rcnn_distill=dict()), 1)
    monkeypatch.setattr(type(model.roi_head.bbox_head[0]), 'refine_bboxes', lambda *_: None)  # no proposal is left
    losses = losses_of(model, make_batch())
    assert 's0.loss_cls_distill' in losses and 's1.loss_cls_distill' not in losses


@pytest.mark.parametrize('head, words', [('SABLHead', 'SABLHead does not encode'), ('GridRoIHead', 'grid points')])
def test_box_heads_without_deltas_are_refused_at_build_time(head, words, teacher_checkpoint):
    from mmengine.hub import get_config
    path = dict(SABLHead='sabl/sabl-faster-rcnn_r50_fpn_1x_coco.py',
                GridRoIHead='grid_rcnn/grid-rcnn_r50_fpn_gn-head_2x_coco.py')[head]
    cfg = ConfigDict(get_config(f'mmdet::{path}').model.to_dict())
    with pytest.raises(ConfigError, match=words):
        build(distil_cfg(teacher_checkpoint, cfg, rcnn_distill=dict()))
