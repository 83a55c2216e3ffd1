"""Modules that train with a detector and are no part of it."""
from typing import Any

from mmengine.dist import broadcast
from torch import nn


class TrainingOnly(nn.ModuleList):
    """A list of modules that the optimizer, DDP and ``.to()`` see, and ``state_dict`` does not.

    The detector's ``state_dict`` stays the deployed student's, key for key, and loads strictly from one. What is left
    out is read with :meth:`own_state_dict` and restored with :meth:`load_own_state_dict`; the checkpoint keeps it under
    ``checkpoint['kd_det']``.

    Works by hooks rather than by overriding ``state_dict``, because MMEngine collects states module by module.
    """

    def __init__(self, modules: list[nn.Module] = ()) -> None:
        super().__init__(modules)
        self._concealed = True
        self._register_state_dict_hook(self._conceal)
        self.register_load_state_dict_pre_hook(self._load_itself)

    @staticmethod
    def _conceal(module: 'TrainingOnly', state: dict, prefix: str, _metadata: Any) -> None:
        if module._concealed:
            for key in [k for k in state if k.startswith(prefix)]:
                del state[key]

    @staticmethod
    def _load_itself(module: 'TrainingOnly', state: dict, prefix: str, *_: Any) -> None:
        """A checkpoint without these keys is complete: let each tensor stand for itself."""
        if module._concealed:
            for key, value in module.own_state_dict().items():
                state.setdefault(prefix + key, value)

    def own_state_dict(self) -> dict:
        """What a plain ``nn.ModuleList`` would return as its ``state_dict``."""
        self._concealed = False
        try:
            return super().state_dict()
        finally:
            self._concealed = True

    def synchronise(self) -> None:
        """Rank 0's tensors on all ranks. MMEngine does this for what is in ``state_dict``, after weights are drawn."""
        for tensor in self.own_state_dict().values():
            broadcast(tensor)

    def load_own_state_dict(self, state: dict) -> None:
        """Strictly. Raises ``RuntimeError`` that lists the keys that differ."""
        self._concealed = False
        try:
            super().load_state_dict(state, strict=True)
        finally:
            self._concealed = True
