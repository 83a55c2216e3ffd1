"""A timm model's feature maps as an MMDetection backbone, with everything about it said by its arguments.

This file stands alone: it needs torch, timm, mmengine and mmdet. ``kd-det export`` puts a copy of it beside the config
of a student that has such a backbone; the config names it in ``custom_imports`` and finds it in its own folder. For a
config elsewhere (a run's dump in its work directory) put the folder of this file on ``PYTHONPATH``.
"""
from collections.abc import Sequence

from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm


@MODELS.register_module(force=True)  # two students' copies of this file, or kd_det and a copy, may meet in one process
class TimmMaps(BaseModule):
    """``timm.create_model(model_name, features_only=True)``, cut behind its last map.

    Args:
        model_name (str): timm's name.
        arguments (dict | None): of timm's constructor.
        out_indices (Sequence[int] | None): which of timm's maps; None: timm's own choice.
        left_out (Sequence[str]): modules that end a sequence and that no map depends on, in the order in which they are
            taken away.
        channels_last (bool): timm gives maps (N, h, w, C), as Swin does; they are turned into (N, C, h, w).
        frozen (Sequence[str]): modules and parameters that get no gradient; the modules stay in eval mode.
        norm_eval (bool): batch norms stay in eval mode while training.
        init_cfg (dict | None): of MMEngine.

    Attributes:
        out_channels, strides (tuple[int]): of each map.
    """

    def __init__(self, model_name: str, arguments: dict | None = None, out_indices: Sequence[int] | None = None,
                 left_out: Sequence[str] = (), channels_last: bool = False, frozen: Sequence[str] = (),
                 norm_eval: bool = True, init_cfg: dict | None = None) -> None:
        super().__init__(init_cfg)
        import timm  # here: whoever registers this class need not have it
        chosen = {} if out_indices is None else dict(out_indices=tuple(out_indices))
        self.timm_model = timm.create_model(model_name, features_only=True, **chosen, **(arguments or {}))
        self.model_name, self.norm_eval = model_name, norm_eval
        self.channels_last, self.frozen = channels_last, tuple(frozen)
        for name in left_out:
            sequence, _, last = name.rpartition('.')
            del self.timm_model.get_submodule(sequence)[int(last)]
        info = self.timm_model.feature_info
        self.out_channels, self.strides = tuple(info.channels()), tuple(info.reduction())
        for name, parameter in self.timm_model.named_parameters():
            if self._is_frozen(name):
                parameter.requires_grad_(False)
        self.train()

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images (N, C, H, W) -> maps (N, out_channels[i], about H / strides[i], about W / strides[i])."""
        maps = self.timm_model(images)
        if self.channels_last:
            maps = [one.permute(0, 3, 1, 2).contiguous() for one in maps]
        return tuple(maps)

    def train(self, mode: bool = True) -> 'TimmMaps':
        """Frozen modules, and batch norms with ``norm_eval``, stay in eval mode."""
        super().train(mode)
        for name, module in self.timm_model.named_modules():
            if self._is_frozen(name) or (self.norm_eval and isinstance(module, _BatchNorm)):
                module.eval()
        return self

    def _is_frozen(self, name: str) -> bool:
        return any(name == one or name.startswith(f'{one}.') for one in self.frozen)
