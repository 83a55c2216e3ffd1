"""Ctrl-C and SIGTERM end a run with its weights on disk."""
import signal
import threading

import torch
from mmengine.dist import all_reduce, barrier, get_world_size
from mmengine.hooks import EMAHook, Hook
from mmengine.logging import print_log

from .colad_hook import CoLADHook


class InterruptHook(Hook):
    """On SIGINT or SIGTERM, finish the running step, write ``interrupted.pth`` and stop.

    The file is a complete checkpoint: ``--resume`` takes it while it is the newest, and goes on with the next batch of
    its epoch. A checkpoint that is being written is finished first. Validation stops after the running batch (with
    several processes, after the validation) and is not repeated on resume. A second signal stops at once. Every run by
    our command has the hook.

    Several processes agree after each step (one small all-reduce), so that a signal which reaches only one of them, or
    two of them in different steps, stops all after the same step.
    """

    priority = 'LOWEST'

    def __init__(self) -> None:
        self._signal: int | None = None
        self._previous: dict = {}
        self._validates_training = False

    def before_train(self, runner) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)
        self._validates_training = True

    def _note(self, number: int, _frame) -> None:
        self._signal = number
        self._restore()
        print_log(f'{signal.Signals(number).name}: stopping after this step; once more stops at once', 'current')

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        if number := self._of_any_rank():
            self._stop(runner, number, epoch=runner.epoch, iteration=runner.iter + 1)  # counted after the hooks

    def after_train_epoch(self, runner) -> None:
        if number := self._of_any_rank():
            self._stop(runner, number, epoch=runner.epoch + 1, iteration=runner.iter)

    def after_val_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        # ranks may have unequal shares of images
        if self._validates_training and self._signal and get_world_size() == 1:
            for hook in runner.hooks:
                if isinstance(hook, EMAHook | CoLADHook):
                    hook.after_val_epoch(runner)  # the weights that train come back from under their average
            self._stop(runner, self._signal, epoch=runner.epoch, iteration=runner.iter)

    def after_val(self, runner) -> None:
        if self._validates_training and (number := self._of_any_rank()):
            self._stop(runner, number, epoch=runner.epoch, iteration=runner.iter)

    def _stop(self, runner, number: int, epoch: int, iteration: int) -> None:
        runner.save_checkpoint(runner.work_dir, 'interrupted.pth', save_optimizer=True, save_param_scheduler=True,
                               meta=dict(epoch=epoch, iter=iteration), by_epoch=False)
        barrier()  # a process that ends makes torchrun stop the others: not before the file is whole
        runner.logger.warning(f'interrupted at iteration {iteration}: the state is in '
                              f'{runner.work_dir}/interrupted.pth; --resume goes on from there')
        raise SystemExit(128 + number)

    def _of_any_rank(self) -> int:
        """The signal that this process or another one has received; 0: none."""
        if get_world_size() == 1:
            return self._signal or 0
        number = torch.tensor(self._signal or 0)
        all_reduce(number, 'max')  # on the backend's device, and back
        return int(number)

    def after_train(self, runner) -> None:
        self._restore()
        self._validates_training = False
