"""Hooks, config loading and data checks."""
from .distill_hook import DistillHook, attach_to_runner
from .interrupt_hook import InterruptHook
from .whole_checkpoint_hook import WholeCheckpointHook

__all__ = ['DistillHook', 'InterruptHook', 'WholeCheckpointHook', 'attach_to_runner']
