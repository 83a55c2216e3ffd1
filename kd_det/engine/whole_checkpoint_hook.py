"""Refuse to resume from another network's checkpoint, or to begin from one that does not fit at all."""
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from ..errors import CheckpointMismatch
from ..weights import _listing, check_values, mismatch


class WholeCheckpointHook(Hook):
    """On resume, the checkpoint must hold the configured network key for key. ``kd-det train`` adds it to every run.

    ``load_from`` may fit in part (another number of classes, another head), which is said with the counts.

    Raises:
        CheckpointMismatch: with the list of keys, before anything is loaded or written; for ``load_from``, where not
            one tensor fits or its values are no weights.
    """

    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if not runner._resume:
            _begin_from(runner, model, checkpoint.get('state_dict', checkpoint))
            return
        state = checkpoint.get('state_dict')
        if not state:
            raise CheckpointMismatch(f'--resume {runner._load_from}: no state_dict in it')
        missing, unexpected, shapes = mismatch(model, state)
        if missing or unexpected or shapes:
            raise CheckpointMismatch(
                f'cannot resume: the checkpoint is not of this {type(model).__name__}.'
                + _listing('keys missing in the checkpoint', missing)
                + _listing('keys the network does not have', unexpected)
                + _listing('tensors of another shape', shapes)
                + '\nResume with the config it was trained with; to start from its weights use '
                  '--cfg-options load_from=CHECKPOINT.')


def _begin_from(runner, model, state: dict) -> None:
    """``load_from``: what of it fits, in words."""
    what = f'load_from {runner._load_from}'
    missing, unexpected, shapes = mismatch(model, state)
    own, absent = len(model.state_dict()), len(missing) + len(shapes)
    if absent == own:
        raise CheckpointMismatch(f'{what}: not one tensor of it fits the configured {type(model).__name__}, so '
                                 'training would begin from random weights.' + _listing('keys it holds', unexpected, 5)
                                 + _listing('keys the network has', missing, 5)
                                 + '\nA backbone\'s own checkpoint belongs to model.backbone.init_cfg='
                                   'dict(type=\'Pretrained\', checkpoint=...).')
    check_values(model, {k: v for k, v in state.items() if k in model.state_dict()}, what)
    if absent:
        runner.logger.warning(f'{what}: ONLY {own - absent} of {own} tensors fit; the other {absent} begin as the '
                              'config initialises them.' + _listing('keys missing in the checkpoint', missing)
                              + _listing('tensors of another shape', shapes))
