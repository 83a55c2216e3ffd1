"""Co-learning label-assignment distillation: two networks train together, the better assignment teaches both."""
import copy
from typing import Any

import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.detectors import SingleStageDetector
from mmdet.models.utils import unpack_gt_instances
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from ..assignment.co_learning import co_learning
from ..assignment.replay import replay
from ..errors import ConfigError
from ..plain import peer_config
from ..teacher import renormalisation
from ..training_only import TrainingOnly
from ..weights import is_of_both, load_whole, read_state_dict
from .dense_outputs import check_same_priors

PEER_PREFIX = 'peer.'


class CoLAD(SingleStageDetector):
    r"""Two complete dense detectors that train together without a trained teacher.

    Both score the batch. Per decision a criterion says whose costs are the better ones, and both
    networks' own, unmodified losses use the assignment that the chosen costs give::

        L = L_first(first; assignment) + L_second(second; assignment)

    (PAA's own box loss too, weighted by each network's IoU; LAD's averages over positives.) No
    gradient of one loss reaches the other network. ``predict`` and ``state_dict`` are the first
    network's, key for key. The second (the peer) is in ``parameters()``, so optimizer, DDP and
    ``.to()`` see it, and in checkpoints under ``checkpoint['kd_det']``;
    :class:`kd_det.engine.colad_hook.CoLADHook` also writes it as a plain checkpoint of its own, and
    evaluates it beside the first.

    Losses of the first network are logged under their own names, the second's as ``peer.<name>``;
    ``first_teaches`` is the share of the batch's decisions that the first network took, out of
    ``decisions``. With one seed the first network begins as its plain run does.

    Args:
        peer (dict): the second network: ``config`` (file, ``mmdet::...``, a whole config or a
            detector's), ``checkpoint`` (None: from scratch, or from its ``init_cfg``) and
            ``cfg_options`` (changes to its config, dotted keys). Images are augmented and padded once,
            by the first network's pipeline and preprocessor; the peer's mean, std and channel order
            are honoured.
        criterion (dict): see :mod:`kd_det.assignment.criteria`.
        granularity (str | None): see :func:`kd_det.assignment.co_learning.co_learning`. None: the
            paper's code for PAA, per ground truth and pyramid level.
        **first: the first network's own arguments.

    Raises:
        ConfigError: unknown keys or values; networks of other geometry, classes or kind of head.
        CheckpointMismatch: ``peer.checkpoint`` does not hold the peer.

    Source: Nguyen et al., "Improving Object Detection by Label Assignment Distillation", WACV 2022.
    """

    distill_keys = ('peer', 'criterion', 'granularity')
    deployed_type = 'SingleStageDetector'

    def __init__(self, *args: Any, peer: dict, criterion: dict | None = None, granularity: str | None = None,
                 **first: Any) -> None:
        super().__init__(*args, **first)
        cfg = peer_config(peer)
        self.peer_name = peer['config'] if isinstance(peer['config'], str) else 'config given as a dict'
        self.peer_checkpoint = peer.get('checkpoint')
        # the first network must begin as it does alone, so the peer draws its weights apart
        with torch.random.fork_rng(devices=[]), DefaultScope.overwrite_default_scope('mmdet'):
            network = MODELS.build(cfg)
        self._check_pair(network)
        self.peer_classes = None
        if self.peer_checkpoint:
            state, meta = read_state_dict(self.peer_checkpoint)
            if is_of_both(meta):
                raise ConfigError(f'peer.checkpoint: {self.peer_checkpoint} is a checkpoint of two networks, whose '
                                  'state_dict is the first; the second is in the file beside it with _peer in its name')
            load_whole(network, state, f'peer.checkpoint {self.peer_checkpoint}')
            self.peer_classes = (meta.get('dataset_meta') or {}).get('classes')
        self.peer_network = TrainingOnly([network])
        self.criterion_cfg = dict(criterion or dict(type='StdMeanCriterion'))
        self.co_learning = co_learning((self.bbox_head, network.bbox_head), _criterion(self.criterion_cfg), granularity)
        self._renormalise = renormalisation(self.data_preprocessor, network.data_preprocessor)
        self.distill_terms: list[str] = []  # the peer's losses, known after the first step

    @property
    def peer(self) -> nn.Module:
        """The second network, a plain detector."""
        return self.peer_network[0]

    # -- build ------------------------------------------------------------------------------------------------------
    def _check_pair(self, network: nn.Module) -> None:
        if not isinstance(network, SingleStageDetector) or isinstance(network, CoLAD):
            raise ConfigError(f'peer.config: {type(network).__name__} is no single-stage detector; CoLAD needs two with '
                              'a bbox_head each')
        head, theirs = self.bbox_head, network.bbox_head
        if head.num_classes != theirs.num_classes:
            raise ConfigError(f'bbox_head.num_classes: {head.num_classes}, the peer has {theirs.num_classes}')
        for key, one in (('bbox_head', head), ('peer.config: bbox_head', theirs)):
            if type(one).loss is not BaseDenseHead.loss:
                raise ConfigError(f'{key}: {type(one).__name__} has a loss() of its own; CoLAD computes losses from '
                                  'forward() and loss_by_feat()')
        if hasattr(head, 'prior_generator') and hasattr(theirs, 'prior_generator'):
            check_same_priors(head, theirs, ('first network', 'second'))

    def init_weights(self) -> None:
        """Both networks', each as its own config says; a peer with a checkpoint keeps its weights."""
        super().init_weights()
        if not self.peer_checkpoint:
            with torch.random.fork_rng(devices=[]):
                self.peer.init_weights()

    # -- the step ---------------------------------------------------------------------------------------------------
    def loss(self, batch_inputs: Tensor, batch_data_samples: list) -> dict:
        """Both networks' losses under one assignment, and who made it.

        Args:
            batch_inputs: (N, 3, H, W), normalised by the first network's preprocessor.
            batch_data_samples: N samples with ``gt_instances``, boxes xyxy in the padded, augmented image.

        Raises:
            AssignmentMismatch: the networks see other priors or candidates.
            ValueError: costs are not finite.
        """
        networks = (self, self.peer)
        inputs = (batch_inputs, self._for_peer(batch_inputs, batch_data_samples))
        truths = tuple(unpack_gt_instances(batch_data_samples))
        truths = truths[0], truths[2], truths[1]  # ground truths, metas, ignored
        arguments, calls = [], []
        for network, images in zip(networks, inputs):
            outputs = network.bbox_head(network.extract_feat(images))
            arguments.append((*outputs, *truths))
            calls.append(self.co_learning.ask(network.bbox_head, arguments[-1], len(batch_data_samples)))
        assignments, shares = self.co_learning.decide(*calls)
        losses: dict[str, Any] = {}
        for prefix, network, own, asked in zip(('', PEER_PREFIX), networks, arguments, calls):
            with replay(network.bbox_head, assignments, targets=asked[0].targets if asked else None):
                found = network.bbox_head.loss_by_feat(*own)
            losses.update({prefix + name: value for name, value in found.items()})
        self.distill_terms = [name for name in losses if name.startswith(PEER_PREFIX)]
        if shares is not None:
            losses['first_teaches'] = shares.first_teaches
            losses['decisions'] = shares.first_teaches.new_tensor(float(shares.decisions))
        return losses

    def _for_peer(self, inputs: Tensor, samples: list) -> Tensor:
        if self._renormalise is None:
            return inputs
        return self._renormalise(inputs, [sample.metainfo['img_shape'] for sample in samples])

    # -- what the hook asks -----------------------------------------------------------------------------------------
    def first_alone(self) -> nn.Module:
        """A view of the first network: the same modules and parameters, without the peer."""
        view = copy.copy(self)
        vars(view)['_modules'] = {name: module for name, module in self._modules.items() if name != 'peer_network'}
        return view

    def distill_state(self) -> dict:
        """What only training needs, for ``checkpoint['kd_det']``."""
        return dict(peer=self.peer.state_dict())

    def load_distill_state(self, state: dict) -> None:
        """Restore :meth:`distill_state`; strict."""
        if 'peer' not in state:
            raise ConfigError(f'--resume: the checkpoint\'s kd_det entry holds {sorted(state)}, not the peer of a CoLAD '
                              'run; to start from its weights use --cfg-options load_from=CHECKPOINT')
        load_whole(self.peer, state['peer'], 'the second network (kd_det.peer) of the checkpoint')

    def plan(self) -> list[str]:
        """What learns from what, one line each."""
        peer, count = self.peer, lambda model: f'{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters'
        criterion = ', '.join(f'{key}={value}' for key, value in self.criterion_cfg.items() if key != 'type')
        per = dict(level='ground truth and pyramid level', object='ground truth', image='image')
        lines = [f'first network {type(self.bbox_head).__name__} ({count(self.first_alone())}): state_dict, prediction',
                 f'second network (peer) {type(peer).__name__}, {type(peer.bbox_head).__name__} ({count(peer)}), '
                 f'{self.peer_name}, weights {self.peer_checkpoint or "of its own initialisation"}',
                 f'assignment: {self.criterion_cfg["type"]}({criterion}), one decision per '
                 f'{per[self.co_learning.granularity]}; both networks receive it']
        if self._renormalise is not None:
            lines.append('inputs are re-normalised for the peer (its mean, std or channel order differ)')
        return lines


def _criterion(cfg: dict) -> Any:
    known = sorted(name for name in TASK_UTILS.module_dict if name.endswith('Criterion'))
    if not isinstance(cfg, dict) or 'type' not in cfg:
        raise ConfigError(f'criterion: found {cfg!r}; a dict with a type is expected, one of {known}')
    if isinstance(cfg['type'], str) and TASK_UTILS.get(cfg['type']) is None:
        raise ConfigError(f'criterion.type: found {cfg["type"]!r}; registered are {known}')
    try:
        return TASK_UTILS.build(cfg)
    except (TypeError, ValueError) as error:
        raise ConfigError(f'criterion: {error}') from error
