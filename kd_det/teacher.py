"""The frozen teacher: build, load whole, freeze, and feed with its own normalisation."""
import copy
import weakref
from typing import Any

import torch
from mmdet.registry import MODELS
from mmengine.logging import print_log
from mmengine.model import BaseDataPreprocessor
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from .errors import CheckpointMismatch, ConfigError
from .plain import detector_config
from .weights import load_whole, mismatch, read_state_dict

TEACHER_KEYS = {'config', 'checkpoint', 'strict', 'fuse_conv_bn', 'channels_last', 'scale_factor', 'cfg_options'}


class FrozenTeacher:
    """A trained detector that is only ever looked at.

    It is deliberately no ``nn.Module``: a detector that holds one gains no parameters, no ``state_dict`` entries, no
    optimizer state and no DDP buckets by it. Moves to another device or precision are passed on by the detector that
    holds it (:class:`kd_det.detectors.distiller.DistillerMixin`). Deep copies (an EMA hook makes one) share it.

    Args:
        config (str | dict): a config file (``mmdet::...`` too), a whole config or a detector's config.
        checkpoint (str): file or URL. There is no default: a teacher without training is an error.
        strict (bool): refuse a checkpoint that does not fit key for key. ``False`` loads what fits and logs the rest
            as warnings.
        fuse_conv_bn (bool): fold batch norms into convolutions: faster, equal up to rounding. ``fused`` then names the
            convolutions whose output is now the batch norm's; they can be no hint layers.
        channels_last (bool): weights and images in PyTorch's channels-last memory format: faster convolutions on most
            CPUs and with mixed precision on GPUs, equal up to rounding.
        scale_factor (int): the teacher sees each image at this multiple of the student's resolution (cross-resolution
            pairs; the train data set must then be a ``TwoViewDataset`` of the same factor).
        cfg_options (dict | None): changes to the teacher's config, dotted keys.
        student_preprocessor (nn.Module | None): the student's, to translate its normalised inputs.

    Raises:
        ConfigError: unknown keys, no checkpoint.
        CheckpointMismatch: the checkpoint does not hold this network.
    """

    def __init__(self, config: str | dict, checkpoint: str | None = None, strict: bool = True,
                 fuse_conv_bn: bool = False, channels_last: bool = False, scale_factor: int = 1,
                 cfg_options: dict | None = None, student_preprocessor: nn.Module | None = None) -> None:
        if not checkpoint:
            raise ConfigError(f'teacher.checkpoint: found {checkpoint!r}; give the file or URL of a trained teacher, '
                              'or --teacher CONFIG CHECKPOINT on the command line')
        if not isinstance(scale_factor, int) or scale_factor < 1:
            raise ConfigError(f'teacher.scale_factor: found {scale_factor!r}; a whole number of at least 1 is expected')
        self.checkpoint, self.scale_factor = checkpoint, scale_factor
        self._owner: weakref.ref | None = None
        self.name = config if isinstance(config, str) else 'config given as a dict'
        model_cfg = detector_config(config, cfg_options, 'teacher')
        # Building draws initial weights; the student's must not depend on whether there is a teacher.
        with torch.random.fork_rng(devices=[]), DefaultScope.overwrite_default_scope('mmdet'):
            self.model: nn.Module = MODELS.build(model_cfg)
        state, meta = read_state_dict(checkpoint)
        self.classes = _class_names(meta)
        if strict:
            load_whole(self.model, state, f'teacher.checkpoint {checkpoint}')
        else:
            self._load_what_fits(state)
        self.model.requires_grad_(False)
        self.model.eval()
        self.fused: set[str] = set()
        if fuse_conv_bn:
            self.fused = fuse_batch_norms(self.model)
        self.memory_format = torch.channels_last if channels_last else torch.preserve_format
        if channels_last:
            self.model.to(memory_format=torch.channels_last)
        self._renormalise = renormalisation(student_preprocessor, self.model.data_preprocessor)

    @classmethod
    def build(cls, cfg: dict, student_preprocessor: nn.Module | None) -> 'FrozenTeacher':
        """From the ``teacher`` dict of a distil config."""
        if not isinstance(cfg, dict):
            raise ConfigError(f'teacher: found {cfg!r}; dict(config=..., checkpoint=...) is expected')
        unknown = set(cfg) - TEACHER_KEYS
        if unknown or 'config' not in cfg:
            raise ConfigError(f'teacher: unknown keys {sorted(unknown)}, found {sorted(cfg)}; config and checkpoint are '
                              f'needed, {sorted(TEACHER_KEYS)} are known')
        return cls(**cfg, student_preprocessor=student_preprocessor)

    def _load_what_fits(self, state: dict) -> None:
        missing, unexpected, shapes = mismatch(self.model, state)
        own = self.model.state_dict()
        fitting = {k: v for k, v in state.items() if k in own and own[k].shape == v.shape}
        if not fitting:
            raise CheckpointMismatch(f'teacher.checkpoint {self.checkpoint}: not a single tensor fits the teacher')
        self.model.load_state_dict(fitting, strict=False)
        if missing or unexpected or shapes:
            print_log(f'TEACHER LOADED IN PART (teacher.strict=False): {len(fitting)} of {len(own)} tensors; what is '
                      f'missing stays RANDOM.\n  missing: {missing}\n  unexpected: {unexpected}\n  other shape: {shapes}',
                      'current', level=30)

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
        owner = self._owner() if self._owner is not None else None
        if owner is None:
            self.belongs_to(detector)
        if owner is None or owner is detector:
            self.model._apply(fn)

    @torch.no_grad()
    def prepare(self, inputs: Tensor, batch_data_samples: list) -> Tensor:
        """The batch as the teacher wants to see it.

        Args:
            inputs: (N, 3, H, W), normalised and padded by the student's preprocessor.
            batch_data_samples: the samples; in cross-resolution pairs each carries the teacher's own view
                (``teacher_view``, uint8, (3, s h, s w)), which is taken out of it.

        Returns:
            (N, 3, s H, s W), normalised as the teacher was trained; padding as its preprocessor pads.
        """
        if self.scale_factor != 1:
            inputs = self._own_views(inputs, batch_data_samples)
        elif self._renormalise is not None:
            inputs = self._renormalise(inputs, [s.metainfo['img_shape'] for s in batch_data_samples])
        return inputs.to(memory_format=self.memory_format)

    def _own_views(self, inputs: Tensor, batch_data_samples: list) -> Tensor:
        scale, preprocessor = self.scale_factor, self.model.data_preprocessor
        height, width = inputs.shape[-2] * scale, inputs.shape[-1] * scale
        batch = inputs.new_full((len(inputs), 3, height, width), float(preprocessor.pad_value))  # (N, 3, sH, sW)
        for i, sample in enumerate(batch_data_samples):
            view = sample.pop('teacher_view', None)
            if view is None:
                raise ConfigError(f'teacher.scale_factor={scale}: the samples carry no view for the teacher; make the '
                                  'train data set dict(type="TwoViewDataset", '
                                  f'scale_factor={scale}, dataset=<the student\'s data set>)')
            h, w = sample.metainfo['img_shape'][:2]
            if view.shape[-2:] != (h * scale, w * scale):
                raise ConfigError(f'teacher.scale_factor={scale}: the student sees {(h, w)} pixels, the teacher\'s view '
                                  f'has {tuple(view.shape[-2:])}; TwoViewDataset must use the same scale_factor')
            batch[i, :, :h * scale, :w * scale] = normalise(view.to(inputs.device), preprocessor)
        return batch


