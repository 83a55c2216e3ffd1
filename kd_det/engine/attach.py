"""Gives every runner of a distiller its hooks."""
import functools

from mmengine.hooks import Hook
from mmengine.runner import Runner

from ..detectors import CoLAD, Distiller
from .agreement_hook import AgreementHook
from .colad_hook import CoLADHook
from .distill_hook import DistillHook, distiller_of
from .ensemble_weights_hook import EnsembleWeightsHook
from .peer_validation_hook import PeerValidationHook
from .record_hook import RecordHook
from .recordable import recorded
from .teacher_check_hook import TeacherCheckHook
from .unlabelled_hook import UnlabelledHook


def hooks_of(model: object) -> tuple[type[Hook], ...]:
    """The hooks that a run of ``model`` needs."""
    if not isinstance(model, Distiller):
        return ()
    record = (RecordHook,) if recorded(model) else ()
    if isinstance(model, CoLAD):
        return (CoLADHook, AgreementHook, PeerValidationHook, TeacherCheckHook, EnsembleWeightsHook, UnlabelledHook,
                *record)
    return DistillHook, TeacherCheckHook, EnsembleWeightsHook, UnlabelledHook, *record


def attach_to_runner() -> None:
    """Give every Runner of a distiller its :class:`DistillHook`, or CoLAD's hooks; idempotent.

    A config cannot forget it this way, and MMDetection's own ``tools/train.py`` has it too. The runner's
    ``register_hooks`` is wrapped because MMEngine has no place where a model can ask for a hook.
    """
    original = Runner.register_hooks
    if getattr(original, 'attaches_distill_hook', False):
        return

    @functools.wraps(original)
    def register_hooks(self: Runner, *args, **kwargs) -> None:
        original(self, *args, **kwargs)
        for kind in hooks_of(distiller_of(self)):
            if not any(isinstance(hook, kind) for hook in self.hooks):
                self.register_hook(kind())

    register_hooks.attaches_distill_hook = True
    Runner.register_hooks = register_hooks
