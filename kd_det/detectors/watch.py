"""What is looked at in the first steps of training, because it would fail silently."""
from typing import Any

from mmengine.logging import print_log
from torch import Tensor, nn

from ..terms.step import Step
from ..terms.term import Term

STEPS = 10


class FirstSteps:
    """Examines the first step of every term, and which of the student's parameters get a gradient in the first ten.

    A parameter that trains, belongs to the deployed student and gets no gradient in any of these steps is reported by
    name, as an error of the log where the student's own losses are off: prediction would use what nothing trains.
    """

    def __init__(self) -> None:
        self._examined: set[str] = set()
        self._left = STEPS
        self._without: dict[int, str] | None = None
        self._handles: list[Any] = []

    def __deepcopy__(self, memo: dict) -> 'FirstSteps':
        return FirstSteps()  # hooks belong to the original

    def __getstate__(self) -> dict:
        return {**vars(self), '_handles': [], '_without': None, '_left': 0}

    def see(self, step: Step, active: list[Term]) -> None:
        """After the losses of a step are computed, before its backward pass.

        Raises:
            ConfigError: from a term that would silently teach nothing.
        """
        for term in active:
            if term.key not in self._examined and step.student.training:
                self._examined.add(term.key)
                term.examine(step)

    def note_gradients(self, model: nn.Module) -> None:
        """Once a step, before its backward pass."""
        if not self._left or not model.training:
            return
        if self._without is None:
            apart = {id(p) for name in ('terms', 'peer_network')
                     for p in getattr(model, name, nn.Module()).parameters()}
            trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad and id(p) not in apart]
            self._without = {id(p): name for name, p in trained}
            for _, parameter in trained:
                self._handles.append(parameter.register_hook(self._marker(id(parameter))))
        elif self._left == 1:
            self._report(model)
        self._left -= 1

    def _marker(self, key: int) -> Any:
        without = self._without

        def mark(_gradient: Tensor) -> None:
            without.pop(key, None)
        return mark

    def _report(self, model: nn.Module) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        names = list(self._without.values())
        if names:
            shown = ', '.join(names[:8]) + (f' and {len(names) - 8} more' if len(names) > 8 else '')
            own = getattr(model, 'ground_truth', True)
            print_log(f'{len(names)} parameters of the student had no gradient in the first {STEPS - 1} steps: '
                      f'{shown}. '
                      + ('The plain student does not train them either, or nothing of this data does.' if own else
                         'Prediction may use them, and nothing trains them: set ground_truth=True, or add a term.'),
                      'current', level=30 if own else 40)
