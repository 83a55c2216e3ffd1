"""A second network that trains beside the student."""
from contextlib import nullcontext

import torch
from mmdet.registry import MODELS
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from ..errors import ConfigError
from ..plain import peer_config
from ..weights import is_of_both, load_whole, read_state_dict
from .normalisation import renormalisation
from .passes import Pass


class Peer:
    """A plain detector that learns at the same time.

    Its network trains with the student's optimizer: the detector that holds the peer keeps it in its module tree, and
    out of its ``state_dict`` (:class:`kd_det.training_only.TrainingOnly`).

    Args:
        config (str | dict): a config file (``mmdet::...`` too), a whole config or a detector's config.
        checkpoint (str | None): read when training begins; None: from scratch, or from its ``init_cfg``.
        cfg_options (dict | None): changes to its config, dotted keys.
        key (str): the config key, for messages.
        student_preprocessor (nn.Module): images are augmented, normalised and padded once, by the student's pipeline
            and preprocessor; the peer's mean, std and channel order are honoured.

    Raises:
        ConfigError: unknown keys; from :meth:`load`, a checkpoint of two networks.
        CheckpointMismatch: from :meth:`load`, ``checkpoint`` does not hold this network.
    """

    trains = True
    scale_factor = 1

    def __init__(self, config: str | dict, checkpoint: str | None = None, cfg_options: dict | None = None,
                 key: str = 'peer', student_preprocessor: nn.Module | None = None) -> None:
        self.key, self.checkpoint = key, checkpoint
        self.name = config if isinstance(config, str) else 'config given as a dict'
        cfg = peer_config(dict(config=config, cfg_options=cfg_options))
        # the student must begin as it does alone, so the peer draws its weights apart
        with torch.random.fork_rng(devices=[]), DefaultScope.overwrite_default_scope('mmdet'):
            self.model: nn.Module = MODELS.build(cfg)
        self.classes: tuple[str, ...] | None = None
        self.loaded = False
        self.shapes: dict = {}
        self.renormalise = renormalisation(student_preprocessor, getattr(self.model, 'data_preprocessor', None))

    def load(self) -> None:
        """Read the checkpoint, if there is one; once."""
        if self.loaded or not self.checkpoint:
            self.loaded = True
            return
        state, meta = read_state_dict(self.checkpoint)
        if is_of_both(meta):
            raise ConfigError(f'{self.key}.checkpoint: {self.checkpoint} is a checkpoint of two networks, whose '
                              'state_dict is the first; the second is in the file beside it with _peer in its name')
        load_whole(self.model, state, f'{self.key}.checkpoint {self.checkpoint}')
        self.classes = (meta.get('dataset_meta') or {}).get('classes')
        self.loaded = True

    def init_weights(self) -> None:
        """As its own config says; with a checkpoint, that."""
        if not self.checkpoint:
            with torch.random.fork_rng(devices=[]):
                self.model.init_weights()
        self.load()

    def open(self, inputs: Tensor, samples: list, whole: bool = True, rois: object = None) -> Pass:
        """The peer on this batch, as part of the training graph."""
        self.load()
        return Pass(self.model, self.prepare(inputs, samples), samples, self.shapes, whole, around=nullcontext,
                    grad=True)

    def prepare(self, inputs: Tensor, samples: list) -> Tensor:
        """(N, C, H, W), normalised as the peer was or will be."""
        if self.renormalise is None:
            return inputs
        return self.renormalise(inputs, [sample.metainfo['img_shape'] for sample in samples])

    def describe(self) -> list[str]:
        """Lines of the plan."""
        parameters = sum(p.numel() for p in self.model.parameters()) / 1e6
        lines = [f'second network ({self.key}) {type(self.model).__name__}, {type(self.model.bbox_head).__name__} '
                 f'({parameters:.2f} M parameters), {self.name}, weights '
                 f'{self.checkpoint or "of its own initialisation"}']
        if self.renormalise is not None:
            lines.append(f'inputs are re-normalised for the {self.key} (its mean, std or channel order differ)')
        return lines
