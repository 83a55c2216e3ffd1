"""What co-learning heads have in common: ask two heads for their costs, decide, hand one assignment to both."""
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..errors import AssignmentMismatch
from .record import Assignments, Call, Decision, intercept

Criterion = Callable[[Tensor, Tensor, int], Tensor]


@dataclass
class Shares:
    """What a batch's decisions were: ``first_teaches``, the share (0..1) taken by the first network; ``decisions``;
    and, where it was asked for, ``agreement`` (4,) of the assignments that each network's own costs give
    (:class:`kd_det.assignment.agreement.Agreement`).
    """

    first_teaches: Tensor
    decisions: int
    agreement: Tensor | None = None


class AllAsked(Exception):
    """Ends a head's loss when its costs are known."""


class CoLearningStep:
    """Two heads of one kind and the criterion that chooses between their costs; a subclass a kind of head."""

    granularities: tuple[str, ...]

    def __init__(self, heads: tuple[nn.Module, nn.Module], criterion: Criterion, granularity: str) -> None:
        self.criterion, self.granularity = criterion, granularity
        self._check_alike(*heads)

    @torch.no_grad()
    def ask(self, head: nn.Module, arguments: tuple, num_images: int) -> list[Call]:
        """The decisions, one an image, that ``head.loss_by_feat(*arguments)`` is about to make."""
        calls: list[Call] = []

        def note(call: Call) -> object:
            answer = self._look(call)
            calls.append(call)
            if len(calls) == num_images:
                raise AllAsked
            return answer

        with intercept(head, note), suppress(AllAsked):
            head.loss_by_feat(*arguments)
        return calls

    @torch.no_grad()
    def decide(self, first: list[Call], second: list[Call],
               compare: bool = False) -> tuple[Assignments, Shares | None]:
        """One assignment for both networks, and who made it; None where there was nothing to decide.

        Args:
            first, second: what each network is asked, an entry an image.
            compare: also find out how far the two networks' own assignments agree.

        Raises:
            AssignmentMismatch: the networks see other priors, ground truths or candidates.
            ValueError: a network's costs are not finite.
        """
        if len(first) != len(second):
            raise AssignmentMismatch(f'the first network decides {len(first)} times, the second {len(second)} times')
        for image, (one, other) in enumerate(zip(first, second)):
            for name, tensor in one.evidence.items():
                theirs = other.evidence[name]
                if tensor.shape != theirs.shape:
                    raise AssignmentMismatch(f'image {image + 1} of the batch: {name}: {tuple(tensor.shape)} in the '
                                             f'first network, {tuple(theirs.shape)} in the second; both need the same '
                                             'prior generator and train_cfg')
        results, shares = self._results(first, second, compare)
        decisions = [Decision(call.source, call.evidence, result) for call, result in zip(first, results)]
        return Assignments('CoLAD', decisions), shares

    def _choose(self, costs: Tensor, cells: Tensor, num_cells: int) -> tuple[Tensor, Shares | None]:
        """Mask (num_cells,), the first network assigns; cells without candidates are no decisions.

        Args:
            costs: (2, A). cells: (A,), in 0..num_cells - 1.
        """
        first = torch.ones(num_cells, dtype=torch.bool, device=cells.device)
        if not len(cells):
            return first, None
        finite = costs.isfinite().all(1)  # (2,)
        if not bool(finite.all()):
            network = 'first' if not bool(finite[0]) else 'second'
            raise ValueError(f'CoLAD: costs of the {network} network are inf or nan: has its training diverged?')
        asked, dense = torch.unique(cells, return_inverse=True)
        chosen = self.criterion(costs, dense, len(asked))
        first[asked] = chosen
        return first, Shares(chosen.float().mean(), len(asked))
