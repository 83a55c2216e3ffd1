#!/usr/bin/env python
"""How long a training takes to begin: kd_det against plain MMDetection, each in fresh processes, in turn.

``python tools/benchmarks/start.py [--repeat 5]``. A tiny RetinaNet on eight generated images of 128 x 96 pixels takes
one step, so that everything before it is what is measured::

    imports      the process begins .. everything is imported that the run needs
    first step   the process begins .. the first optimizer step is done

- ``plain``: MMEngine's ``Runner`` on the plain config, as MMDetection's ``tools/train.py`` starts it. Where MMCV has no
  compiled operations, and on a PyTorch that MMEngine does not know yet, plain MMDetection does not run at all; there
  ``kd_det.compat`` alone is installed first, without the rest of kd_det.
- ``kd-det``: the same plain config by ``kd-det train``, with its checks.
- ``distilled``: a hint from a second such network by ``kd-det train``, teacher's check on the evaluation set included.

Ratios are of medians, over ``plain``: by the wall, and of processor time (user and system), which is the steadier one
where others use the machine. ``python -X importtime -c 'import kd_det'`` says where imports spend it.
"""
import argparse
import json
import os
import os.path as osp
import statistics
import subprocess
import sys
import tempfile
import time

CONFIG = """
default_scope = 'mmdet'
custom_imports = dict(imports={imports})
metainfo = dict(classes=('disc', 'square'))
pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True),
            dict(type='Resize', scale=(128, 96), keep_ratio=True), dict(type='PackDetInputs',
            meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
dataset = dict(type='CocoDataset', data_root={root!r}, metainfo=metainfo, ann_file='train.json',
               data_prefix=dict(img=''), pipeline=pipeline)
train_dataloader = dict(batch_size=2, num_workers=0, sampler=dict(type='InfiniteSampler'), dataset=dataset)
val_dataloader = dict(batch_size=1, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False),
                      dataset=dict(dataset, test_mode=True))
val_evaluator = dict(type='CocoMetric', ann_file={root!r} + '/train.json', metric='bbox')
train_cfg = dict(type='IterBasedTrainLoop', max_iters=1, val_interval=100)
val_cfg = dict(type='ValLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.01))
default_hooks = dict(checkpoint=None)
log_level = 'ERROR'
randomness = dict(seed=0)
work_dir = {work_dir!r}
model = dict(
    type='RetinaNet',
    data_preprocessor=dict(type='DetDataPreprocessor', mean=[100.] * 3, std=[50.] * 3, pad_size_divisor=32),
    backbone=dict(type='ResNet', depth=18, base_channels=8, num_stages=4, out_indices=(1, 2, 3)),
    neck=dict(type='FPN', in_channels=[16, 32, 64], out_channels=16, num_outs=5, add_extra_convs='on_input'),
    bbox_head=dict(type='RetinaHead', num_classes=2, in_channels=16, feat_channels=16, stacked_convs=1,
                   anchor_generator=dict(type='AnchorGenerator', octave_base_scale=4, scales_per_octave=3,
                                         ratios=[0.5, 1.0, 2.0], strides=[8, 16, 32, 64, 128]),
                   bbox_coder=dict(type='DeltaXYWHBBoxCoder')),
    train_cfg=dict(assigner=dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0,
                                 ignore_iof_thr=-1),
                   sampler=dict(type='PseudoSampler'), allowed_border=-1, pos_weight=-1),
    test_cfg=dict(nms_pre=100, min_bbox_size=0, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5),
                  max_per_img=20))
"""
DISTILLED = """
_base_ = './kd_det.py'
model = dict(type='Distiller', teacher=dict(config={plain!r}, checkpoint={checkpoint!r}),
             terms=[dict(type='Hint', layer='neck')])
"""
KINDS = ('plain', 'kd-det', 'distilled')


def plain_stack() -> None:
    """The stack on this PyTorch without kd_det: its compat package by itself, if MMDetection needs it."""
    try:
        import mmcv.ops  # noqa: F401
    except Exception:
        import importlib.machinery
        import types
        for name in [name for name in sys.modules if name.split('.')[0] in ('mmcv', 'mmengine')]:
            del sys.modules[name]
        folder = importlib.machinery.PathFinder.find_spec('kd_det').submodule_search_locations
        package = types.ModuleType('kd_det')
        package.__path__ = list(folder)
        sys.modules['kd_det'] = package  # kd_det/__init__.py, which imports everything, does not run
        from kd_det import compat
        compat.install()


