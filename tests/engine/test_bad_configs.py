"""Wrong configs: each is refused when the detector is built or the config read, naming the key and what would do.

A wrong config more is one line: what is changed, and words that the message must hold.
"""
import copy

import pytest
import torch
from conftest import build, faster_rcnn_cfg, run_tool, save_checkpoint
from dense_detectors import dense_cfg
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict
from mmengine.registry import DefaultScope

from kd_det.config import check_keys
from kd_det.config_types import check_types
from kd_det.errors import CheckpointMismatch, ConfigError

NAN, INF = float('nan'), float('inf')

# -- Faster R-CNN: dotted key below model -> value, words
TWO_STAGE = [
    ('teacher.config', None, r'teacher.config: found None; a config file or a dict'),
    ('teacher.config', ['a.py'], r'teacher.config: found \[.a.py.\]; a config file or a dict'),
    ('teacher.config', 'gone.py', r"'gone.py' does not exist"),
    ('teacher.config', dict(depth=18), r'teacher.config: neither a config with a `model`'),
    ('teacher.checkpoint', 5, r'teacher.checkpoint: found 5; a file or URL'),
    ('teacher', 'teacher.py', r"teacher: found 'teacher.py'; a dict is expected, dict\(config"),
    ('teacher.chekpoint', 'x.pth', r"teacher: unknown keys \['chekpoint'\]; did you mean 'checkpoint'"),
    ('teacher.strict', 'False', r"teacher.strict: found 'False'; it must be True or False"),
    ('teacher.fuse_conv_bn', 1, r'teacher.fuse_conv_bn: found 1; it must be True or False'),
    ('teacher.channels_last', 'yes', r"teacher.channels_last: found 'yes'; it must be True or False"),
    ('teacher.compile', 'no', r"teacher.compile: found 'no'; it must be True or False"),
    ('teacher.scale_factor', True, r'teacher.scale_factor: found True; it must be a whole number'),
    ('teacher.scale_factor', 0, r'teacher.scale_factor: found 0; it must be 1 or larger'),
    ('teacher.scale_factor', 1.5, r'teacher.scale_factor: found 1.5; it must be a whole number'),
    ('teacher.check', -1, r'teacher.check: found -1; it must be 0 or larger'),
    ('teacher.check', True, r'teacher.check: found True; it must be a whole number'),
    ('teacher.baseline', 37.4, r'teacher.baseline: found 37.4; it must be less than 1'),
    ('teacher.cfg_options', {'modle.neck': 3}, r"teacher.cfg_options: 'modle.neck' changes nothing.*no 'modle'"),
    ('teacher.cfg_options', {'backbone.dept': 18}, r"teacher.cfg_options: .*'dept'.*did you mean 'depth'"),
    ('teacher.type', 'Techer', r"teacher.type: found 'Techer'; one of"),
    ('student_type', 'FasterRCN', r"model.student_type: 'FasterRCN' is not registered"),
    ('student_type', 'FPN', r'model.student_type: FPN is no plain detector'),
    ('ground_truth', 'False', r"model.ground_truth: found 'False'; it must be True or False"),
    ('sources', ['a'], r"sources: found \['a'\]; a dict of sources"),
    ('sources', dict(teacher=dict(config='a.py')), r"teacher: sources has a 'teacher' too"),
    ('hints', 'neck', r"hints: found 'neck'; a list of dicts"),
    ('hints', [dict(layer='nek')], r"hints\[0\].layer: .* has no layer 'nek'; it has"),
    ('hints', [dict(layer=3)], r'hints\[0\].layer: .* has no layer 3'),
    ('hints', [dict(layer='neck', teacher_layer='backbone.layer9')],
     r"teacher_layer: .* has no layer 'backbone.layer9'"),
    ('hints', [dict(layr='neck')], r"hints\[0\]: unknown keys \['layr'\]; did you mean 'layer'"),
    ('hints', [dict()], r'hints\[0\]: layer missing'),
    ('hints', [dict(layer='neck', loss='HintLoss')], r"hints\[0\].loss: found 'HintLoss'; a dict"),
    ('hints', [dict(layer='neck', loss=dict(loss_weight=-1))], r'loss.loss_weight: found -1; it must be 0 or larger'),
    ('hints', [dict(layer='neck', loss=dict(loss_weight='1'))], r"loss.loss_weight: found '1'; it must be a number"),
    ('hints', [dict(layer='neck', loss=dict(type='GIoULoss'))],
     r'hints\[0\].loss.type: GIoULoss compares decoded boxes'),
    ('hints', [dict(layer='neck', loss=dict(type='HintLos'))], r"hints\[0\].loss.type: 'HintLos' is not registered"),
    ('hints', [dict(layer='neck', adapter='conv')], r"hints\[0\].adapter: found 'conv'; a dict"),
    ('hints', [dict(layer='neck', adapter=None)], r'hints\[0\].adapter: .* cannot bridge'),
    ('hints', [dict(layer='neck', adapter=dict(kernel_size=2))], r'hints\[0\].adapter: .*kernel_size must be odd'),
    ('hints', [dict(layer='neck', adapter=dict(kernal_size=3))], r"hints\[0\].adapter: unknown keys \['kernal_size'\]"),
    ('hints', [dict(layer='neck', adapter=dict(type='HintLoss'))], r'hints\[0\].adapter'),
    ('hints', [dict(layer='neck', levels=[7])], r'hints\[0\].levels: found \[7\]; levels'),
    ('hints', [dict(layer='neck', start_epoch=3, stop_epoch=2)], r'hints\[0\].stop_epoch: found 2, start_epoch is 3'),
    ('hints', [dict(layer='neck', start_epoch='1')], r"hints\[0\].start_epoch: found '1'; it must be a whole number"),
    ('hints', [dict(layer='neck', start_epoch=-1)], r'hints\[0\].start_epoch: found -1; it must be 0 or larger'),
    ('hints', [dict(layer='neck', decay='linear')],
     r"hints\[0\].decay: found 'linear'; it must be one of None, 'cosine'"),
    ('hints', [dict(layer='neck', decay='cosine', decay_floor=2)], r'hints\[0\].decay_floor: found 2; it must be .*'),
    ('hints', [dict(layer='neck', source='techer')], r"hints\[0\].source: 'techer' is no source .*\['teacher'\]"),
    ('hints', [dict(layer='neck', name='a'), dict(layer='neck', name='a')],
     r'name: hints\[0\] logs loss_hint_neck_a too'),
    ('terms', dict(type='Hint'), r'terms: found .*a list of dicts'),
    ('terms', [dict(layer='neck')], r'terms\[0\].type: missing'),
    ('terms', [dict(type='ResNet', depth=18)], r'terms\[0\]'),
    ('rpn_distill', True, r'rpn_distill: found True; a dict'),
    ('rpn_distill', dict(hard_weight=True), r'rpn_distill.hard_weight: found True; it must be a number'),
    ('rpn_distill', dict(hard_weight=1.5), r'rpn_distill.hard_weight: found 1.5; it must be .*1.*'),
    ('rpn_distill', dict(hard_wieght=0.5), r"rpn_distill: unknown keys \['hard_wieght'\]; did you mean 'hard_weight'"),
    ('rpn_distill', dict(reg_weight=NAN), r'rpn_distill.reg_weight: found nan; it must be a finite number'),
    ('rcnn_distill', dict(reg_weight=INF), r'rcnn_distill.reg_weight: found inf; it must be a finite number'),
    ('rcnn_distill', dict(reg_weight=-1), r'rcnn_distill.reg_weight: found -1; it must be 0 or larger'),
    ('rcnn_distill', dict(cls=None, hard_weight=0.5), r'rcnn_distill.hard_weight: 0.5 without a soft loss'),
    ('rcnn_distill', dict(cls=dict(type='CrossEntropyLoss')),
     r'rcnn_distill.cls.type: CrossEntropyLoss does not compare'),
    ('rcnn_distill', dict(cls=dict(type='HintLoss')), r'rcnn_distill.cls.type: HintLoss compares features'),
    ('rcnn_distill', dict(cls=dict(temperature=0)), r'rcnn_distill.cls: temperature must be larger than 0, found 0'),
    ('rcnn_distill', dict(cls=dict(background_weight='1.5')), r'rcnn_distill.cls: background_weight must be a number'),
    ('rcnn_distill', dict(cls=dict(use_sigmoid=True)), r'rcnn_distill.cls.use_sigmoid: leave it out'),
    ('rcnn_distill', dict(cls='soft'), r"rcnn_distill.cls: found 'soft'; a dict"),
    ('rcnn_distill', dict(bbox=dict(type='SoftTargetLoss')), r'rcnn_distill.bbox.type: SoftTargetLoss compares scores'),
    ('rcnn_distill', dict(bbox=dict(loss_weight=NAN)),
     r'distill.bbox.loss_weight: found nan; it must be a finite number'),
    ('rcnn_distill', dict(bbox=dict(margin=-1)), r'rcnn_distill.bbox: margin must be 0 or larger, found -1'),
    ('roi_head.bbox_roi_extractor.featmap_strides', [8, 16, 32, 64], r'featmap_strides: found \[8, 16, 32, 64\]'),
    ('roi_head.bbox_head.num_classes', 3, r'rcnn_distill: the student has 3 classes'),
    ('rpn_head.anchor_generator.scales', [8], r'rpn_distill: anchors differ at student stride'),
    ('rpn_head.loss_cls.use_sigmoid', False, r'rpn_distill: one RPN scores with a sigmoid'),
]

