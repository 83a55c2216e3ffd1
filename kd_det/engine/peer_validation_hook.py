"""Validation of both networks of a CoLAD run, on the same images, so that ``save_best`` can follow either."""
import copy
from typing import Any

import torch
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.runner import Runner, autocast

from .distill_hook import distiller_of


class PeerValidationHook(Hook):
    """Evaluates the second network beside the first; every runner of a CoLAD model gets one by itself.

    Its metrics are the first's with the prefix ``peer/``: ``coco/bbox_mAP`` and ``peer/coco/bbox_mAP``. With
    ``save_best='peer/coco/bbox_mAP'`` the best checkpoint is the second network's best.
    """

    priority = 'HIGHEST'  # metrics are complete before any other hook logs or compares them
    prefix = 'peer/'

    def __init__(self) -> None:
        self._evaluator: Evaluator | None = None

    def before_val_epoch(self, runner: Runner) -> None:
        if self._evaluator is None:
            self._evaluator = copy.deepcopy(runner.val_loop.evaluator)
            for metric in self._evaluator.metrics:
                if getattr(metric, 'outfile_prefix', None):
                    metric.outfile_prefix += '_peer'  # both networks' detections are kept

    @torch.no_grad()
    def after_val_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        # predictions are written into the samples, and the first network's are still wanted
        batch = dict(data_batch, data_samples=copy.deepcopy(data_batch['data_samples']))
        with autocast(enabled=getattr(runner.val_loop, 'fp16', False)):
            results = distiller_of(runner).peer.val_step(batch)
        self._evaluator.process(data_samples=results, data_batch=batch)

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        print_log('second network (peer):', 'current')
        found = self._evaluator.evaluate(len(runner.val_loop.dataloader.dataset))
        metrics.update({self.prefix + name: value for name, value in found.items()})
