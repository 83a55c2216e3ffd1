#!/usr/bin/env python
"""What distillation costs: a distilled step against a plain student step plus a plain teacher forward, for any configs.

``python tools/benchmarks/step_cost.py DISTIL_CONFIG [DISTIL_CONFIG ...] [--teacher-checkpoint FILE]``. For each config
the three are measured in turn on the same batches in one process; one table at the end has a row for each::

    ratio = median distilled step / (median plain student step + median plain teacher forward)

A step is preprocessing, loss, backward and the optimizer; data loading is not in it. The teacher forward is the plain
detector in eval mode without gradients, as far as the config's terms use it (backbone alone; features; features and the
dense head or RPN): unfused, float32, default memory format, also where the distiller's own teacher is fast. At
cross-resolution it sees its own, larger view. In brackets stands how much faster the distiller's own teacher is
(batch norms folded, channels last). CrossKD (CrossHead) runs what is left of the teacher's head a second
time, on the student's features, and backward to them: this second head pass is measured on random features, stands
beside the teacher's forward ("+") and counts as a part of it. PseudoLabel learns from detections, so that there the
teacher's forward goes to its end, NMS included. Several teachers count one after the other. In CoLAD the second
network's plain step stands where the teacher's forward does; plain PAA heads are then BatchedPAAHead, so that the ratio
is not flattered by PAAHead's loop over scikit-learn.

Without ``--teacher-checkpoint`` the teachers' weights are random, which changes no shape that is computed, but how long
mixtures take to fit and how much is found; ``--teacher-checkpoint config`` takes the files that the configs name, where
they are there.

Where MMDetection has a detector of its own for what a config distils (``LAD`` for LAD on PAA, LD's
``KnowledgeDistillationSingleStageDetector`` on GFL), its step, of the same two networks, is one of those measured in
turn. It does less in one way: LD there is the main region alone, without the valuable one and without classes.

The split of a distilled step (loss with all forward passes, backward, optimizer) and of a plain one, and the peak
memory of tensors in one step of each, come from further steps of the same networks. Extra memory is stated beside what
a frozen teacher cannot do without: its weights and the most that one forward pass of it holds.
"""
import argparse
import copy
import os.path as osp
import tempfile
from contextlib import ExitStack
from typing import Any

import kd_det  # noqa: F401  (prepares the stack before anything of MMDetection is imported)

# isort: split
import torch
from mmdet.registry import MODELS
from mmengine.config import Config, DictAction
from mmengine.registry import DefaultScope
from mmengine.runner import Runner, save_checkpoint
from torch import nn

from kd_det.config import load_config
from kd_det.heads.dense_outputs import training_format
from kd_det.heads.towers import towers_of
from kd_det.plain import deployed_config, student_model
from kd_det.sources import FrozenTeacher
from kd_det.terms import CrossHead, PseudoLabel

from memory import peak_bytes  # isort: skip
from mmdet_own import counterpart, teachers_of  # isort: skip
from timing import (  # isort: skip
    CLOCKS, Clock, add_timing_arguments, interleaved, medians, p90, print_timings, train_step, write_json)

PLAIN, TEACHER, DISTILLED, SECOND = 'plain step', 'teacher forward', 'distilled step', 'plain step of the second'
HEAD, OWN, FAST = 'second head pass', 'MMDetection\'s own', 'fast teacher forward'
MIB = 2**20


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('configs', nargs='+', metavar='DISTIL_CONFIG', help='configs with teachers, or with a peer')
    parser.add_argument('--teacher-checkpoint', metavar='FILE', help='trained weights of the teachers; \'config\': '
                        'what the configs name (default: random ones)')
    parser.add_argument('--batch-size', type=int, help='instead of the config\'s')
    parser.add_argument('--amp', choices=['float16', 'bfloat16'], help='student and teacher under autocast')
    add_timing_arguments(parser)
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    return parser.parse_args()


def give_weights(cfg: Config, path: str | None, folder: str) -> None:
    """Name the weights of every teacher: ``path``, what the config says ('config'), or random ones saved in ``folder``.
    """
    for name, (source, network) in teachers_of(cfg).items():
        missing = path == 'config' and not osp.isfile(source.checkpoint)
        if missing:
            print(f'   random weights: there is no {source.checkpoint}')
        if path is None or missing:
            source.checkpoint = osp.join(folder, f'{name}.pth')
            save_checkpoint(dict(state_dict=MODELS.build(network).state_dict()), source.checkpoint)
        elif path != 'config':
            source.checkpoint = path


def plain_teachers(cfg: Config, distilled: nn.Module, device: str) -> dict[str, FrozenTeacher]:
    """The teachers that terms ask, as MMDetection runs them: unfused, default memory format."""
    found = {}
    for name, (source, _) in teachers_of(cfg).items():
        if distilled.reached(name, list(distilled.terms)):
            source = {key: value for key, value in source.items() if key != 'type'}
            found[name] = FrozenTeacher(**{**source, 'fuse_conv_bn': False, 'channels_last': False},
                                        student_preprocessor=distilled.data_preprocessor)
            found[name].load()
            found[name].model.to(device)
    return found


