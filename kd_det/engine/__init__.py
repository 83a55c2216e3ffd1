"""Hooks, config loading and data checks."""
from .attach import attach_to_runner
from .colad_hook import CoLADHook
from .distill_hook import DistillHook
from .interrupt_hook import InterruptHook
from .peer_validation_hook import PeerValidationHook
from .record_hook import RecordHook
from .score_weight_hook import ScoreWeightHook
from .whole_checkpoint_hook import WholeCheckpointHook

__all__ = ['CoLADHook', 'DistillHook', 'InterruptHook', 'PeerValidationHook', 'RecordHook', 'ScoreWeightHook',
           'WholeCheckpointHook', 'attach_to_runner']
