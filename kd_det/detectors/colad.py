"""Co-learning label-assignment distillation: two networks train together, the better assignment teaches both."""
import copy
from typing import Any

from torch import nn

from ..errors import ConfigError
from ..sources.build import build_network
from .distiller import Distiller


class CoLAD(Distiller):
    """Two complete dense detectors that train together without a trained teacher.

    A preset of :class:`kd_det.detectors.distiller.Distiller`: the second network is a source
    :class:`kd_det.sources.peer.Peer`, and the method a term :class:`kd_det.terms.co_learning.CoLearning`.

    ``predict`` and ``state_dict`` are the first network's, key for key. The second (the peer) is in ``parameters()``,
    so optimizer, DDP and ``.to()`` see it, and in checkpoints under ``checkpoint['kd_det']``;
    :class:`kd_det.engine.colad_hook.CoLADHook` also writes it as a plain checkpoint of its own, and evaluates it beside
    the first. With one seed the first network begins as its plain run does.

    Args:
        peer (dict): the second network: ``config`` (file, ``mmdet::...``, a whole config or a detector's),
            ``checkpoint`` (None: from scratch, or from its ``init_cfg``) and ``cfg_options``.
        criterion (dict), granularity (str | None), agreement_interval (int): see
            :class:`kd_det.terms.co_learning.CoLearning`.
        **first: ``student_type`` and the first network's own arguments.

    Raises:
        ConfigError: unknown keys or values; networks of other geometry, classes or kind of head.
        CheckpointMismatch: ``peer.checkpoint`` does not hold the peer.

    Source: Nguyen et al., "Improving Object Detection by Label Assignment Distillation", WACV 2022.
    """

    def __init__(self, *args: Any, peer: dict, criterion: dict | None = None, granularity: str | None = None,
                 agreement_interval: int = 10, **first: Any) -> None:
        if not isinstance(peer, dict) or not peer.get('config'):
            raise ConfigError(f'peer: found {peer!r}; config is needed, dict(config=..., checkpoint=None) is expected')
        self._preset = dict(peer=peer, criterion=criterion, granularity=granularity,
                            agreement_interval=agreement_interval)
        super().__init__(*args, **first)

    def _build_sources(self, teacher: dict | None, sources: dict | None) -> dict:
        found = super()._build_sources(teacher, sources)
        found['peer'] = build_network(self, 'peer', dict(self._preset['peer'], type='Peer'))
        return found

    def term_configs(self, cfgs: list[dict] | tuple) -> list[tuple[str, dict]]:
        own = {name: value for name, value in self._preset.items() if name != 'peer'}
        own.update(type='CoLearning', source='peer')
        return [('CoLAD', own), *super().term_configs(cfgs)]

    def first_alone(self) -> nn.Module:
        """A view of the first network: the same modules and parameters, without the peer."""
        view = copy.copy(self)
        vars(view)['_modules'] = {name: module for name, module in self._modules.items() if name != 'peer_network'}
        return view
