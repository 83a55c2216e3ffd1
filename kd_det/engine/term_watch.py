"""What distillation terms do while training, in words: silent ones, stuck ones, ones that drown the task."""
import math
from collections import defaultdict

import torch
from mmengine.runner import Runner
from torch import Tensor

DROWNS = 100.0  # times the task loss
SIZES_AFTER = 50  # steps


class TermWatch:
    """Looks at every distillation term once a step, with one read from the device for all of them.

    Reported by name, once per occurrence, with the likely cause: a term that is missing, exactly zero or constant for
    ``patience`` steps in a row; one that is not finite; one above 100 times the task loss (what is left of the total
    without the terms) for ``patience`` steps. After the first 50 steps in which a term has acted its mean is set beside
    that of the task loss in these steps: a term that begins at a later epoch has its line then. Steps are batches, also
    where gradients are accumulated over several.

    Args:
        patience (int): steps.
    """

    def __init__(self, patience: int = 50) -> None:
        self.patience = patience
        self._last: dict[str, float] = {}
        self._runs: defaultdict[tuple[str, str], int] = defaultdict(int)  # (term, what is odd) -> steps in a row
        self._sizes: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)  # (term, task) of its first steps

    def see(self, runner: Runner, names: list[str], outputs: dict) -> None:
        """After a step.

        Args:
            names: terms that act now.
            outputs: what the step returned, a scalar for each name and the total under ``'loss'``.
        """
        values = _numbers(outputs, [*names, 'loss'])
        total = values.pop('loss', None)
        added = sum(value for name, value in values.items() if 'loss' in name)
        task = None if total is None else total - added
        for name in names:
            self._examine(runner, name, values.get(name), task)
        self._last.update(values)
        if task is not None and math.isfinite(total):
            self._sum_up(runner, values, task)

    def _examine(self, runner: Runner, name: str, value: float | None, task: float | None) -> None:
        finite = value is not None and math.isfinite(value)
        odd = {
            'missing': value is None,
            'infinite': value is not None and not finite,
            'zero': value == 0,
            'constant': finite and value != 0 and value == self._last.get(name),
            'drowning': finite and 'loss' in name and task is not None and value > DROWNS * abs(task)}
        for what, holds in odd.items():
            self._runs[name, what] = self._runs[name, what] + 1 if holds else 0
        if self._runs[name, 'infinite'] == 1:
            runner.logger.error(f'distillation term {name} is {value} at iteration {runner.iter + 1}')
        said = {
            'missing': 'missing from the losses: it teaches nothing. Was what it compares reached in these steps?',
            'zero': 'exactly zero: it teaches nothing. Likely the teacher finds nothing in these images, no place was '
                    'chosen (a threshold too high), or student and teacher are one network',
            'constant': f'exactly {value}: it depends on nothing that trains. Likely its layer is frozen '
                        '(frozen_stages, requires_grad=False) or the optimizer holds it with lr_mult=0',
            'drowning': f'above {DROWNS:g} times the task loss ({value} against {task}): it drowns the task. Likely '
                        'its loss_weight is for another normalisation, or its loss adds over places instead of '
                        'averaging'}
        for what, text in said.items():
            # a constant is a step late: the first value has nothing to be equal to
            if self._runs[name, what] == self.patience - (what == 'constant'):
                runner.logger.warning(f'distillation term {name} has been {text} ({self.patience} steps, up to '
                                      f'iteration {runner.iter + 1})')

    def _sum_up(self, runner: Runner, values: dict[str, float], task: float) -> None:
        ready = []
        for name, value in values.items():
            sizes = self._sizes[name]
            if 'loss' in name and len(sizes) < SIZES_AFTER:
                sizes.append((value, task))
                ready += [name] * (len(sizes) == SIZES_AFTER)
        if not ready:
            return
        said, tasks = [], []  # terms that began together stand beside one task loss
        for name in ready:
            mean, beside = (sum(column) / SIZES_AFTER for column in zip(*self._sizes[name]))
            said.append(f'{name} {mean:.4g}' + (f' ({mean / beside:.2g} times the task loss)' if beside > 0 else ''))
            tasks.append(f'{beside:.4g}')
        runner.logger.info(f'Distillation terms, mean of the first {SIZES_AFTER} steps: {", ".join(said)}; '
                           f'the task loss is {" and ".join(dict.fromkeys(tasks))}')


def _numbers(outputs: dict, names: list[str]) -> dict[str, float]:
    """The values that are there, read from the device at once."""
    found = {name: outputs[name] for name in names if name in outputs}
    tensors = {name: value.detach().double().flatten()[0] for name, value in found.items() if isinstance(value, Tensor)}
    read = torch.stack(list(tensors.values())).tolist() if tensors else []
    return {**{name: float(value) for name, value in found.items() if name not in tensors}, **dict(zip(tensors, read))}