def fuse_batch_norms(model: nn.Module) -> set[str]:
    """Fold the batch norms of a network that will never train into the convolutions before them, in place.

    A convolution that several batch norms follow (RTMDet shares one over its levels) becomes one for each of them.

    Returns:
        set[str]: paths of the convolutions that were folded into.
    """
    from mmcv.cnn import fuse_conv_bn
    seen: set[int] = set()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Conv2d):
                if id(child) in seen:
                    setattr(parent, name, copy.deepcopy(child))
                seen.add(id(child))
    before = {name: module.weight for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    fuse_conv_bn(model).eval().requires_grad_(False)
    return {name for name, module in model.named_modules()
            if isinstance(module, nn.Conv2d) and module.weight is not before[name]}


def normalise(image: Tensor, preprocessor: nn.Module) -> Tensor:
    """A raw image (3, H, W) as the preprocessor would hand it to its detector, without padding."""
    if preprocessor._channel_conversion:
        image = image.flip(0)
    image = image.float()
    return (image - preprocessor.mean) / preprocessor.std if preprocessor._enable_normalize else image


def _statistics(preprocessor: nn.Module) -> tuple[Tensor, Tensor]:
    """Mean and std in the preprocessor's own channel order, (3,) each, on the CPU."""
    if getattr(preprocessor, '_enable_normalize', False):
        return preprocessor.mean.flatten().cpu().float(), preprocessor.std.flatten().cpu().float()
    return torch.zeros(3), torch.ones(3)


class _Renormalisation:
    """x_t[c] = a[c] * x_s[p(c)] + b[c] inside the image; the teacher's pad value around it."""

    def __init__(self, student: nn.Module, teacher: nn.Module) -> None:
        student_mean, student_std = _statistics(student)
        teacher_mean, teacher_std = _statistics(teacher)
        self.flip = bool(student._channel_conversion) != bool(teacher._channel_conversion)
        if self.flip:
            student_mean, student_std = student_mean.flip(0), student_std.flip(0)
        self.gain = (student_std / teacher_std).view(1, 3, 1, 1)
        self.bias = ((student_mean - teacher_mean) / teacher_std).view(1, 3, 1, 1)
        self.pad_value = float(teacher.pad_value)

    def __call__(self, inputs: Tensor, img_shapes: list[tuple[int, int]]) -> Tensor:
        batch = inputs.flip(1) if self.flip else inputs
        batch = batch * self.gain.to(batch) + self.bias.to(batch)  # (N, 3, H, W)
        for image, (height, width) in zip(batch, (shape[:2] for shape in img_shapes)):
            image[:, height:] = self.pad_value
            image[:, :, width:] = self.pad_value
        return batch


def renormalisation(student: nn.Module | None, teacher: nn.Module) -> _Renormalisation | None:
    """From one preprocessor's normalised, padded batch to the other's; None when both do the same."""
    if student is None or type(teacher) is BaseDataPreprocessor or type(student) is BaseDataPreprocessor:
        return None
    found = _Renormalisation(student, teacher)
    same = (not found.flip and bool((found.gain == 1).all()) and bool((found.bias == 0).all())
            and found.pad_value == float(student.pad_value))
    return None if same else found


def _class_names(meta: dict) -> tuple[str, ...] | None:
    """The class names that MMEngine (``dataset_meta``) or MMCV 1 (``CLASSES``) wrote into the checkpoint."""
    names = (meta.get('dataset_meta') or {}).get('classes') or (meta.get('dataset_meta') or {}).get('CLASSES') \
        or meta.get('CLASSES')
    return tuple(names) if names else None