# -- LAD and soft labels on PAA
DENSE = [
    ('lad', 'False', r"lad: found 'False'; it must be True or False"),
    ('dynamic_from_start', 'False', r"dynamic_from_start: found 'False'; it must be True or False"),
    ('copy_quality', 1, r'copy_quality: found 1; it must be True or False'),
    ('box_loss_average', 'mean', r"box_loss_average: found 'mean'; it must be one of None, 'paper', 'head'"),
    ('soft_label', True, r'soft_label: found True; a dict'),
    ('soft_label', dict(cls=dict(type='FocalLoss')), r'soft_label.cls.type: FocalLoss does not compare'),
    ('soft_label', dict(bbox=dict(type='FocalKLLoss')), r'soft_label.bbox.type: FocalKLLoss compares scores'),
    ('soft_label', dict(bbox=dict(loss_weight=NAN)), r'label.bbox.loss_weight: found nan; it must be a finite number'),
    ('soft_label', dict(bbox=dict(loss_weight=-2)), r'soft_label.bbox.loss_weight: found -2; it must be 0 or larger'),
    ('soft_label', dict(min_iou=1), r'soft_label.min_iou: found 1; it must be less than 1'),
    ('soft_label', dict(min_iou=True), r'soft_label.min_iou: found True; it must be a number'),
    ('soft_label', dict(cls=dict(temperature=0)), r'soft_label.cls: temperature must be larger than 0, found 0'),
    ('soft_label', dict(min_iuo=0.5), r"soft_label: unknown keys \['min_iuo'\]; did you mean 'min_iou'"),
    ('teacher.scale_factor', 2, r'teacher.scale_factor: found 2; .* needs 1'),
    ('bbox_head.num_classes', 3, r'num_classes: 3, the teacher has 2'),
]

