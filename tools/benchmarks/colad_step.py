#!/usr/bin/env python
"""A CoLAD step against the two plain steps of its networks.

``python tools/benchmarks/colad_step.py COLAD_CONFIG``. The three are measured in turn on the same batches in one
process, and the ratio of the medians is printed::

    CoLAD step / (plain step of the first + plain step of the second)

A step is preprocessing, loss, backward and the optimizer; data loading is not in it. Plain PAA heads are
BatchedPAAHead, which fits all mixtures of a batch at once, so that the ratio is not flattered by PAAHead's loop over
scikit-learn. With --warmup large enough the networks have left their initial state, where few candidates are positive.
"""
import argparse

import kd_det  # noqa: F401  (prepares the stack before anything of MMDetection is imported)

# isort: split
import torch
from mmdet.registry import MODELS
from mmengine.config import DictAction
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

from kd_det.config import load_config
from kd_det.plain import deployed_config

from timing import add_timing_arguments, interleaved, report_ratio, train_step  # isort: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='a CoLAD config')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    add_timing_arguments(parser)
    args = parser.parse_args()
    cfg = load_config(args.config, args.cfg_options, data_root=args.data_root)
    if cfg.model.type != 'CoLAD':
        parser.error(f'{args.config}: model.type is {cfg.model.type!r}; a CoLAD config is expected')
    cfg.train_dataloader.update(num_workers=0, persistent_workers=False)
    models = {'first, plain step': deployed_config(cfg, 'first').model,
              'second, plain step': deployed_config(cfg, 'second').model, 'CoLAD step': cfg.model}
    with DefaultScope.overwrite_default_scope('mmdet'):
        for name, model in models.items():
            if model.bbox_head.type == 'PAAHead' and name != 'CoLAD step':
                model.bbox_head.type = 'BatchedPAAHead'
            torch.manual_seed(0)
            models[name] = MODELS.build(model).to(args.device).train()
        joint = models['CoLAD step']
        joint.load_state_dict(models['first, plain step'].state_dict(), strict=True)
        joint.peer.load_state_dict(models['second, plain step'].state_dict(), strict=True)
        batches = [batch for batch, _ in zip(Runner.build_dataloader(cfg.train_dataloader, seed=0), range(4))]
        work = {name: train_step(model, torch.optim.SGD(model.parameters(), lr=1e-4)) for name, model in models.items()}
        seconds = interleaved(work, batches, args.repeat, args.warmup, args.device)
    report_ratio(seconds, 'CoLAD step', {'first, plain step': 'plain step of the first',
                                         'second, plain step': 'plain step of the second'},
                 args.device, len(batches[0]['inputs']), args.json, config=args.config)


if __name__ == '__main__':
    main()