def work(kind: str, folder: str) -> None:
    """One run in this process; prints the processor time until everything was imported."""
    if kind == 'plain':
        plain_stack()
        import mmdet.datasets
        import mmdet.engine
        import mmdet.evaluation
        import mmdet.models
        import mmdet.visualization  # noqa: F401
        from mmengine.config import Config
        from mmengine.runner import Runner
        imported()
        Runner.from_cfg(Config.fromfile(osp.join(folder, 'plain.py'))).train()
        return
    import kd_det.cli.main  # (isort would put it elsewhere)
    imported()
    name = 'kd_det' if kind == 'kd-det' else 'distilled'
    status = kd_det.cli.main.main(['train', osp.join(folder, f'{name}.py')])
    if status:
        raise SystemExit(status)


def imported() -> None:
    print(f'imported {time.time()} {time.process_time()}', flush=True)


def run(kind: str, folder: str) -> dict[str, float]:
    """Seconds of a run in a fresh process."""
    begin = time.time()
    process = subprocess.Popen([sys.executable, __file__, '--work', kind, folder], stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, cwd=folder)
    out, errors = process.communicate()
    end = time.time()
    if process.returncode:
        raise SystemExit(f'{kind}: {errors[-2000:]}')
    words = next(line for line in out.splitlines() if line.startswith('imported')).split()
    done = next(line for line in out.splitlines() if line.startswith('done')).split()
    return dict(imports_wall=float(words[1]) - begin, imports_cpu=float(words[2]), step_wall=end - begin,
                step_cpu=float(done[1]))


def prepare(folder: str) -> None:
    """Images, annotations, configs and a teacher's checkpoint."""
    import kd_det  # noqa: F401

    # isort: split
    import cv2
    import numpy as np
    import torch
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.registry import DefaultScope
    rng = np.random.default_rng(0)
    images, notes = [], []
    for i in range(8):
        image = rng.integers(0, 80, (96, 128, 3)).astype(np.uint8)
        x, y = (int(v) for v in rng.integers(0, 60, 2))
        image[y:y + 32, x:x + 32] = 250
        cv2.imwrite(osp.join(folder, f'{i}.png'), image)
        images.append(dict(id=i, file_name=f'{i}.png', width=128, height=96))
        notes.append(dict(id=i + 1, image_id=i, category_id=i % 2 + 1, iscrowd=0, bbox=[x, y, 32, 32], area=1024))
    with open(osp.join(folder, 'train.json'), 'w', encoding='utf-8') as file:
        json.dump(dict(images=images, annotations=notes,
                       categories=[dict(id=1, name='disc'), dict(id=2, name='square')]), file)
    for name, imports in (('plain', []), ('kd_det', ['kd_det'])):
        with open(osp.join(folder, f'{name}.py'), 'w', encoding='utf-8') as file:
            file.write(CONFIG.format(imports=imports, root=folder, work_dir=osp.join(folder, name)))
    plain = osp.join(folder, 'kd_det.py')
    with DefaultScope.overwrite_default_scope('mmdet'):
        model = MODELS.build(Config.fromfile(plain).model)
    checkpoint = osp.join(folder, 'teacher.pth')
    torch.save(dict(meta=dict(dataset_meta=dict(classes=('disc', 'square'))), state_dict=model.state_dict()),
               checkpoint)
    with open(osp.join(folder, 'distilled.py'), 'w', encoding='utf-8') as file:
        file.write(DISTILLED.format(plain=plain, checkpoint=checkpoint))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--repeat', type=int, default=5, help='rounds (default 5), after one that warms the disk')
    parser.add_argument('--json', help='also write the figures here')
    parser.add_argument('--work', nargs=2, metavar=('KIND', 'FOLDER'), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        work(*args.work)
        print(f'done {time.process_time()}', flush=True)
        return
    found: dict[str, list[dict]] = {kind: [] for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        prepare(folder)
        for turn in range(args.repeat + 1):
            for kind in KINDS:
                seconds = run(kind, folder)
                if turn:
                    found[kind].append(seconds)
    median = {kind: {what: statistics.median(one[what] for one in runs) for what in runs[0]}
              for kind, runs in found.items()}
    print('| | imports, wall s | processor s | first step, wall s | processor s |\n|-|-:|-:|-:|-:|')
    for kind in KINDS:
        cells = [f'{median[kind][what]:.2f} ({median[kind][what] / median["plain"][what]:.2f})'
                 for what in ('imports_wall', 'imports_cpu', 'step_wall', 'step_cpu')]
        print(f'| {kind} | {" | ".join(cells)} |')
    print(f'\nmedians of {args.repeat} rounds, in turn; in brackets over plain; load {os.getloadavg()[0]:.1f} on '
          f'{os.cpu_count()} processors')
    if args.json:
        with open(args.json, 'w', encoding='utf-8') as file:
            json.dump(dict(median_seconds=median, rounds=args.repeat), file, indent=1)


if __name__ == '__main__':
    main()