# -- whole configs: dotted key -> value
WHOLE = [
    ('train_dataloder', dict(batch_size=8), r"'train_dataloder' is read by nothing; did you mean 'train_dataloader'"),
    ('default_hooks.checkpont', dict(interval=2), r"default_hooks: .*'checkpont'.*did you mean 'checkpoint'"),
    ('default_hooks.checkpoint.intervall', 2, r"default_hooks.checkpoint: .*'intervall'.*did you mean 'interval'"),
    ('optim_wrapper.optimiser', dict(type='SGD'), r"optim_wrapper: .*'optimiser'.*did you mean 'optimizer'"),
    ('optim_wrapper.clip_gard', dict(max_norm=1), r"optim_wrapper: .*'clip_gard'.*did you mean 'clip_grad'"),
    ('optim_wrapper.paramwise_cfg', dict(norm_decay_mul=0.), r"paramwise_cfg: .*'norm_decay_mul'.*did you mean"),
    ('optim_wrapper.paramwise_cfg', dict(custom_keys=dict(backbone=dict(lr_mul=0.1))),
     r"custom_keys\.backbone: .*'lr_mul'.*did you mean 'lr_mult'"),
    ('optim_wrapper.optimizer.lr', '1e-3', r"optim_wrapper.optimizer.lr: found the text '1e-3'; a number"),
    ('train_cfg.max_epoch', 3, r"train_cfg: .*'max_epoch'.*did you mean 'max_epochs'"),
    ('train_cfg.max_epochs', '12', r"train_cfg.max_epochs: found the text '12'; a number"),
    ('train_dataloader.batchsize', 2, r"train_dataloader: .*'batchsize'.*did you mean 'batch_size'"),
    ('train_dataloader.batch_size', '2', r"train_dataloader.batch_size: found the text '2'; a number"),
    ('val_dataloader.num_worker', 2, r"val_dataloader: .*'num_worker'.*did you mean 'num_workers'"),
    ('train_dataloader.batch_size', 0, r'train_dataloader.batch_size: found 0; it must be 1 or larger'),
    ('train_dataloader.batch_size', 1.5, r'train_dataloader.batch_size: found 1.5; it must be a whole number'),
    ('train_dataloader.num_workers', -1, r'train_dataloader.num_workers: found -1; it must be 0 or larger'),
    ('train_dataloader.persistent_workers', True, r'persistent_workers: found True, and num_workers is 0'),
    ('train_cfg.max_epochs', 0, r'train_cfg.max_epochs: found 0; it must be 1 or larger'),
    ('train_cfg.max_epochs', 2.5, r'train_cfg.max_epochs: found 2.5; it must be a whole number'),
    ('train_cfg.val_interval', 0, r'train_cfg.val_interval: found 0; it must be 1 or larger'),
    ('optim_wrapper.optimizer.lr', -1, r'optim_wrapper.optimizer.lr: found -1; it must be 0 or larger'),
    ('optim_wrapper.optimizer.lr', NAN, r'optim_wrapper.optimizer.lr: found nan; it must be a finite number'),
    ('optim_wrapper.optimizer.lr', INF, r'optim_wrapper.optimizer.lr: found inf; it must be a finite number'),
    ('optim_wrapper.optimizer.weight_decay', -1, r'optimizer.weight_decay: found -1; it must be 0 or larger'),
    ('optim_wrapper.accumulative_counts', 0, r'optim_wrapper.accumulative_counts: found 0; it must be 1 or larger'),
    ('optim_wrapper.clip_grad', dict(max_norm=0), r'clip_grad.max_norm: found 0; it must be larger than 0'),
    ('default_hooks.checkpoint.interval', 0, r'checkpoint.interval: found 0, which saves nothing'),
    ('randomness.seed', -1, r'randomness.seed: found -1; it must be 0 or larger'),
    ('randomness.seed', 2**32, r'randomness.seed: found 4294967296; it must be less than'),
    ('model.data_preprocessor', dict(type='DetDataPreprocessor', std=[1, 0, 1]),
     r'std\[1\]: found 0; it must be larger'),
    ('modle', dict(type='RetinaNet'), r"'modle' is read by nothing; did you mean 'model'"),
    ('randomness.sede', 1, r"randomness: .*'sede'.*did you mean 'seed'"),
    ('env_cfg.cudnn_benchmrk', True, r"env_cfg: .*'cudnn_benchmrk'.*did you mean 'cudnn_benchmark'"),
    ('auto_scale_lr.enabled', True, r"auto_scale_lr: .*'enabled'.*did you mean 'enable'"),
    ('optim_wrapper.clip_grad', dict(max_nrom=35), r"clip_grad: .*'max_nrom'.*did you mean 'max_norm'"),
    ('optim_wrapper.optimizer', dict(type='SGD', lrr=1.0), r"optimizer: SGD has no argument 'lrr'; did you mean 'lr'"),
    ('optim_wrapper.optimizer.type', 'SDG', r"optim_wrapper.optimizer.type: 'SDG' is not registered; did you mean"),
    ('param_scheduler', [dict(type='MultiStepLR', milestone=[8])],
     r"param_scheduler\[0\]: .*'milestone'.*'milestones'"),
    ('param_scheduler', [dict(milestones=[8])], r"param_scheduler\[0\].type: missing; found \['milestones'\]"),
    ('train_dataloader.sampler', dict(type='DefaultSampler', shufle=1), r"train_dataloader.sampler: .*'shuffle'"),
    ('train_dataloader.dataset', dict(type='CocoDataset', pipline=[]), r"dataset: CocoDataset .*'pipline'.*'pipeline'"),
    ('train_dataloader.dataset', dict(ann_file='a.json'), r'train_dataloader.dataset.type: missing'),
    ('train_dataloader.dataset', dict(type='CocoDataset', filter_cfg=dict(filter_emty_gt=True)),
     r"filter_cfg: nothing reads 'filter_emty_gt'; did you mean 'filter_empty_gt'"),
    ('train_dataloader.dataset', dict(type='CocoDataset', pipeline=[dict(type='Resize', scael=(8, 8))]),
     r"train_dataloader.dataset.pipeline\[0\]: Resize .*'scael'.*'scale'"),
    ('train_dataloader.dataset', dict(type='RepeatDataset', times=2, dataset=dict(
        type='CocoDataset', pipeline=[dict(type='Reszie', scale=(8, 8))])),
     r"train_dataloader.dataset.dataset.pipeline\[0\].type: 'Reszie' is not registered; did you mean 'Resize'"),
    ('val_evaluator', dict(type='CocoMetric', metrc='bbox'), r"val_evaluator: CocoMetric .*'metrc'.*'metric'"),
    ('custom_hooks', [dict(type='EMAHook', momentun=0.1)], r"custom_hooks\[0\]: .*'momentun'; did you mean 'momentum'"),
    ('custom_hooks', [dict(type='EMAHok')],
     r"custom_hooks\[0\].type: 'EMAHok' is not registered; did you mean 'EMAHook'"),
    ('default_hooks.visualization', dict(type='DetVisualizationHook', drw=True), r"visualization: .*'drw'.*'draw'"),
    ('model.backbone', dict(type='ResNet', dept=18), r"model.backbone: nothing reads 'dept'; did you mean 'depth'"),
    ('model.backbone', dict(type='ResNett', depth=18), r"model.backbone.type: 'ResNett' .*did you mean 'ResNet'"),
    ('model.backbone', dict(tpye='ResNet', depth=18), r"model.backbone: nothing reads 'tpye'; did you mean 'type'"),
    ('model.bbox_head', dict(type='RetinaHead', bbox_coder=dict(type='DeltaXYWHBBoxCoder', target_sds=[1] * 4)),
     r"model.bbox_head.bbox_coder: nothing reads 'target_sds'; did you mean 'target_stds'"),
    ('model.train_cfg', dict(rpn_propsal=dict(nms_pre=100)),
     r"train_cfg: nothing reads 'rpn_propsal'; .*'rpn_proposal'"),
    ('model.train_cfg', dict(rpn=dict(samplr=dict(type='PseudoSampler'))), r"train_cfg.rpn: .*'samplr'.*'sampler'"),
    ('model.train_cfg', dict(rcnn=dict(sampler=dict(type='RandomSampler', num=9, pos_fraction=1, neg_pos_up=3))),
     r"train_cfg.rcnn.sampler: nothing reads 'neg_pos_up'; did you mean 'neg_pos_ub'"),
    ('model.test_cfg', dict(rpn=dict(nms_per=100)),
     r"model.test_cfg.rpn: nothing reads 'nms_per'; did you mean 'nms_pre'"),
]


