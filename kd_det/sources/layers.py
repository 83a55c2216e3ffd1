"""Layers of any detector by their path: what has to run for them, and what they return."""
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from mmdet.models.detectors import DetectionTransformer
from mmdet.models.roi_heads import SparseRoIHead
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ..errors import ConfigError
from ..heads.dense_outputs import training_format
from ..tap import tap_layer

PROBE_SIDE = 256  # pixels of the test image that finds the shapes of layers; P7 is 2x2 there


def check_path(key: str, model: nn.Module, path: Any) -> None:
    """Raises :class:`ConfigError`, with the layers there are, unless ``path`` names a layer of ``model``."""
    try:
        if not isinstance(path, str) or not path:
            raise AttributeError
        model.get_submodule(path)
    except AttributeError:
        known = [name for name, _ in model.named_modules() if name and name.count('.') <= 1]
        hint = ''
        if path == 'neck' and hasattr(model, 'backbone'):
            hint = '; its maps are the backbone\'s, \'backbone\' names them'
        raise ConfigError(f'{key}: {type(model).__name__} has no layer {path!r}{hint}; it has {known}') from None


def part_of(path: str) -> str:
    """The part of a detector that a layer belongs to: 'backbone', 'neck', 'rpn_head', 'roi_head', 'bbox_head' ..."""
    return path.split('.')[0]


def flatten_levels(outputs: Iterable) -> list[Tensor]:
    """The tensors of one layer, in order: one per pyramid level, from one call or from one call per level."""
    levels: list[Tensor] = []
    for output in outputs:
        if isinstance(output, (list, tuple)):
            levels.extend(flatten_levels(output))
        elif isinstance(output, Tensor):
            levels.append(output)
    return levels


@dataclass
class LayerShape:
    """What a layer returned for a test image.

    Attributes:
        levels: shapes, (1, C, h, w) for maps, (1, L, C) for tokens, (R, C) for vectors.
        overwritten: a later in-place operation (an activation) changes the output; it has to be copied to be kept.
    """

    levels: list[tuple[int, ...]] = field(default_factory=list)
    overwritten: bool = False


class Captured:
    """Outputs of layers while a network runs: ``with Captured(model, paths) as found: ...; found.levels(path)``.

    Args:
        model: the network.
        shapes: what :func:`probe_layers` found, by path.
    """

    def __init__(self, model: nn.Module, shapes: dict[str, LayerShape]) -> None:
        self.model, self.shapes = model, shapes
        self._outputs: dict[str, list] = {path: [] for path in shapes}

    @contextmanager
    def listening(self) -> Iterator['Captured']:
        with ExitStack() as taps:
            for path, shape in self.shapes.items():
                taps.enter_context(tap_layer(self.model.get_submodule(path), self._keeper(path, shape)))
            yield self

    def _keeper(self, path: str, shape: LayerShape) -> Callable[[Any], None]:
        def keep(output: Any) -> None:
            for level in flatten_levels([output]):
                kept = level.clone() if shape.overwritten else level
                self._outputs[path].append((kept, kept._version))
        return keep

    def levels(self, path: str) -> list[Tensor]:
        """The layer's outputs in this step, as it returned them; none of a stage of a cascade that ended earlier.

        Raises:
            RuntimeError: it did not run, ran otherwise than for the test image, or something wrote over its output.
        """
        found = self._outputs[path]
        if any(tensor._version != version for tensor, version in found):
            raise RuntimeError(f'layer {path!r}: a later operation wrote over its output; name the layer behind it')
        wanted = len(self.shapes[path].levels)
        if not found and part_of(path) == 'roi_head':
            return []
        if wanted and len(found) != wanted:
            raise RuntimeError(f'layer {path!r} of {type(self.model).__name__} gave {len(found)} tensors in this step, '
                               f'{wanted} when it was examined')
        return [tensor for tensor, _ in found]

    def forget(self) -> None:
        """Let go of all tensors."""
        for found in self._outputs.values():
            found.clear()


def fake_samples(inputs: Tensor) -> list[DetDataSample]:
    """Samples without objects, for networks that look at image sizes (DETR)."""
    height, width = inputs.shape[-2:]
    meta = dict(img_shape=(height, width), batch_input_shape=(height, width), pad_shape=(height, width),
                ori_shape=(height, width), scale_factor=(1.0, 1.0))
    samples = []
    for _ in range(len(inputs)):
        sample = DetDataSample(metainfo=meta)
        sample.gt_instances = InstanceData(bboxes=inputs.new_zeros(0, 4),
                                           labels=torch.zeros(0, dtype=torch.long, device=inputs.device))
        sample.ignored_instances = InstanceData(bboxes=inputs.new_zeros(0, 4))
        samples.append(sample)
    return samples


