"""Hooks, config loading and data checks."""
from .colad_hook import CoLADHook
from .distill_hook import DistillHook, attach_to_runner
from .interrupt_hook import InterruptHook
from .peer_validation_hook import PeerValidationHook
from .whole_checkpoint_hook import WholeCheckpointHook

__all__ = ['CoLADHook', 'DistillHook', 'InterruptHook', 'PeerValidationHook', 'WholeCheckpointHook',
           'attach_to_runner']