@pytest.fixture(scope='module')
def pairs(tmp_path_factory):
    """A distil config of each kind; no checkpoint is read when a detector is built."""
    two, dense = faster_rcnn_cfg(), dense_cfg('paa')
    two.update(student_type=two.type, type='FasterRCNNDistiller', rpn_distill=dict(), rcnn_distill=dict(),
               teacher=dict(config=faster_rcnn_cfg(width=16, channels=24).to_dict(), checkpoint='t.pth'))
    dense.update(student_type=dense.type, type='LADDistiller',
                 teacher=dict(config=dense_cfg('paa', width=16).to_dict(), checkpoint='t.pth'))
    return dict(two=two, dense=dense)


def changed(cfg, key, value):
    cfg = ConfigDict(copy.deepcopy(cfg.to_dict()))
    *path, last = key.split('.')
    part = cfg
    for name in path:
        part = part[name]
    part[last] = value
    return cfg


def refused(cfg, words):
    with DefaultScope.overwrite_default_scope('mmdet'), pytest.raises(ConfigError, match=words):
        MODELS.build(cfg)


def label(row):
    return f'{row[0]}={row[1]!r}'[:70]


def test_the_configs_that_are_changed_are_right(pairs):
    for cfg in pairs.values():
        with DefaultScope.overwrite_default_scope('mmdet'):
            MODELS.build(copy.deepcopy(cfg))