def teacher_forward(distilled: nn.Module, teachers: dict[str, FrozenTeacher]) -> Any:
    """A function of a batch: the plain teachers as far as the terms ask for them."""
    terms = {name: distilled.reached(name, list(distilled.terms)) for name in teachers}
    whole = {name for name, own in terms.items() if any(term.reaches() == 'whole' for term in own)}
    to_the_end = {name for name, own in terms.items() if any(isinstance(term, PseudoLabel) for term in own)}

    @torch.no_grad()
    def forward(batch: dict) -> None:
        data = distilled.data_preprocessor(batch, True)
        for name, teacher in teachers.items():
            if name in to_the_end:
                teacher.open(data['inputs'], data['data_samples']).detections()
                continue
            inputs, model = teacher.prepare(data['inputs'], data['data_samples']), teacher.model
            if name not in whole:
                model.backbone(inputs)
                continue
            features = model.extract_feat(inputs)
            if hasattr(model, 'rpn_head'):
                model.rpn_head(features)
            elif hasattr(model, 'bbox_head'):
                model.bbox_head(features)
    return forward


def second_head_pass(distilled: nn.Module, teachers: dict[str, FrozenTeacher], batches: list[dict]) -> dict[str, Any]:
    """{name: a function of a batch}: what is left of the teacher's head on random features, and backward to them, for
    every CrossHead; empty where there is none.
    """
    terms = [term for term in distilled.terms if isinstance(term, CrossHead)]
    if not terms:
        return {}
    teacher, = teachers.values()  # these terms learn from one
    head = teacher.model.bbox_head
    maps: dict[tuple, tuple] = {}  # sizes of images -> what the neck gives
    for batch in batches:
        data = distilled.data_preprocessor(copy.deepcopy(batch), True)
        with torch.no_grad():
            maps[_sizes(batch)] = teacher.model.extract_feat(teacher.prepare(data['inputs'], data['data_samples']))

    def run(batch: dict) -> None:
        features = maps[_sizes(batch)]
        for term in terms:
            with training_format(head), ExitStack() as stack:
                for tower in towers_of(head, 'teacher.config').values():
                    given = [torch.randn(len(level), tower.channels(term.teacher_k), *level.shape[2:],
                                         device=level.device, requires_grad=True) for level in features]
                    # an activation may work in place, which a leaf does not allow
                    stack.enter_context(tower.entered_after(term.teacher_k, [level * 1 for level in given]))
                outputs = head(features)
            sum(level.float().sum() for part in outputs for level in part).backward()
    return {HEAD: run}


def _sizes(batch: dict) -> tuple:
    return tuple(tuple(image.shape) for image in batch['inputs'])


def weights(model: nn.Module) -> list[torch.Tensor]:
    """Parameters and buffers of a network."""
    return [*model.parameters(), *model.buffers()]


def networks_of(cfg: Config, device: str) -> tuple[dict[str, nn.Module], str | None]:
    """The networks whose steps are measured, and what MMDetection calls its own of them."""
    models = {PLAIN: student_model(cfg.model), DISTILLED: cfg.model}
    own = None
    if 'peer' in cfg.model:
        models[SECOND] = deployed_config(cfg, 'second').model
        for model in (models[PLAIN], models[SECOND]):
            if model.bbox_head.type == 'PAAHead':
                model.bbox_head.type = 'BatchedPAAHead'
    else:
        own, models[OWN] = counterpart(cfg) or (None, None)
    networks = {}
    for name, model in models.items():
        if model is not None:
            torch.manual_seed(0)
            networks[name] = MODELS.build(model).to(device)
            networks[name].train()  # MMDetection's own return nothing here
    return networks, own


