"""Record the label assignments that a dense head decides on."""
import copy
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from mmdet.models.dense_heads import PAAHead
from mmdet.structures.bbox import get_box_tensor
from torch import Tensor, nn

from ..tap import replaced
from .dynamic import boxes_and_labels, dynamic_assigners


@dataclass
class Decision:
    """One call of an assigner (or of ``paa_reassign``).

    Attributes:
        source: the head's attribute that decided.
        evidence: name to tensor: what another head must see alike for the decision to be its own (priors, ground
            truths; for PAA the candidates too).
        result: what came out; a copy.
    """

    source: str
    evidence: dict[str, Tensor]
    result: Any


@dataclass
class Assignments:
    """The decisions of a batch, in the order in which the head made them.

    ``targets`` are what a PAA head's first, IoU-based assignment gave (:meth:`get_targets`).
    """

    head: str
    decisions: list[Decision] = field(default_factory=list)
    targets: tuple | None = None

    def __len__(self) -> int:
        return len(self.decisions)


class _AllDecided(Exception):
    """Ends the recorded head's loss: what follows its last decision would be thrown away."""


@contextmanager
def record(head: nn.Module, stop_after: int | None = None) -> Iterator[Assignments]:
    """Note every dynamic assignment decision that ``head`` makes in the block.

    The head decides as always; run it under ``no_grad``. Usage::

        with torch.no_grad(), record(teacher_head, stop_after=n) as assignments:
            teacher_head.loss(features, samples)

    Args:
        head: a dense head with a dynamic assigner, or a PAA head.
        stop_after: leave the block when so many decisions are made, so that no loss is computed which nobody wants.
            None: run the block to its end.

    Raises:
        ConfigError: the head's decisions cannot be recorded, or it has only static ones.
    """
    assignments = Assignments(type(head).__name__)

    def note(decision: Decision) -> None:
        assignments.decisions.append(decision)
        if len(assignments) == stop_after:
            raise _AllDecided

    def decide(call: 'Call') -> None:
        assignments.targets = call.targets
        note(Decision(call.source, call.evidence, copied(call.run())))

    with intercept(head, decide), suppress(_AllDecided):
        yield assignments


@dataclass
class Call:
    """A decision about to be made.

    Attributes:
        source: the head's attribute that is asked.
        owner: the assigner, or the PAA head.
        arguments: the call's, by name, defaults included.
        evidence: as in :class:`Decision`.
        run: makes the decision in the head's own way.
        targets: PAA: what ``get_targets`` returned for the batch; else None.
    """

    source: str
    owner: Any
    arguments: dict[str, Any]
    evidence: dict[str, Tensor]
    run: Callable[[], Any]
    targets: tuple | None = None


@contextmanager
def intercept(head: nn.Module, decide: Callable[[Call], Any], targets: tuple | None = None) -> Iterator[None]:
    """In the block, ``decide(call)`` stands where the head decides; a result of None means what ``call.run()`` gave in
    it. ``targets`` of an earlier call on the same batch save a PAA head from making its first, IoU-based assignment
    again.
    """
    with ExitStack() as stack:
        if isinstance(head, PAAHead):
            dynamic_assigners(head)  # refuses what cannot be recorded
            stack.enter_context(_intercept_paa(head, decide, targets))
        else:
            for name, assigner in dynamic_assigners(head).items():
                stack.enter_context(_intercept_assigner(name, assigner, decide))
        yield


@contextmanager
def _intercept_assigner(name: str, assigner: Any, decide: Callable[[Call], Any]) -> Iterator[None]:
    method, bind = assigner.assign, inspect.signature(assigner.assign).bind

    def assign(*args: Any, **kwargs: Any) -> Any:
        # argument order differs from assigner to assigner
        bound = bind(*args, **kwargs)
        bound.apply_defaults()
        arguments = bound.arguments
        boxes, labels = boxes_and_labels(arguments['gt_instances'])
        evidence = {'priors': get_box_tensor(arguments['pred_instances'].priors),
                    'ground-truth boxes': boxes, 'ground-truth labels': labels}
        return _run_once(decide, name, assigner, arguments, evidence, lambda: method(*args, **kwargs))

    with overridden(assigner, assign=assign):
        yield


@contextmanager
def _intercept_paa(head: PAAHead, decide: Callable[[Call], Any], known: tuple | None) -> Iterator[None]:
    method, get_targets = head.paa_reassign, head.get_targets
    # PAAHead's own signatures: a subclass may pass everything on as *args
    bind = partial(inspect.signature(PAAHead.paa_reassign).bind, head)
    bind_targets = partial(inspect.signature(PAAHead.get_targets).bind, head)
    waiting: list[Any] = []  # ground truths of the images that are not decided yet
    found: list[tuple] = [known] if known is not None else []

    def targets(*args: Any, **kwargs: Any) -> Any:
        waiting[:] = bind_targets(*args, **kwargs).arguments['batch_gt_instances']
        if known is None:
            found[:] = [get_targets(*args, **kwargs)]
        return found[0]

    def paa_reassign(*args: Any, **kwargs: Any) -> Any:
        arguments = bind(*args, **kwargs).arguments
        boxes, labels = boxes_and_labels(waiting.pop(0))
        evidence = {f'priors of level {i}': level for i, level in enumerate(arguments['anchors'])}
        evidence.update({'ground-truth boxes': boxes, 'ground-truth labels': labels,
                         'candidates (train_cfg.assigner)': arguments['pos_inds'],
                         'candidates\' objects (train_cfg.assigner)': arguments['pos_gt_inds']})
        return _run_once(decide, 'paa_reassign', head, arguments, evidence,
                         lambda: method(*args, **kwargs), found[0])

    with overridden(head, paa_reassign=paa_reassign, get_targets=targets):
        yield


def _run_once(decide: Callable[[Call], Any], source: str, owner: Any, arguments: dict, evidence: dict,
              run: Callable[[], Any], targets: tuple | None = None) -> Any:
    results: list[Any] = []

    def run_and_keep() -> Any:
        results.append(run())
        return results[-1]

    decided = decide(Call(source, owner, dict(arguments), evidence, run_and_keep, targets))
    return results[-1] if decided is None else decided


@contextmanager
def overridden(owner: Any, **methods: Callable) -> Iterator[None]:
    """Replace methods of one object for the block, which nobody else may have done."""
    taken = [name for name in methods if name in vars(owner)]
    if taken:
        raise RuntimeError(f'{type(owner).__name__}.{taken[0]} is replaced already: record() and '
                           'replay() of one head cannot be nested')
    with replaced(owner, **methods):
        yield


def copied(result: Any) -> Any:
    """A copy that later changes to the result do not reach: assignment results are mutable."""
    if isinstance(result, Tensor):
        return result.detach().clone()
    if isinstance(result, (tuple, list)):
        return type(result)(copied(item) for item in result)
    if hasattr(result, '__dict__'):
        duplicate = copy.copy(result)
        vars(duplicate).update({key: copied(value) for key, value in vars(result).items()})
        return duplicate
    return result