def test_there_are_at_least_sixty():
    assert len({label(row) for row in TWO_STAGE + DENSE + WHOLE}) >= 140


@pytest.mark.parametrize('row', TWO_STAGE, ids=label)
def test_two_stage(row, pairs):
    refused(changed(pairs['two'], *row[:2]), row[2])


@pytest.mark.parametrize('row', DENSE, ids=label)
def test_dense(row, pairs):
    refused(changed(pairs['dense'], *row[:2]), row[2])


RUN = dict(model=dict(type='RetinaNet'), train_dataloader=dict(batch_size=2, num_workers=0, dataset=dict()),
           val_dataloader=dict(batch_size=1), default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)),
           optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.1)),
           train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=2))


@pytest.mark.parametrize('row', WHOLE, ids=label)
def test_whole_configs(row):
    def check(cfg):
        check_keys(cfg, {})
        check_types(cfg)
    check(Config(copy.deepcopy(RUN)))
    cfg = Config(copy.deepcopy(RUN))
    *parents, last = row[0].split('.')
    part = cfg
    for name in parents:
        if name not in part:
            part[name] = {}
        part = part[name]
    part[last] = row[1]
    with pytest.raises(ConfigError, match=row[2]):
        check(cfg)


# -- detectors that a method is not for
@pytest.mark.parametrize('student, teacher, kind, words', [
    ('retinanet', 'retinanet', 'LADDistiller', r'RetinaHead'),
    ('atss', 'atss', 'LADDistiller', r'ATSSHead'),
    ('paa', 'tood', 'LADDistiller', r'teacher.config: TOODHead decides in .*heads that decide alike'),
    ('two', 'retinanet', 'FasterRCNNDistiller', r'the teacher, SingleStageDetector, has NoneType as its rpn_head'),
    ('paa', 'two', 'LADDistiller', r'teacher.config: FasterRCNN has no dense bbox_head'),
    ('retinanet', 'two', 'FasterRCNNDistiller', r'the student, .* has NoneType as its rpn_head')])
