#!/usr/bin/env python
"""How large each term is on the same training images with their labels and without: what the normalisers do.

``python tools/benchmarks/without_labels.py DISTIL_CONFIG --student CHECKPOINT --teacher CHECKPOINT`` for a config of
one teacher. The numerators of dense class terms are equal on both sides, so that their ratio is that of the divisors::

    ratio = mean over batches of the term as on images without labels / mean with labels

Networks are in eval mode, and both should be trained: what a teacher expects that knows nothing means nothing.
"""
import argparse
import copy
from collections import defaultdict

import kd_det  # noqa: F401  (prepares the stack before anything of MMDetection is imported)

# isort: split
import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.config import DictAction
from mmengine.dataset import pseudo_collate
from mmengine.registry import DefaultScope

from kd_det.config import load_config
from kd_det.detectors.unlabelled import PREFIX
from kd_det.weights import load_deployed


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', metavar='DISTIL_CONFIG')
    parser.add_argument('--student', required=True, help='checkpoint')
    parser.add_argument('--teacher', required=True, help='checkpoint')
    parser.add_argument('--images', type=int, default=24, help='of the training set, drawn by seed 0 (default 24)')
    parser.add_argument('--batch-size', type=int, default=4)
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    cfg = load_config(args.config, args.cfg_options)
    cfg.model.unlabelled = dict(weight=1.0)
    cfg.model.teacher.update(checkpoint=args.teacher, check=0)
    with DefaultScope.overwrite_default_scope('mmdet'):
        model, dataset = MODELS.build(cfg.model), DATASETS.build(cfg.train_dataloader.dataset)
    load_deployed(model, args.student)
    model.eval()
    torch.manual_seed(0)
    chosen = torch.randperm(len(dataset))[:args.images].tolist()
    found = defaultdict(list)
    for begin in range(0, len(chosen), args.batch_size):
        batch = pseudo_collate([dataset[i] for i in chosen[begin:begin + args.batch_size]])
        model.unlabelled.take(copy.deepcopy(batch))
        with torch.no_grad():
            data = model.data_preprocessor(batch, True)
            for name, value in model.loss(data['inputs'], data['data_samples']).items():
                if name in model.distill_terms:
                    found[name].append(float(value))
    means = {name: sum(values) / len(values) for name, values in found.items()}
    print(f'{len(chosen)} images, batches of {args.batch_size}')
    print(f'{"term":<24}{"with labels":>12}{"without":>12}{"ratio":>8}')
    for name, value in means.items():
        if not name.startswith(PREFIX):
            other = means.get(PREFIX + name)
            without = '           -       -' if other is None else f'{other:12.4g}{other / value:8.2f}'
            print(f'{name:<24}{value:12.4g}{without}')


if __name__ == '__main__':
    main()
