"""The random state of a step is made from the seed and the step: a resumed run draws what it would have drawn."""
import itertools
from collections import deque
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from ..datasets.sample_seeds import SeededBatches, own_generator, seed_samples, state_keepers
from ..errors import CheckpointMismatch
from ..random_state import cpu_random_state, seed_everything, seed_of, set_cpu_random_state

RUN_STATE = 'kd_det_run'
"""Key in a checkpoint, beside the weights: what a run needs to go on, and to be told from another."""


class SeedHook(Hook):
    """Makes a run a function of its config and seed: the same with any number of workers, interrupted or not.

    - Before each epoch and each step, the random states of Python, NumPy, PyTorch and its accelerators are set from
      (seed, epoch) and (seed, step). Nothing has to be saved, so it holds on every rank, of which only one writes.
    - Samples are seeded one by one (:func:`kd_det.datasets.sample_seeds.seed_samples`).
    - Validation leaves the random state as it was.
    - A checkpoint from the middle of an epoch continues there: batches that were seen are left out unread. Gradients of
      an unfinished accumulation are in the checkpoint.

    Every run by our command has it.

    Raises:
        CheckpointMismatch: a checkpoint whose epoch and iteration do not fit this run's epochs.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._batches: SeededBatches | None = None
        self._gradients: dict[str, torch.Tensor] | None = None
        self._before_val: tuple | None = None
        self._begun = (0, 0)  # the running epoch, and the iteration at which it began
        self._place: dict[str, int] = {}  # batches of its epoch that a resumed run has seen, and their number

    def take_over(self, runner: Runner) -> None:
        """Build the runner's train loader, before its loop makes an iterator of it, and seed its samples."""
        if isinstance(runner._train_dataloader, dict):
            runner._train_dataloader = runner.build_dataloader(
                runner._train_dataloader, seed=runner.seed,
                diff_rank_seed=runner._randomness_cfg.get('diff_rank_seed', False))
        loader = runner._train_dataloader
        if not isinstance(loader, DataLoader):
            return
        self._batches = seed_samples(loader, runner.seed)
        if kept := state_keepers(loader.dataset):
            runner.logger.warning(f'train_dataloader: {", ".join(kept)} remember(s) earlier samples or draws from a '
                                  'random state of its own; with other workers, or resumed, such a run is not '
                                  'bit-equal')

    # -- seeds ------------------------------------------------------------------------------------------------------
    def before_train(self, runner: Runner) -> None:
        for loop in (runner.val_loop, runner._test_loop):
            if isinstance(getattr(loop, 'dataloader', None), DataLoader):
                own_generator(loop.dataloader, runner.seed)
        if runner.iter:
            self._continue_inside(runner)

    def before_train_epoch(self, runner: Runner) -> None:
        seed_everything(seed_of(runner.seed, 'epoch', runner.epoch))
        if self._begun[0] != runner.epoch:
            self._begun = (runner.epoch, runner.iter)
        if self._batches is not None and isinstance(runner.train_loop, EpochBasedTrainLoop):
            self._batches.epoch = runner.epoch

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        seed_everything(seed_of(runner.seed, 'step', runner.iter))
        if self._gradients is not None:
            for name, parameter in runner.model.named_parameters():
                if name in self._gradients:
                    parameter.grad = self._gradients[name].to(parameter)
            self._gradients = None

    def before_val(self, runner: Runner) -> None:
        self._before_val = cpu_random_state()

    def after_val(self, runner: Runner) -> None:
        if self._before_val is not None:
            set_cpu_random_state(self._before_val)

    # -- the middle of an epoch -------------------------------------------------------------------------------------
    def _continue_inside(self, runner: Runner) -> None:
        loop = runner.train_loop
        if self._batches is None:
            return
        if isinstance(loop, IterBasedTrainLoop):
            self._batches.void = max(loop.iter - self._batches.yielded, 0)
            iterator = loop.dataloader_iterator
            # of the forks; it moves the sampler on, past the numbers that seed samples
            if hasattr(iterator, 'skip_iter'):
                iterator.skip_iter = lambda count: deque(itertools.islice(iterator, count), maxlen=0)
        elif isinstance(loop, EpochBasedTrainLoop):
            seen = self._seen(runner, len(loop.dataloader))
            self._begun = (loop.epoch, loop.iter - seen)
            if seen:
                self._batches.skip = seen
                self._number_from(loop, seen)

    def _seen(self, runner: Runner, length: int) -> int:
        """How many batches of its epoch, of ``length`` now, the run has seen."""
        loop = runner.train_loop
        if not self._place:  # of another program, or an earlier version
            seen = loop.iter - loop.epoch * length
            if 0 <= seen <= length:
                return seen
            raise CheckpointMismatch(
                f'--resume: the checkpoint is of epoch {loop.epoch}, iteration {loop.iter}; in this run, with {length} '
                f'iterations an epoch, that epoch has the iterations {loop.epoch * length} to '
                f'{(loop.epoch + 1) * length}. The data or the batch size differ')
        seen, before = self._place['seen'], self._place['length']
        if before == length:
            return seen
        now = seen * length // before  # the same share of the images
        runner.logger.warning(f'--resume: an epoch had {before} iterations and has {length} now; epoch {loop.epoch} '
                              f'goes on after {now} of them')
        return now

    @staticmethod
    def _number_from(loop: EpochBasedTrainLoop, seen: int) -> None:
        """Batches of the loop's first epoch count from ``seen``: hooks ask which one is the last."""
        run_iter, first = loop.run_iter, loop.epoch

        def numbered(idx: int, data_batch: Any) -> None:
            run_iter(idx + seen if loop.epoch == first else idx, data_batch)

        loop.run_iter = numbered

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if 'optimizer' not in checkpoint:
            return
        state = checkpoint.setdefault(RUN_STATE, {})
        if isinstance(runner.train_loop, EpochBasedTrainLoop):
            meta = checkpoint['meta']
            seen = meta['iter'] - self._begun[1] if meta['epoch'] == self._begun[0] else 0
            state['place'] = dict(seen=seen, length=len(runner.train_dataloader))
        if getattr(runner.optim_wrapper, '_accumulative_counts', 1) > 1:
            state['gradients'] = {name: p.grad.detach().cpu().clone() for name, p in runner.model.named_parameters()
                                  if p.grad is not None}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if runner._resume:
            state = checkpoint.get(RUN_STATE) or {}
            self._gradients, self._place = state.get('gradients'), state.get('place') or {}