def test_detectors_that_a_method_is_not_for(student, teacher, kind, words):
    ours, theirs = (faster_rcnn_cfg() if name == 'two' else dense_cfg(name) for name in (student, teacher))
    cfg = ConfigDict(copy.deepcopy(ours.to_dict()))
    cfg.update(student_type=cfg.type, type=kind, teacher=dict(config=theirs.to_dict(), checkpoint='t.pth'))
    if kind == 'FasterRCNNDistiller':
        cfg.update(rpn_distill=dict())
    refused(cfg, words)


@pytest.mark.parametrize('kind, words', [('LADDistiller', r'DETR'), ('FasterRCNNDistiller', r'DETR.* rpn_head')])
def test_detr_is_refused_by_its_kind(kind, words):
    from any_detector import DETECTORS
    cfg = DETECTORS['detr'](8)
    own = cfg.type
    cfg.update(student_type=own, type=kind, teacher=dict(config=DETECTORS['detr'](16).to_dict(), checkpoint='t.pth'))
    if kind == 'FasterRCNNDistiller':
        cfg.update(rpn_distill=dict())
    refused(cfg, words)


def test_a_teacher_of_other_size_is_refused_when_training_begins(pairs, tmp_path):
    wrong = save_checkpoint(build(faster_rcnn_cfg(width=8)), tmp_path / 'narrow.pth')
    cfg = changed(pairs['two'], 'teacher.checkpoint', wrong)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(cfg)
    with pytest.raises(CheckpointMismatch, match=r'(?s)narrow.pth.*tensors of another shape'):
        model.sources['teacher'].load()
    assert torch.is_grad_enabled()


