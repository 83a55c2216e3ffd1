"""What the terms share during one training step, and during its part on images without labels."""
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any

from torch import Tensor, nn

from ..errors import ConfigError
from ..sources.layers import Captured, LayerShape, box_heads, fake_samples
from ..sources.passes import Pass
from ..sources.proposals import proposals
from ..tap import tap_method


class Step:
    """One batch: the student, what was heard of it, and the passes of the sources.

    Args:
        student: the detector that trains.
        inputs: (N, C, H, W), as the student sees them.
        samples: N samples.
        captured: the student's layers that terms asked for.
    """

    def __init__(self, student: nn.Module, inputs: Tensor, samples: list, captured: Captured) -> None:
        self.student, self.inputs, self.samples = student, inputs, samples
        self.captured = captured
        self._passes: dict[str, Pass] = {}
        self._openers: dict[str, Callable[[], Pass]] = {}
        self._stack = ExitStack()
        self._heard: dict[str, list] = {}
        self._made: dict[str, Any] = {}

    def source(self, name: str) -> Pass:
        """The pass of a source; it is opened by whoever asks first."""
        if name not in self._passes:
            self._passes[name] = self._openers[name]()
        return self._passes[name]

    def offer(self, name: str, opener: Callable[[], Pass]) -> None:
        """How the pass of the source ``name`` is opened."""
        self._openers[name] = opener

    # -- what the student says --------------------------------------------------------------------------------------
    def layer(self, path: str) -> list[Tensor]:
        """A layer of the student, per level."""
        return self.captured.levels(path)

    def dense(self) -> tuple:
        """What the student's dense head returned (a term asked for it by ``step.hear('dense', ...)``)."""
        return self.hear('dense', self.student.bbox_head, 'forward')[0]['result']

    def listening(self) -> ExitStack:
        """The context in which the student runs."""
        self._stack.enter_context(self.captured.listening())
        return self._stack

    def enter(self, context: AbstractContextManager) -> Any:
        """For as long as the student runs."""
        return self._stack.enter_context(context)

    def hear(self, key: str, owner: nn.Module, method: str,
             note: Callable[[Any, dict[str, Any]], Any] | None = None) -> list[Any]:
        """The calls of ``owner.method`` in this step: arguments by name, and ``result``; or of each call what ``note``
        makes of result and arguments, so that the rest can be freed. Listened to once per key.
        """
        if key not in self._heard:
            calls: list[Any] = []
            self._heard[key] = calls
            note = note or (lambda result, arguments: {**arguments, 'result': result})
            self._stack.enter_context(tap_method(owner, method, lambda result, arguments: calls.append(
                note(result, arguments))))
        return self._heard[key]

    def once(self, key: str, make: Callable[[], Any]) -> Any:
        """What several terms need of the student's step; made for whoever asks first."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def close(self) -> None:
        """Let go of every tensor: closures hold the step, and features must not wait for the garbage collector."""
        self._openers.clear()
        self._passes.clear()
        self._heard.clear()
        self._made.clear()
        self.captured.forget()

    def hear_feature_sizes(self) -> None:
        """Listen to what lies behind the student's neck."""
        self.hear('feature sizes', self.student, 'extract_feat', lambda result, _: sizes_of(result))

    def feature_sizes(self) -> list[tuple[int, int]]:
        """(h, w) of the student's maps behind the neck, per level (a term asked by :meth:`hear_feature_sizes`)."""
        return self._heard['feature sizes'][0]

    # -- two-stage students -----------------------------------------------------------------------------------------
    def hear_rcnn(self) -> None:
        """Listen to what the student's box heads hand to their losses."""
        for stage, head in enumerate(box_heads(self.student)):
            self.hear(f'rcnn{stage}', head, 'loss_and_target')

    def rcnn_call(self, stage: int) -> dict[str, Any] | None:
        """The one call of stage ``stage``: rois (R, 5), cls_score, bbox_pred, and the targets as ``result``; None where
        the cascade ended before that stage, because no RoI was left.
        """
        calls = self._heard[f'rcnn{stage}']
        if len(calls) > 1:
            raise ConfigError(f'roi_head: the student called loss_and_target of R-CNN stage {stage} {len(calls)} times '
                              'a step; heads that call it once are supported')
        return calls[0] if calls else None

    def rois(self) -> list[Tensor]:
        """The student's sampled RoIs (R, 5) of each stage that ran, in its own pixels."""
        calls = [self.rcnn_call(stage) for stage in range(len(box_heads(self.student)))]
        return [call['rois'] for call in calls if call is not None]


class UnlabelledStep(Step):
    """One batch of images without labels: the student is asked as sources are, and nothing of its own loss runs.

    Args:
        student: the detector that trains.
        inputs: (N, C, H, W).
        samples: N samples; what they say about objects is taken out, so that nothing can read it.
        shapes: the student's layers that terms ask for.
        whole: whether something behind the student's backbone will be asked for.
        proposer: name of the source whose proposals are the RoIs.
        scale_factor: of that source.
        count: proposals for each image.
    """

    def __init__(self, student: nn.Module, inputs: Tensor, samples: list, shapes: dict[str, LayerShape],
                 whole: bool = True, proposer: str | None = None, scale_factor: int = 1, count: int = 512) -> None:
        samples = [_without_objects(sample) for sample in samples]
        super().__init__(student, inputs, samples, Captured(student, {}))
        # detectors that look at samples on the way (DETR) find images, and no object
        own = fake_samples(inputs)
        for empty, sample in zip(own, samples):
            empty.set_metainfo(sample.metainfo)
        self.own = Pass(student, inputs, own, shapes, whole, rois=self.rois, grad=True)
        self._proposer, self._scale, self._count = proposer, scale_factor, count
        self._rois: list[Tensor] | None = None

    def layer(self, path: str) -> list[Tensor]:
        return self.own.layer(path)

    def dense(self) -> tuple:
        return self.own.dense()

    def feature_sizes(self) -> list[tuple[int, int]]:
        return sizes_of(self.own.features)

    def rois(self) -> list[Tensor]:
        """The proposals (R, 5) of the source that proposes, of each R-CNN stage, in the student's pixels."""
        if self._rois is None:
            found = proposals(self.source(self._proposer), self._count, len(box_heads(self.student)))
            scale = self._scale
            self._rois = [rois / rois.new_tensor([1, scale, scale, scale, scale]) for rois in found]
        return self._rois

    def close(self) -> None:
        super().close()
        self.own, self._rois = None, None


def sizes_of(maps: Sequence[Tensor]) -> list[tuple[int, int]]:
    """(h, w) of maps (N, C, h, w)."""
    return [tuple(level.shape[-2:]) for level in maps]


def _without_objects(sample: Any) -> Any:
    """The sample without a word about objects."""
    sample = sample.new()
    for name in ('gt_instances', 'ignored_instances', 'gt_panoptic_seg', 'gt_sem_seg', 'proposals'):
        sample.pop(name, None)
    return sample