def box_heads(model: nn.Module) -> list[nn.Module]:
    """The R-CNN box heads of a two-stage detector, one per cascade stage."""
    heads = model.roi_head.bbox_head
    return list(heads) if isinstance(heads, nn.ModuleList) else [heads]


def box_forward(model: nn.Module, stage: int, features: tuple, rois: Tensor) -> dict:
    """What R-CNN stage ``stage`` says of ``rois`` (R, 5)."""
    if isinstance(model.roi_head.bbox_head, nn.ModuleList):
        return model.roi_head._bbox_forward(stage, features, rois)
    return model.roi_head._bbox_forward(features, rois)


def head_features(model: nn.Module, features: tuple, samples: list) -> tuple:
    """Runs what lies between neck and predictors of a DETR-type detector; others have nothing there.

    Networks that draw random numbers on the way (DINO's denoising queries) draw them aside.
    """
    devices = [features[0].device] if features[0].is_cuda else []
    with torch.random.fork_rng(devices=devices):
        return model.forward_transformer(features, samples)


@torch.no_grad()
def probe_layers(model: nn.Module, paths: Collection[str], side: int = PROBE_SIDE,
                 rpn_levels: list[int] | None = None) -> dict[str, LayerShape]:
    """Run ``model`` on a black image as far as the layers reach, in eval mode, and note what they return.

    The random state and every module's mode are as before afterwards.

    Args:
        model: any detector.
        paths: layers.
        side: of the image, pixels.
        rpn_levels: levels at which the RPN is run; None: all.

    Raises:
        ConfigError: a layer does not run in a training step of this detector, or returns no tensors; the detector
            cannot be run, because its parts do not fit each other.
    """
    if not paths:
        return {}
    shapes = {path: LayerShape() for path in paths}
    seen: dict[str, list[tuple[Tensor, int]]] = {path: [] for path in paths}
    device = next(model.parameters()).device
    image = torch.zeros(1, channels_of(model), side, side, device=device)
    with torch.random.fork_rng(devices=[]), eval_mode(model), ExitStack() as taps:
        for path in paths:
            taps.enter_context(tap_layer(model.get_submodule(path), lambda output, found=seen[path]: found.extend(
                (level, level._version) for level in flatten_levels([output]))))
        try:
            run_through(model, image, {part_of(path) for path in paths}, rpn_levels)
        except RuntimeError as error:  # maps that do not fit the next layer
            raise ConfigError(f'{type(model).__name__} cannot be run on an image of {side}x{side} pixels: '
                              f'{" ".join(str(error).split())}') from error
    for path, found in seen.items():
        shapes[path].levels = [tuple(level.shape) for level, _ in found]
        shapes[path].overwritten = any(level._version != version for level, version in found)
    return shapes


def run_through(model: nn.Module, image: Tensor, parts: Collection[str],
                rpn_levels: list[int] | None = None) -> list[Tensor]:
    """One forward pass as far as ``parts`` ask for; returns what the network said on the way, flat."""
    said: list[Any] = []
    features = model.extract_feat(image)
    said.append(features)
    parts = set(parts) - {'backbone', 'neck'}
    if 'rpn_head' in parts and hasattr(model, 'rpn_head') and hasattr(model.rpn_head, 'rpn_conv'):
        said.append(model.rpn_head(features if rpn_levels is None else [features[j] for j in rpn_levels]))
    if 'roi_head' in parts and hasattr(model, 'roi_head') and not isinstance(model.roi_head, SparseRoIHead):
        side = float(image.shape[-1])
        roi = image.new_tensor([[0.0, 0.0, 0.0, side / 2, side / 2]])  # (1, 5)
        for stage in range(len(box_heads(model))):
            results = box_forward(model, stage, features, roi)
            said.append([results.get('cls_score'), results.get('bbox_pred')])
    rest = parts - {'rpn_head', 'roi_head'}
    if rest and isinstance(model, DetectionTransformer):
        inputs = head_features(model, features, fake_samples(image))
        said.append(inputs.get('hidden_states'))
        if 'bbox_head' in rest:
            model.bbox_head(**{name: value for name, value in inputs.items()
                               if name in ('hidden_states', 'references')})
    elif 'bbox_head' in rest and hasattr(model, 'bbox_head'):
        with training_format(model.bbox_head):
            said.append(model.bbox_head(features))
    return flatten_levels(said)


def channels_of(model: nn.Module) -> int:
    """Channels of the images that ``model`` sees."""
    mean = getattr(getattr(model, 'data_preprocessor', None), 'mean', None)
    if mean is not None and mean.numel() > 1:
        return mean.numel()
    first = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    if first is None:
        return 3
    focus = type(getattr(getattr(model, 'backbone', None), 'stem', None)).__name__ == 'Focus'  # space to depth, 4 to 1
    return first.in_channels * first.groups // (4 if focus else 1) if first.groups == 1 else 3


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode for the block; each module's own mode afterwards (frozen stages are in eval mode within training)."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