# -- what only a run has
def runner_of(model, groups, dataset=None):
    optimizer = torch.optim.SGD(groups, lr=0.1)
    wrapper = type('W', (), dict(optimizer=optimizer))()
    loader = type('D', (), dict(dataset=dataset))()
    return type('R', (), dict(model=model, optim_wrapper=wrapper, train_dataloader=loader))()


def test_adapters_and_peers_that_would_never_train(pairs):
    from kd_det.engine.distill_hook import DistillHook
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(changed(pairs['two'], 'hints', [dict(layer='neck')]))
    adapters = list(model.adapter_parameters().values())
    rest = [p for p in model.parameters() if all(p is not one for one in adapters)]
    DistillHook._check_optimizer(model, runner_of(model, [dict(params=rest), dict(params=adapters)]))
    with pytest.raises(ConfigError, match=r'paramwise_cfg: the adapters .*learning rate of 0 \(lr_mult=0\)'):
        DistillHook._check_optimizer(model, runner_of(model, [dict(params=rest), dict(params=adapters, lr=0.0)]))
    # a warm-up that begins at 0 is none of it
    warming = dict(params=adapters, lr=0.0, initial_lr=1.0)
    DistillHook._check_optimizer(model, runner_of(model, [dict(params=rest), warming]))
    peer = dense_cfg('paa')
    peer.update(student_type=peer.type, type='CoLAD', peer=dict(config=dense_cfg('paa').to_dict()))
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(peer)
    second = list(model.peer.parameters())
    first = [p for p in model.parameters() if all(p is not one for one in second)]
    with pytest.raises(ConfigError, match=r'all of the peer has a learning rate of 0'):
        DistillHook._check_optimizer(model, runner_of(model, [dict(params=first), dict(params=second, lr=0.0)]))


def test_a_second_view_that_no_teacher_looks_at(pairs):
    from kd_det.datasets import TwoViewDataset
    from kd_det.engine.distill_hook import DistillHook
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(copy.deepcopy(pairs['two']))
    views = TwoViewDataset.__new__(TwoViewDataset)
    views.scale_factor = 2
    with pytest.raises(ConfigError,
                       match=r'train_dataloader.dataset: TwoViewDataset of scale_factor 2, which no teacher'):
        DistillHook._check_views(model, runner_of(model, [dict(params=model.parameters())], views))


