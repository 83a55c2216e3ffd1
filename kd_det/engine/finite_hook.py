"""A run whose loss is not finite stops before the step, and weights that are not finite are never saved."""
import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed
from mmengine.dist import barrier, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn

from ..errors import TrainingDiverged

NAME = 'diverged.pth'
SHOWN = 16  # images named in the message


class FiniteHook(Hook):
    """Stops a run at the first total loss that is inf or NaN, plain detectors included. Every run of ours has it.

    The loss is looked at between the backward pass and the optimizer's step. Whether it is finite is found out on the
    device and copied without waiting while the backward pass is put into the queue, so the host does not wait for the
    backward pass, and the state is still that before the step. Several processes agree by one all-reduce, which is
    queued on the device as well.

    The message names the losses that are not finite, the student's and the terms' alike, and the files of the batch.
    The state before the step goes to ``diverged.pth`` (running statistics, which the forward pass changes, are put
    back); ``last_checkpoint`` is left alone. Where the weights themselves are not finite, because a gradient of an
    earlier step was not, nothing is written: neither here nor by any other hook that saves.

    Raises:
        TrainingDiverged: the process ends with an exit status other than 0.
    """

    priority = 'LOWEST'  # its view of a checkpoint is the last one

    def __init__(self) -> None:
        self._losses: dict[str, Any] = {}
        self._batch: Any = None
        self._buffers: list[tuple[Tensor, Tensor]] = []  # (the network's, as it was before the step)

    def before_train(self, runner: Runner) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        model.register_forward_hook(self._hear)
        buffers = [buffer for name, buffer in model.named_buffers()
                   if name.rsplit('.', 1)[-1].startswith(('running_', 'num_batches'))]
        self._buffers = [(buffer, buffer.clone()) for buffer in buffers]
        wrapper = runner.optim_wrapper
        for one in [w for _, w in wrapper.items()] if hasattr(wrapper, 'items') else [wrapper]:
            self._watch(runner, one)

    def _hear(self, _model: nn.Module, _args: tuple, output: Any) -> None:
        if isinstance(output, dict):  # mode='loss'
            self._losses = output

    def _watch(self, runner: Runner, wrapper: Any) -> None:
        backward = wrapper.backward

        def watched(loss: Tensor, **kwargs: Any) -> None:
            flag = _Flag(loss)
            backward(loss, **kwargs)
            if not flag.read():
                self._stop(runner, loss)
        wrapper.backward = watched

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        self._batch = data_batch
        for buffer, copy in self._buffers:
            copy.copy_(buffer)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        self._losses, self._batch = {}, None

    def _stop(self, runner: Runner, loss: Tensor) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        for buffer, copy in self._buffers:
            buffer.copy_(copy)
        text = (f'the loss is {float(loss.detach()):g} at iteration {runner.iter + 1}, training stops before its '
                f'step. {_terms(self._losses, loss)}. Images of the batch: {", ".join(_files(self._batch))}. ')
        unlabelled = getattr(model, 'unlabelled', None)
        if unlabelled is not None and unlabelled.images:
            text += f'Images without labels: {", ".join(_files(dict(data_samples=unlabelled.images)))}. '
        broken = not_finite(model.state_dict())
        if broken:
            text += (f'The weights are not finite either (e.g. {broken[0]}), by a gradient of an earlier step, so they '
                     'are not saved. ')
        else:
            runner.save_checkpoint(runner.work_dir, NAME, save_optimizer=True, save_param_scheduler=True,
                                   by_epoch=False)
            barrier()  # a process that ends makes torchrun stop the others: not before the file is whole
            text += f'The state before the step is in {runner.work_dir}/{NAME}. '
        text += 'Usual causes: a learning rate that is too high or without warm-up (optim_wrapper.optimizer.lr), no ' \
            'clip_grad, a weight of a term that drowns the task, boxes without area in these images'
        if is_main_process():
            runner.logger.error(text)
        raise TrainingDiverged(text)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        broken = not_finite({name: value for part in ('state_dict', 'kd_det')
                             for name, value in _tensors(checkpoint.get(part), '' if part == 'state_dict' else part)})
        if broken:
            raise TrainingDiverged(
                f'at iteration {runner.iter + 1} {len(broken)} tensors of the network are not finite, e.g. '
                f'{broken[0]}: they are not saved, and what was saved before is kept. Usual causes: a learning rate '
                'that is too high (optim_wrapper.optimizer.lr), no clip_grad')


class _Flag:
    """Whether a loss is finite on every rank; asked on the device at once, read by the host later."""

    def __init__(self, loss: Tensor) -> None:
        bad = (~loss.detach().isfinite()).any().to(torch.uint8)
        if get_world_size() > 1:
            torch.distributed.all_reduce(bad, torch.distributed.ReduceOp.MAX)
        self._ready = None
        if bad.is_cuda:
            self._host = torch.empty((), dtype=torch.uint8, pin_memory=True)
            self._host.copy_(bad, non_blocking=True)
            self._ready = torch.cuda.Event()
            self._ready.record()
        else:
            self._host = bad.cpu()

    def read(self) -> bool:
        if self._ready is not None:
            self._ready.synchronize()  # of the forward pass; the backward pass may still run
        return not self._host.numpy()


def not_finite(state: dict) -> list[str]:
    """Names of the floating-point tensors that hold inf or NaN."""
    found = {name: value.isfinite().all() for name, value in state.items()
             if isinstance(value, Tensor) and value.is_floating_point()}
    if not found or bool(torch.stack([one.to(next(iter(found.values())).device) for one in found.values()]).all()):
        return []
    return [name for name, fine in found.items() if not fine]


def _tensors(value: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    """Name -> tensor, of nested dicts: the second network and the adapters are beside the weights."""
    if isinstance(value, Tensor):
        yield name, value
    for key, part in value.items() if isinstance(value, dict) else ():
        yield from _tensors(part, f'{name}.{key}' if name else str(key))


def _terms(losses: dict, loss: Tensor) -> str:
    found = []
    for name, value in losses.items():
        parts = value if isinstance(value, (list, tuple)) else [value]
        numbers = [float(part.detach().float().mean()) for part in parts if isinstance(part, Tensor)]
        total = sum(numbers)
        if 'loss' in name and not math.isfinite(total):
            levels = [i for i, number in enumerate(numbers) if not math.isfinite(number)]
            found.append(f'{name} is {total:g}' + (f' (levels {levels})' if len(numbers) > 1 else ''))
    if found:
        return 'Not finite: ' + ', '.join(found)
    return 'Each term is finite' + (', their sum is not' if not bool(loss.isfinite().all()) else
                                    ' in this process; another one\'s is not')


def _files(batch: Any) -> list[str]:
    samples = batch.get('data_samples') if isinstance(batch, dict) else None
    if isinstance(samples, dict):  # several branches
        samples = [sample for branch in samples.values() for sample in branch]
    names = [str(sample.metainfo.get('img_path') or f'image id {sample.metainfo.get("img_id")}')
             for sample in samples or [] if hasattr(sample, 'metainfo')]
    return names[:SHOWN] + [f'and {len(names) - SHOWN} more'][:len(names) > SHOWN] or ['not known']