def measure(cfg: Config, args: argparse.Namespace) -> dict[str, Any]:
    """All figures of one config."""
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    if args.batch_size:
        cfg.train_dataloader.batch_size = args.batch_size
    with tempfile.TemporaryDirectory() as folder:
        give_weights(cfg, args.teacher_checkpoint, folder)
        networks, own = networks_of(cfg, args.device)
        distilled = networks[DISTILLED]
        teachers = plain_teachers(cfg, distilled, args.device)
        batches = [batch for batch, _ in zip(Runner.build_dataloader(cfg.train_dataloader, seed=0), range(4))]
        optimizers = {name: torch.optim.SGD(model.parameters(), lr=1e-4) for name, model in networks.items()}
        work = {name: train_step(model, optimizers[name]) for name, model in networks.items()}
        if teachers:
            work[TEACHER] = teacher_forward(distilled, teachers)
            work[FAST] = teacher_forward(distilled, {name: distilled.sources[name] for name in teachers})
            for name in teachers:
                distilled.sources[name].load()
            work.update(second_head_pass(distilled, teachers, batches))
        clock = CLOCKS[args.clock]
        seconds = interleaved(work, batches, args.repeat, args.warmup, args.device, clock)
        clocks = {name: Clock(args.device, clock) for name in networks}
        interleaved({name: train_step(model, optimizers[name], clocks[name]) for name, model in networks.items()},
                    batches, max(3, args.repeat // 4), 1, args.device, clock)
        memory = peaks(work, networks, distilled, teachers, batches[0], args.device)
    print_timings(seconds)
    median = medians(seconds)
    bare = sum(median.get(name, 0) for name in (PLAIN, TEACHER, SECOND, HEAD))
    return dict(ratio=median[DISTILLED] / bare, median_seconds=median,
                p90_seconds={name: p90(values) for name, values in seconds.items()},
                split={name: medians(clock.seconds) for name, clock in clocks.items()}, peak_bytes=memory, own=own,
                batch_size=len(batches[0]['inputs']), rounds=args.repeat)


def peaks(work: dict[str, Any], networks: dict[str, nn.Module], distilled: nn.Module,
          teachers: dict[str, FrozenTeacher], batch: dict, device: str) -> dict[str, int]:
    """The most bytes of tensors that each entry of ``work`` holds at once, weights included."""
    for model in networks.values():
        model.zero_grad()  # a step starts without gradients
    held = {name: weights(model) for name, model in networks.items()}
    for source in distilled.sources.values():
        if isinstance(source, FrozenTeacher):
            held[DISTILLED] += weights(source.model)
    if hasattr(networks.get(OWN), 'teacher_model'):  # outside its module tree
        held[OWN] += weights(networks[OWN].teacher_model)
    held[TEACHER] = held[HEAD] = [tensor for teacher in teachers.values() for tensor in weights(teacher.model)]
    return {name: peak_bytes(lambda run=run: run(copy.deepcopy(batch)), device, held[name])
            for name, run in work.items() if name != FAST}


def row(name: str, found: dict[str, Any]) -> str:
    """A line of the table."""
    median, split, memory = found['median_seconds'], found['split'], found['peak_bytes']
    parts = ' / '.join(f'{1e3 * split[DISTILLED][part]:.0f} ({1e3 * split[PLAIN][part]:.0f})'
                       for part in ('loss', 'backward', 'optimizer'))
    own = '-' if found['own'] is None else (f'{found["own"]} {1e3 * median[OWN]:.0f} '
                                            f'({median[DISTILLED] / median[OWN]:.2f})')
    beside = SECOND if SECOND in median else TEACHER
    faster = f' ({median[TEACHER] / median[FAST]:.2f})' if FAST in median else ''
    teacher = f'{1e3 * median[beside]:.0f}{faster}' + (f' + {1e3 * median[HEAD]:.0f}' if HEAD in median else '')
    return (f'| {name} | {1e3 * median[PLAIN]:.0f} | {teacher} | {1e3 * median[DISTILLED]:.0f} '
            f'({1e3 * found["p90_seconds"][DISTILLED]:.0f}) | {found["ratio"]:.2f} | {parts} | '
            f'{memory[PLAIN] / MIB:.0f} | +{(memory[DISTILLED] - memory[PLAIN]) / MIB:.0f} | '
            f'{memory[beside] / MIB:.0f} | {own} |')


def main() -> None:
    args = parse_args()
    if args.clock == 'cpu' and args.device != 'cpu':
        raise SystemExit(f'--clock cpu: what {args.device} does takes no processor time; use --device cpu')
    found = {}
    with DefaultScope.overwrite_default_scope('mmdet'):
        for config in args.configs:
            cfg = load_config(config, args.cfg_options, data_root=args.data_root)
            if not {'teacher', 'sources', 'peer'} & set(cfg.model):
                raise SystemExit(f'{config}: model has no teacher, sources or peer; a distil config is measured')
            print(f'== {config}')
            dtype = getattr(torch, args.amp) if args.amp else None
            with torch.autocast(args.device.split(':')[0], dtype=dtype, enabled=dtype is not None):
                found[config] = measure(cfg, args)
            print(row(osp.splitext(osp.basename(config))[0], found[config]), flush=True)  # of a run that may be cut
    print('\n| config | plain ms | teacher ms (over its own, fast) | distilled ms (p90) | ratio | loss / backward / '
          'optimizer, distilled (plain), ms | peak MiB, plain | distilled | teacher alone | MMDetection\'s own '
          '(distilled / it) |\n|-|-:|-:|-:|-:|-|-:|-:|-:|-:|')
    for config, figures in found.items():
        print(row(osp.splitext(osp.basename(config))[0], figures))
    print(f'\n{args.device}, {torch.get_num_threads()} threads, batch {next(iter(found.values()))["batch_size"]}, '
          f'medians of {args.repeat} interleaved rounds{", " + args.amp if args.amp else ""}'
          f'{", processor time" if args.clock == "cpu" else ""}; '
          'ratio = distilled / (plain + teacher); + stands before a second pass of the teacher\'s head; where a peer '
          'trains, teacher is its own plain step')
    write_json(args.json, device=args.device, amp=args.amp, clock=args.clock, configs=found)


if __name__ == '__main__':
    main()