@pytest.mark.parametrize('number', [1, 3, 80])
def test_heads_for_another_number_of_classes_than_the_datas(number, run_config):
    """With one class too few a softmax head takes the last class for background, without a word."""
    from kd_det.engine.data_check import check_data
    cfg = Config.fromfile(run_config(faster_rcnn_cfg(num_classes=number)))
    words = rf"model.roi_head.bbox_head.num_classes: found {number}; train_dataloader.dataset has 2 classes, \('disc'"
    with pytest.raises(ConfigError, match=words):
        check_data(cfg, ('train_dataloader',))


def test_an_evaluator_of_other_images(run_config, tiny_coco):
    """Images are numbered alike in both files: each detection would be compared with another image's objects."""
    from kd_det.engine.data_check import check_data
    from kd_det.errors import DataError
    cfg = Config.fromfile(run_config(faster_rcnn_cfg()))
    cfg.val_evaluator.ann_file = f'{tiny_coco}/annotations/train.json'
    with pytest.raises(DataError, match=r"val_evaluator.ann_file: .*train.json.*4 of 4 differ, .* 0 is 'val_0.png'"):
        check_data(cfg, ('val_dataloader',))
    cfg.val_evaluator.ann_file = 'none.json'
    with pytest.raises(DataError, match=r"val_evaluator.ann_file: 'none.json' does not exist; .*val.json"):
        check_data(cfg, ('val_dataloader',))
    cfg.val_evaluator = [dict(type='CocoMetric', metric='bbox')]
    check_data(cfg, ('val_dataloader',))


def test_what_the_command_line_names(run_config, tmp_path):
    distil = faster_rcnn_cfg()
    distil.update(type='FasterRCNNDistiller', student_type=distil.type, teacher=dict())
    plain, distil, work = run_config(faster_rcnn_cfg()), run_config(distil, 'distil.py'), str(tmp_path / 'run')
    for words, config, *arguments in (
            (r'--teacher t.pth t.py: the config comes first, then', distil, '--teacher', 't.pth', 't.py'),
            (r"load_from: there is no file 'none.pth'", plain, '--cfg-options', 'load_from=none.pth'),
            (r'train_cfg: not in the config, and a training needs', plain, '--cfg-options', 'train_cfg=None'),
            (r'val_cfg: not in the config, which has val_data', plain, '--cfg-options', 'val_cfg=None')):
        with pytest.raises(ConfigError, match=words):
            run_tool('train', config, '--work-dir', work, *arguments)
    assert not (tmp_path / 'run').exists()


def test_a_term_that_begins_after_the_end_of_the_run(pairs):
    from mmengine.runner import EpochBasedTrainLoop

    from kd_det.engine.distill_hook import DistillHook
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(changed(pairs['two'], 'hints', [dict(layer='neck', start_epoch=3)]))
    runner = type('R', (), dict(train_loop=EpochBasedTrainLoop.__new__(EpochBasedTrainLoop), max_epochs=4))
    DistillHook._check_schedules(model, runner)
    runner.max_epochs = 3
    with pytest.raises(ConfigError, match=r'hints\[0\].start_epoch: found 3, and the run ends with epoch 3'):
        DistillHook._check_schedules(model, runner)


@pytest.mark.parametrize('where', ['order in validation', 'part of a ConcatDataset'])
def test_classes_that_differ_between_data_sets(where, run_config):
    from kd_det.engine.data_check import check_data
    from kd_det.errors import DataError
    cfg = Config.fromfile(run_config(faster_rcnn_cfg()))
    check_data(cfg, ('train_dataloader', 'val_dataloader'))
    if where == 'order in validation':
        cfg.val_dataloader.dataset.metainfo = dict(classes=('square', 'disc'))
    else:
        one = cfg.train_dataloader.dataset
        other = dict(one, metainfo=dict(classes=('disc',)))
        cfg.train_dataloader.dataset = dict(type='ConcatDataset', datasets=[one, other])
    with pytest.raises(DataError,
                       match=r'metainfo.classes: found \(.*train_dataloader.dataset.* has \(.*names and order'):
        check_data(cfg, ('train_dataloader', 'val_dataloader'))
