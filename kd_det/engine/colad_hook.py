"""What a CoLAD run needs from the runner: the second network trained, averaged, saved and resumed as the first is."""
import copy
import os.path as osp
from collections.abc import Callable
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.dist import all_reduce, is_main_process
from mmengine.fileio import exists, join_path, remove
from mmengine.hooks import EMAHook
from mmengine.runner import Runner, save_checkpoint
from mmengine.runner.checkpoint import weights_to_cpu
from torch import Tensor

from ..errors import ConfigError
from ..files import save_whole
from ..plain import deployed_config
from .distill_hook import DistillHook, distiller_of, on_cpu, synchronise

PEER_SUFFIX = '_peer'


class CoLADHook(DistillHook):
    """Every runner whose model is a :class:`kd_det.detectors.CoLAD` gets one by itself.

    - Before training: the plan is logged; the peer must be in the optimizer; class names of ``peer.checkpoint`` must
      agree with the data set's.
    - The peer goes to ``checkpoint['kd_det']['peer']`` and comes back on resume. Beside each checkpoint ``NAME.pth``
      it is also written as ``NAME_peer.pth``, which its plain config loads strictly; when MMEngine removes the first
      (``max_keep_ckpts``, a better ``best``), the second goes too.
    - After every epoch the log says how often the first network assigned, over all decisions of all ranks; the sum over
      the training is in ``checkpoint['kd_det']['taught']``.
    - An ``EMAHook`` averages the first network as in its plain run, and a twin of it the peer. What is deployed, in
      both files, are the averaged weights, as MMEngine has it.
    """

    priority = 'LOW'  # after EMAHook, whose averaged model is exchanged; before CheckpointHook

    def __init__(self, patience: int = 50) -> None:
        super().__init__(patience)
        self._twin: EMAHook | None = None
        self._peer_checkpoint: dict = {}
        self._written: dict[str, str] = {}  # peer's file -> the first network's
        self._peer_cfg: str | None = None
        self._taught = dict(first=0.0, decisions=0.0)  # of all whole epochs
        self._of_epoch: Tensor | None = None  # (2,): the same of this epoch and rank

    # -- before -----------------------------------------------------------------------------------------------------
    def before_run(self, runner: Runner) -> None:
        self._split_averaging(runner)
        if not hasattr(runner.save_checkpoint, 'writes_peer'):
            runner.save_checkpoint = self._with_peer(runner.save_checkpoint)

    def _split_averaging(self, runner: Runner) -> None:
        """Averaging works on ``state_dict`` here and on ``parameters()`` there, so it needs a model where both are of
        one network; a copy of both networks would leave the peer's average at its first weights.
        """
        hooks = [hook for hook in runner.hooks if isinstance(hook, EMAHook)]
        if len(hooks) > 1:
            raise ConfigError(f'custom_hooks: {len(hooks)} EMAHooks; CoLAD works with one')
        for hook in hooks:
            model = distiller_of(runner)
            synchronise(model)  # an average begins as a copy, and MMEngine has synchronised the first network alone
            self._twin = copy.copy(hook)
            for owner, network in ((hook, model.first_alone()), (self._twin, model.peer)):
                owner.src_model = network
                owner.ema_model = MODELS.build(owner.ema_cfg, default_args=dict(model=network))

    def before_train(self, runner: Runner) -> None:
        super().before_train(runner)
        for hook in runner.hooks:
            if isinstance(hook, EMAHook) and hook.src_model is distiller_of(runner):
                raise ConfigError(f'custom_hooks: EMAHook of priority {hook.priority} begins after CoLADHook (LOW), so '
                                  'the peer would not be averaged; leave it at NORMAL')
        if getattr(runner.optim_wrapper, 'clip_kwargs', None):
            runner.logger.info('CoLAD: optim_wrapper.clip_grad limits the norm of both networks\' gradients together')

    # -- the peer's average -----------------------------------------------------------------------------------------
    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None,
                         outputs: dict | None = None) -> None:
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        if self._twin:
            self._twin.after_train_iter(runner, batch_idx, data_batch, outputs)
        if 'decisions' in (outputs or {}):  # not in a batch without objects
            decisions = outputs['decisions'].detach().double()
            found = torch.stack([outputs['first_teaches'].detach() * decisions, decisions])
            self._of_epoch = found if self._of_epoch is None else self._of_epoch.to(found) + found

    def after_train_epoch(self, runner: Runner) -> None:
        found = torch.zeros(2, dtype=torch.float64) if self._of_epoch is None else self._of_epoch.cpu()
        all_reduce(found)
        first, decisions = found.tolist()
        self._of_epoch = None
        self._taught = dict(first=self._taught['first'] + first, decisions=self._taught['decisions'] + decisions)
        if decisions:
            runner.logger.info(f'CoLAD: the first network took {100 * first / decisions:.1f} % of this epoch\'s '
                               f'{decisions:.0f} decisions')

    def before_val_epoch(self, runner: Runner) -> None:
        if self._twin:
            self._twin.before_val_epoch(runner)

    def after_val_epoch(self, runner: Runner, metrics: dict | None = None) -> None:
        if self._twin:
            self._twin.after_val_epoch(runner, metrics)

    # -- checkpoints ------------------------------------------------------------------------------------------------
    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        peer = dict(state_dict=weights_to_cpu(distiller_of(runner).peer.state_dict()))
        if self._twin:
            self._twin.before_save_checkpoint(runner, peer)  # averaged weights here, the others in ema_state_dict
        meta = dict(checkpoint['meta'], cfg=self._plain_cfg(runner), kd_det_network='second')
        self._peer_checkpoint = dict(meta=meta, state_dict=peer['state_dict'])
        checkpoint['kd_det'] = dict(on_cpu(distiller_of(runner).distill_state()), peer=peer['state_dict'],
                                    written=self._written, taught=self._taught)
        if self._of_epoch is not None:  # rank 0's, in the middle of an epoch
            checkpoint['kd_det']['of_epoch'] = self._of_epoch.cpu()
        if 'ema_state_dict' in peer:
            checkpoint['kd_det']['peer_ema'] = peer['ema_state_dict']

    def _plain_cfg(self, runner: Runner) -> str:
        """The peer's own config, as its plain run would have written it."""
        if self._peer_cfg is None:
            known = 'peer' in (runner.cfg.get('model') or {})  # not where the runner was given a built model
            self._peer_cfg = deployed_config(runner.cfg, 'second').pretty_text if known else ''
        return self._peer_cfg

    def _with_peer(self, save: Callable) -> Callable:
        def save_both(out_dir: str, filename: str, *args: Any, **kwargs: Any) -> None:
            backend_args = kwargs.get('backend_args')
            path = join_path(out_dir, _peer_file(filename), backend_args=backend_args)
            # known before the first is saved: a resumed run must be able to remove this one too
            self._written[path] = join_path(out_dir, filename, backend_args=backend_args)
            save(out_dir, filename, *args, **kwargs)
            if is_main_process():
                self._write_peer(path, backend_args)

        save_both.writes_peer = True
        return save_both

    def _write_peer(self, path: str, backend_args: dict | None) -> None:
        if backend_args is None and '://' not in path:
            save_whole(self._peer_checkpoint, path)
        else:
            save_checkpoint(self._peer_checkpoint, path, backend_args=backend_args)
        self._peer_checkpoint = {}
        self.checkpoints_removed(backend_args)

    def checkpoints_removed(self, backend_args: dict | None = None) -> None:
        """Remove the second network's files whose first one is gone."""
        for peer, first in list(self._written.items()):
            if not exists(first, backend_args=backend_args):
                del self._written[peer]
                if exists(peer, backend_args=backend_args):
                    remove(peer, backend_args=backend_args)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if not runner._resume and 'peer' in (checkpoint.get('kd_det') or {}):
            runner.logger.warning('load_from: only the first network\'s weights are taken from a CoLAD checkpoint; the '
                                  f'second\'s are in the file beside it (NAME{PEER_SUFFIX}.pth), for peer.checkpoint')
        super().after_load_checkpoint(runner, checkpoint)

    def _restore(self, runner: Runner, state: dict) -> None:
        if self._twin and 'peer' in state:
            peer = dict(state_dict=dict(state['peer']))
            if 'peer_ema' in state:
                peer['ema_state_dict'] = state['peer_ema']
            self._twin.after_load_checkpoint(runner, peer)  # averaged weights go where they came from
            state = dict(state, peer=peer['state_dict'])
        super()._restore(runner, state)
        self._taught, self._of_epoch = dict(state.get('taught', self._taught)), state.get('of_epoch')
        # a second network whose first one the user has removed since then is kept; so is whatever else a forged
        # checkpoint names
        self._written = {peer: first for peer, first in state.get('written', {}).items()
                         if ('://' in first or exists(first)) and peer == _peer_file(first)}


def _peer_file(path: str) -> str:
    """Where the second network is written beside the first one's file."""
    stem, extension = osp.splitext(path)
    return stem + PEER_SUFFIX + extension
