"""The frozen teacher: build, load whole, freeze, and feed with its own normalisation."""
import copy
import weakref
from collections.abc import Collection
from contextlib import AbstractContextManager
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.logging import print_log
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from ..arguments import boolean, fraction, non_negative_int, positive_int
from ..build import checked
from ..errors import CheckpointMismatch, ConfigError
from ..plain import detector_config
from ..weights import check_values, classes_of, digest, load_whole, mismatch, read_state_dict
from .casts import CastOnce
from .folding import fold_batch_norms
from .inheriting import Inheritance
from .layers import PROBE_SIDE, LayerShape, channels_of, probe_layers, run_through
from .normalisation import normalise, renormalisation
from .passes import Pass

PARTS = ('neck', 'rpn_head', 'roi_head', 'bbox_head')


class FrozenTeacher:
    """A trained detector that is only ever looked at.

    It is deliberately no ``nn.Module``: a detector that holds one gains no parameters, no ``state_dict`` entries, no
    optimizer state and no DDP buckets by it. Moves to another device or precision are passed on by the detector that
    holds it (:class:`kd_det.detectors.distiller.Distiller`). Deep copies (an EMA hook makes one) share it.

    The network is built at once, its weights are read when training begins (:meth:`load`): inference with a distil
    config never needs the teacher's checkpoint.

    Args:
        config (str | dict): a config file (``mmdet::...`` too), a whole config or a detector's config.
        checkpoint (str): file or URL. A teacher without training is an error, raised when training begins.
        strict (bool): refuse a checkpoint that does not fit key for key. ``False`` loads what fits and logs the rest
            as warnings.
        fuse_conv_bn (bool): fold batch norms into convolutions, except at layers that a hint names: faster, equal up to
            rounding; see :func:`kd_det.sources.folding.fold_batch_norms`.
        channels_last (bool): weights and images in PyTorch's channels-last memory format: faster convolutions on most
            CPUs and with mixed precision on GPUs, equal up to rounding.
        compile (bool): ``torch.compile`` the backbone and the neck. Off: it pays on GPUs with images of few sizes.
        scale_factor (int): the teacher sees each image at this multiple of the student's resolution (cross-resolution
            pairs; the train data set must then be a ``TwoViewDataset`` of the same factor).
        cfg_options (dict | None): changes to the teacher's config, dotted keys.
        check (int): before training, evaluate it on so many images of the evaluation set; 0: do not. See
            :class:`kd_det.engine.teacher_check_hook.TeacherCheckHook`.
        baseline (float | None): the box AP, in [0, 1), that the check should find at least.
        inherit (list[str] | None): parts with which the student begins, ``['neck', 'bbox_head']``; see
            :class:`kd_det.sources.inheriting.Inheritance`.
        key (str): the config key, for messages.
        student_preprocessor (nn.Module | None): the student's, to translate its normalised inputs.

    Raises:
        ConfigError: values that cannot be meant.
        CheckpointMismatch: from :meth:`load`, the checkpoint does not hold this network.
    """

    trains = False

    def __init__(self, config: str | dict, checkpoint: str | None = None, strict: bool = True,
                 fuse_conv_bn: bool = True, channels_last: bool = True, compile: bool = False, scale_factor: int = 1,
                 cfg_options: dict | None = None, check: int = 24, baseline: float | None = None,
                 inherit: list[str] | None = None, key: str = 'teacher',
                 student_preprocessor: nn.Module | None = None) -> None:
        if not isinstance(config, (str, dict)):
            raise ConfigError(f'{key}.config: found {config!r}; a config file or a dict is expected')
        if checkpoint is not None and not isinstance(checkpoint, str):
            raise ConfigError(f'{key}.checkpoint: found {checkpoint!r}; a file or URL is expected')
        for name, value in (('strict', strict), ('fuse_conv_bn', fuse_conv_bn), ('channels_last', channels_last),
                            ('compile', compile)):
            checked(f'{key}.{name}', boolean, value)
        checked(f'{key}.scale_factor', positive_int, scale_factor)
        self.check = checked(f'{key}.check', non_negative_int, check)
        self.baseline = None if baseline is None else checked(f'{key}.baseline', fraction, baseline)
        self.key, self.checkpoint, self.scale_factor, self.strict = key, checkpoint, scale_factor, strict
        self.fuse_conv_bn, self.channels_last, self.compile = fuse_conv_bn, channels_last, compile
        self.inheritance = None if inherit is None else Inheritance(f'{key}.inherit', inherit)
        self._owner: weakref.ref | None = None
        self.name = config if isinstance(config, str) else 'config given as a dict'
        self._network_cfg = detector_config(config, cfg_options, key)
        self.model: nn.Module = self._built()
        self.loaded = False
        self.classes: tuple[str, ...] | None = None
        self.weights_digest: str | None = None
        self.shapes: dict[str, LayerShape] = {}
        self.rpn_levels: list[int] | None = None  # where the RPN is wanted; None: everywhere
        self.folded = 0
        self._casts = CastOnce()
        self.renormalise = renormalisation(student_preprocessor, getattr(self.model, 'data_preprocessor', None))

    # -- before training --------------------------------------------------------------------------------------------
    def _built(self) -> nn.Module:
        """The network, without a training. No random number of the student's is drawn by it."""
        with torch.random.fork_rng(devices=[]), DefaultScope.overwrite_default_scope('mmdet'):
            model = MODELS.build(copy.deepcopy(self._network_cfg))
        return model.requires_grad_(False).eval()

    @property
    def network(self) -> nn.Module:
        """The trained network, for whoever runs it beside the training."""
        self.load()
        return self.model

    def probe(self, paths: Collection[str]) -> None:
        """Find out what the layers ``paths`` return; they are the ones that :meth:`open` makes available."""
        self.shapes = probe_layers(self.model, paths, PROBE_SIDE * self.scale_factor, self.rpn_levels)

    def load(self) -> None:
        """Read the weights, whole, and make the network fast; once.

        Raises:
            ConfigError: no checkpoint is given.
            CheckpointMismatch: it does not hold this network.
        """
        if self.loaded:
            return
        self._take_weights(self._read_weights())
        self.loaded = True

    def _read_weights(self) -> dict:
        """The checkpoint's state_dict; its class names and its digest are noted."""
        if not self.checkpoint:
            raise ConfigError(f'{self.key}.checkpoint: found {self.checkpoint!r}; give the file or URL of a trained '
                              'teacher, or --teacher CONFIG CHECKPOINT on the command line')
        try:
            state, meta = read_state_dict(self.checkpoint)
        except FileNotFoundError as error:
            raise ConfigError(f'{self.key}.checkpoint: there is no file {self.checkpoint!r}; give the file or URL of a '
                              'trained teacher, or --teacher CONFIG CHECKPOINT on the command line') from error
        self.classes, self.weights_digest = classes_of(meta), digest(state)
        return state

    def _take_weights(self, state: dict) -> None:
        """Weights into the network, and the network made fast."""
        if self.strict:
            load_whole(self.model, state, f'{self.key}.checkpoint {self.checkpoint}')
        else:
            self._load_what_fits(state)
        self.model.requires_grad_(False).eval()
        if self.inheritance is not None:
            self.inheritance.hold({k: v for k, v in self.model.state_dict().items() if k in state})
        if self.fuse_conv_bn:
            self.folded = len(fold_batch_norms(self.model, self._noise_probe(), self.shapes, self.key))
        if self.channels_last:
            self.model.to(memory_format=torch.channels_last)
        if self.compile:
            self.model.backbone.compile()
            if getattr(self.model, 'with_neck', False):
                self.model.neck.compile()

    def _noise_probe(self) -> Any:
        parameter = next(self.model.parameters())
        generator = torch.Generator('cpu').manual_seed(0)
        image = torch.randn(1, channels_of(self.model), 128, 128, generator=generator).to(parameter)

        def probe() -> list[Tensor]:
            with torch.no_grad():
                return run_through(self.model, image, PARTS)
        return probe

    def _load_what_fits(self, state: dict) -> None:
        missing, unexpected, shapes = mismatch(self.model, state)
        own = self.model.state_dict()
        fitting = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
        if not fitting:
            raise CheckpointMismatch(f'{self.key}.checkpoint {self.checkpoint}: not a single tensor fits the teacher')
        check_values(self.model, fitting, f'{self.key}.checkpoint {self.checkpoint}')
        self.model.load_state_dict(fitting, strict=False)
        if missing or unexpected or shapes:
            print_log(f'TEACHER LOADED IN PART ({self.key}.strict=False): {len(fitting)} of {len(own)} tensors; what '
                      f'is missing stays RANDOM.\n  missing: {missing}\n  unexpected: {unexpected}\n  other shape: '
                      f'{shapes}',
                      'current', level=30)

    # -- copies and moves -------------------------------------------------------------------------------------------
    def __deepcopy__(self, memo: dict) -> 'FrozenTeacher':
        return self

    def __getstate__(self) -> dict:
        return {**vars(self), '_owner': None}  # weak references cannot be pickled

    def belongs_to(self, detector: nn.Module) -> None:
        """``detector`` trains with this teacher; its moves count, those of its copies do not."""
        self._owner = weakref.ref(detector)

    def apply(self, fn: Any, detector: nn.Module) -> None:
        """Pass a device or dtype move of ``detector`` on to the network.

        A copy that an EMA hook keeps on another device must not take the teacher of the training along.
        """
        if self._follows(detector):
            self._casts.undo()
            self.model._apply(fn)

    def _follows(self, detector: nn.Module) -> bool:
        owner = self._owner() if self._owner is not None else None
        if owner is None:
            self.belongs_to(detector)
        return owner is None or owner is detector

    # -- the step ---------------------------------------------------------------------------------------------------
    def open(self, inputs: Tensor, samples: list, whole: bool = True, rois: Any = None) -> Pass:
        """What the teacher will say about this batch; nothing runs before it is asked.

        Args:
            inputs: (N, C, H, W), normalised and padded by the student's preprocessor.
            samples: N samples; in cross-resolution pairs each carries the teacher's own view.
            whole: whether something behind the backbone will be asked for.
            rois: gives the student's RoIs of each R-CNN stage, (R, 5) in the student's pixels.
        """
        self.load()

        def scaled() -> list[Tensor]:
            return [self.scale_rois(boxes) for boxes in rois()]
        return Pass(self.model, self.prepare(inputs, samples), samples, self.shapes, whole, self.rpn_levels,
                    scaled if rois is not None else None, self._precision, scale=self.scale_factor)

    def _device_type(self) -> str:
        return next(self.model.parameters()).device.type

    def _precision(self) -> AbstractContextManager:
        return self._casts.around(self.model, self._device_type())

    @torch.no_grad()
    def prepare(self, inputs: Tensor, samples: list) -> Tensor:
        """The batch as the teacher wants to see it: (N, C, s H, s W), normalised as the teacher was trained; padding as
        its preprocessor pads. Cross-resolution views (``teacher_view``, uint8, (C, s h, s w)) are taken out of the
        samples.
        """
        if self.scale_factor != 1:
            inputs = self._own_views(inputs, samples)
        elif self.renormalise is not None:
            inputs = self.renormalise(inputs, [s.metainfo['img_shape'] for s in samples])
        return inputs.to(memory_format=torch.channels_last) if self.channels_last else inputs

    def _own_views(self, inputs: Tensor, samples: list) -> Tensor:
        scale, preprocessor = self.scale_factor, self.model.data_preprocessor
        height, width = inputs.shape[-2] * scale, inputs.shape[-1] * scale
        batch = inputs.new_full((*inputs.shape[:2], height, width),
                                float(getattr(preprocessor, 'pad_value', 0)))  # (N, C, sH, sW)
        for i, sample in enumerate(samples):
            view = sample.get('teacher_view')
            if view is None:
                raise ConfigError(f'{self.key}.scale_factor={scale}: the samples carry no view for the teacher; make '
                                  'the train data set dict(type="TwoViewDataset", '
                                  f'scale_factor={scale}, dataset=<the student\'s data set>)')
            h, w = sample.metainfo['img_shape'][:2]
            if view.shape[-2:] != (h * scale, w * scale):
                raise ConfigError(f'{self.key}.scale_factor={scale}: the student sees {(h, w)} pixels, the teacher\'s '
                                  f'view has {tuple(view.shape[-2:])}; TwoViewDataset must use the same scale_factor')
            batch[i, :, :h * scale, :w * scale] = normalise(view.to(inputs.device), preprocessor)
        return batch

    def scale_rois(self, rois: Tensor) -> Tensor:
        """The student's RoIs (R, 5) of (image, x1, y1, x2, y2) in the teacher's pixels."""
        factor = self.scale_factor
        return rois if factor == 1 else rois * rois.new_tensor([1, factor, factor, factor, factor])

    def describe(self) -> list[str]:
        """Lines of the plan."""
        made = [text for flag, text in ((self.fuse_conv_bn, f'{self.folded} batch norms folded' if self.loaded
                                         else 'batch norms will be folded'),
                                        (self.channels_last, 'channels-last'), (self.compile, 'compiled')) if flag]
        lines = [f'{self.key} {type(self.model).__name__} '
                 f'({sum(p.numel() for p in self.model.parameters()) / 1e6:.2f} M parameters), {self.name}, '
                 f'weights {self.checkpoint}' + (f' ({", ".join(made)})' if made else '')
                 + ('' if self.loaded else ', read when training begins')]
        if self.scale_factor != 1:
            lines.append(f'{self.key} sees each image at {self.scale_factor} times the student\'s resolution')
        elif self.renormalise is not None:
            lines.append(f'inputs are re-normalised for the {self.key} (its mean, std or channel order differ)')
        if self.inheritance is not None:
            lines.append(self.inheritance.describe())
        return lines
