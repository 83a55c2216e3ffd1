"""Logs how far the assignments of two networks that learn together agree."""
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook, LoggerHook
from mmengine.runner import Runner

from ..assignment.agreement import Agreement
from ..terms.co_learning import CoLearning
from .distill_hook import distiller_of


class AgreementHook(Hook):
    """Every runner of a :class:`kd_det.detectors.CoLAD` has one (:func:`kd_det.engine.attach.attach_to_runner`).

    With each line of the log, over the steps since the last one and over all ranks:

    - ``positives_iou``: intersection over union of the positives that each network's own costs would choose. At 1 the
      two have one assignment, and it makes no difference who decides.
    - ``objects_differing``: the share of objects whose positives are not the same in both.

    After each epoch the same of the whole epoch. Only every ``agreement_interval``-th step is looked at.
    """

    priority = 'NORMAL'  # before LoggerHook, which reads what is written here

    def __init__(self) -> None:
        self._epoch = torch.zeros(4, dtype=torch.float64)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: dict | None = None) -> None:
        if not self._is_logged(runner, batch_idx):
            return
        for term in distiller_of(runner).terms:
            if isinstance(term, CoLearning) and term.agreement_interval:
                counts = term.take_agreement().cpu()
                all_reduce(counts)
                self._epoch += counts
                self._write(runner, Agreement(*counts.tolist()))

    def _is_logged(self, runner: Runner, batch_idx: int) -> bool:
        intervals = [hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)] or [50]
        return any(self.every_n_inner_iters(batch_idx, n) for n in intervals) or self.end_of_epoch(
            runner.train_dataloader, batch_idx)

    @staticmethod
    def _write(runner: Runner, found: Agreement) -> None:
        for name in ('positives_iou', 'objects_differing'):
            value = getattr(found, name)
            if value is not None:
                runner.message_hub.update_scalar(f'train/{name}', value)

    def after_train_epoch(self, runner: Runner) -> None:
        found, self._epoch = Agreement(*self._epoch.tolist()), torch.zeros(4, dtype=torch.float64)
        if found.positives_iou is not None and found.objects_differing is not None:
            runner.logger.info(f'CoLAD: the two networks\' own assignments have {100 * found.positives_iou:.1f} % of '
                               f'their positives in common (IoU), and differ for {100 * found.objects_differing:.1f} % '
                               'of the objects')
