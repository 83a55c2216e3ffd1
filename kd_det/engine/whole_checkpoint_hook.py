"""Refuse to resume from a checkpoint of another network; MMEngine would only log it."""
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from ..errors import CheckpointMismatch
from ..weights import _listing, mismatch


class WholeCheckpointHook(Hook):
    """On resume, the checkpoint must hold the configured network key for key. ``tools/train.py`` adds it to every run.

    Raises:
        CheckpointMismatch: with the list of keys, before anything is loaded or written.
    """

    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        if not runner._resume:
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
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
