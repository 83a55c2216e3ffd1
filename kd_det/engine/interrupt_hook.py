"""Ctrl-C and SIGTERM end a run with its weights on disk."""
import signal
import threading

import torch
from mmengine.dist import all_reduce, barrier, get_world_size
from mmengine.hooks import Hook
from mmengine.logging import print_log


class InterruptHook(Hook):
    """On SIGINT or SIGTERM, finish the running step, write ``interrupted.pth`` and stop.

    The file is a complete checkpoint: ``--resume`` takes it while it is the newest, and goes on with the next batch of
    its epoch. A second signal stops at once. ``tools/train.py`` adds the hook to every run.

    Several processes agree after each step (one small all-reduce), so that a signal which reaches only one of them, or
    two of them in different steps, stops all after the same step.
    """

    priority = 'LOWEST'

    def __init__(self) -> None:
        self._signal: int | None = None
        self._previous: dict = {}

    def before_train(self, runner) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._note)

    def _note(self, number: int, _frame) -> None:
        self._signal = number
        self._restore()
        print_log(f'{signal.Signals(number).name}: stopping after this step; once more stops at once', 'current')

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        number = self._of_any_rank()
        if not number:
            return
        runner.save_checkpoint(runner.work_dir, 'interrupted.pth', save_optimizer=True, save_param_scheduler=True,
                               by_epoch=False)
        barrier()  # a process that ends makes torchrun stop the others: not before the file is whole
        runner.logger.warning(f'interrupted at iteration {runner.iter + 1}: the state is in '
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
