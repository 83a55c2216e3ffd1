"""What every term is: one thing that is taught, with names in the log, a weight and a schedule."""
from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from ..arguments import one_of
from ..build import checked
from ..errors import ConfigError
from ..sources.layers import part_of
from .schedule import Schedule
from .step import Step, UnlabelledStep

IMAGES = (None, 'all', 'labelled', 'unlabelled')


class Term(nn.Module):
    """One thing that one source teaches.

    A detector (:class:`kd_det.detectors.distiller.Distiller`) builds its terms, calls :meth:`check` once, then
    :meth:`connect`, and in each step in which the schedule's factor is not 0 :meth:`around`, the student's own loss,
    :meth:`adjust` and :meth:`losses`. A term of weight 0 (:attr:`off`) takes no part.

    Args:
        key (str): where it stands in the config, for messages; filled in.
        source (str): the name of the source that teaches: ``'teacher'``, or a key of ``sources``. A list of names in a
            config means an ensemble of them, all of one weight.
        name (str | None): appended to the names in the log, where two terms would share one.
        start_epoch, stop_epoch, decay, decay_floor: see :class:`kd_det.terms.schedule.Schedule`.
        images (str | None): on which images it acts where a run has images without labels
            (:class:`kd_det.detectors.unlabelled.Unlabelled`): 'all', 'labelled' or 'unlabelled'; None: on all that it
            can.

    Attributes:
        compares_classes: whether classes are compared one by one, so that source and student must know the same ones.
        needs_labels: why it needs ground truth, so that it cannot act on images without labels; empty: it does not.
        takes_several: whether an :class:`kd_det.sources.ensemble.Ensemble` can teach it.
        of_rois: whether it compares something for each RoI.
        supervises: parts of the student that it trains where the student's own losses are off ('cls', 'bbox', ...).
    """

    compares_classes = False
    needs_labels = ''
    takes_several = False
    of_rois = False
    source_kind: str = 'frozen'

    def __init__(self, key: str = 'terms[0]', source: str = 'teacher', name: str | None = None, start_epoch: int = 0,
                 stop_epoch: int | None = None, decay: str | None = None, decay_floor: float = 0.0,
                 images: str | None = None) -> None:
        super().__init__()
        if not isinstance(source, str):
            raise ConfigError(f'{key}.source: found {source!r}; the name of one source is expected')
        if name is not None and not isinstance(name, str):
            raise ConfigError(f'{key}.name: found {name!r}; a text is expected')
        self.key, self.source, self.suffix = key, source, f'_{name}' if name else ''
        self.schedule = Schedule(start_epoch, stop_epoch, decay, decay_floor, key)
        self.images = checked(f'{key}.images', one_of, images, IMAGES)

    # -- before training --------------------------------------------------------------------------------------------
    @property
    def off(self) -> bool:
        """Whether all of it has weight 0: it is neither computed nor asked for."""
        return False

    def check(self, student: nn.Module, source: Any) -> None:
        """Examine the pair; raises :class:`ConfigError` for what the two cannot share. Draws no random number."""

    def check_members(self, student: nn.Module, ensemble: Any) -> None:
        """The same for each member of an ensemble; override it for what the members must share."""
        for member in ensemble.members.values():
            self.check(student, member)

    def layers(self) -> tuple[Sequence[str], Sequence[str]]:
        """Paths of the layers of student and source that it compares."""
        return (), ()

    def connect(self, student: nn.Module, source: Any) -> None:
        """Build what depends on layers' shapes (``student.layer_shapes``, ``source.shapes``)."""

    def asks(self) -> tuple[str, ...] | None:
        """All that it asks of a source's pass: paths of layers, ``'rpn'``, ``'dense'``, ``'rcnn'`` (the RoI head, about
        the student's RoIs), ``'boxes'`` (its final boxes, with class distributions); None: it runs parts of the network
        itself. Asked after :meth:`check`. Only terms that say it can learn from recorded answers
        (:class:`kd_det.sources.recorded.RecordedTeacher`).
        """
        return None

    def reaches(self) -> str:
        """How far the source has to run for it: 'backbone', or 'whole' for anything behind."""
        asks = self.asks()
        return 'backbone' if asks and all(part_of(ask) == 'backbone' for ask in asks) else 'whole'

    def names(self) -> list[str]:
        """Of its losses in the log."""
        return []

    def unlabelled_names(self) -> list[str]:
        """Of its losses on images without labels."""
        return self.names()

    def acts_on(self, labelled: bool) -> bool:
        """Whether it acts on images with labels, or on those without.

        Raises:
            ConfigError: it is meant to act without labels, and needs them.
        """
        if self.needs_labels and self.images in ('all', 'unlabelled'):
            raise ConfigError(f'{self.key}.images: found {self.images!r}, and {type(self).__name__} needs ground '
                              f'truth: {self.needs_labels}; leave it out or give \'labelled\'')
        if labelled:
            return self.images != 'unlabelled'
        return not self.needs_labels and self.images != 'labelled'

    def teaches(self) -> bool:
        """Whether anything is distilled by it, rather than only the student's own losses weighed."""
        return bool(self.names())

    def describe(self) -> list[str]:
        """Lines of the plan."""
        return []

    # -- the step ---------------------------------------------------------------------------------------------------
    def around(self, step: Step) -> None:
        """Enter what the student has to run in (``step.enter``, ``step.hear``)."""

    def adjust(self, step: Step, losses: dict[str, Any], factor: float) -> None:
        """Change the student's own losses in place, where the method says so."""

    def losses(self, step: Step) -> dict[str, Tensor]:
        """Its own losses, by the names of :meth:`names`."""
        return {}

    def unlabelled_losses(self, step: UnlabelledStep) -> dict[str, Tensor]:
        """The same on images without labels, by the names of :meth:`unlabelled_names`; :meth:`around` and
        :meth:`adjust` are not called there.
        """
        return self.losses(step)

    def examine(self, step: Step) -> None:
        """In the first step, after the losses: raise :class:`ConfigError` for what would silently teach nothing."""

    def state_size(self) -> int:
        """Parameters that it trains and that are no part of the deployed student."""
        return sum(p.numel() for p in self.parameters())


