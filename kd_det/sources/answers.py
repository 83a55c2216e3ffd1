"""What a teacher says of one image, as arrays for the disk, and back as the tensors of a batch."""
from collections.abc import Callable, Sequence

import numpy as np
import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ..errors import ConfigError
from .layers import LayerShape, part_of
from .passes import Pass

COLOURS = 'colours'
HALF_MAX = float(np.finfo(np.float16).max)
WHOLE = ('rpn', 'dense', 'rcnn')
"""What can be asked of a network beside its layers; see :meth:`kd_det.terms.term.Term.asks`."""


def kept_for(asks: Sequence[str]) -> list[str]:
    """What has to be recorded for what is asked: the RoI head answers for the student's RoIs, which are others in each
    step, so that it runs on recorded features.
    """
    kept = [ask for ask in asks if ask not in ('rcnn',) and part_of(ask) != 'roi_head']
    needs_rois = len(kept) < len(asks)
    return list(dict.fromkeys(kept + ['features'] * needs_rois))


def runs_roi_head(asks: Sequence[str]) -> bool:
    """Whether the RoI head is wanted, with its weights."""
    return 'features' in kept_for(asks)


def labelled(path: str, rpn_levels: Sequence[int] | None) -> str:
    """Under which name a layer is kept; one of the RPN's gives as many maps as there are levels at which it ran."""
    at = '' if rpn_levels is None or part_of(path) != 'rpn_head' else '@' + ','.join(map(str, rpn_levels))
    return f'layer/{path}{at}'


def of_pass(found: Pass, kept: Sequence[str], key: str) -> dict[str, Tensor]:
    """All that is to be recorded of a batch: name -> (N, ...).

    Names are ``rpn/LEVEL/0`` (scores) and ``/1`` (deltas), ``dense/OUTPUT/LEVEL``, ``features/LEVEL``,
    ``layer/PATH/LEVEL`` (:func:`labelled`).

    Raises:
        ConfigError: something is not one tensor for each image.
    """
    answers: dict[str, Tensor] = {}
    for ask in kept:
        if ask == 'rpn':
            for level, pair in found.rpn().items():
                answers.update({f'rpn/{level}/{i}': tensor for i, tensor in enumerate(pair)})
        elif ask == 'dense':
            for i, output in enumerate(found.dense()):
                answers.update({f'dense/{i}/{level}': tensor for level, tensor in enumerate(output)})
        elif ask == 'features':
            extractor = found.model.roi_head.bbox_roi_extractor
            extractor = extractor[0] if isinstance(extractor, nn.ModuleList) else extractor
            answers.update({f'features/{i}': level for i, level in enumerate(found.features[:extractor.num_inputs])})
        else:
            label = labelled(ask, found.rpn_levels)
            answers.update({f'{label}/{i}': level for i, level in enumerate(found.layer(ask))})
    for name, tensor in answers.items():
        if not isinstance(tensor, Tensor) or tensor.dim() == 0 or len(tensor) != len(found.samples):
            shape = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise ConfigError(f'{key}.record: {name.rsplit("/", 1)[0]} gives {shape} for {len(found.samples)} images; '
                              'only what is one tensor for each image can be recorded')
    return answers


def apart(answers: dict[str, Tensor]) -> list[dict[str, np.ndarray]]:
    """A batch's answers, image by image, in half precision; what is too large for it in single precision.

    One tensor under two names (the neck is a hint's layer, and what RoIs are cut out of) stays one array.
    """
    made: dict[tuple, np.ndarray] = {}
    named: dict[str, np.ndarray] = {}
    for name, tensor in answers.items():
        same = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
        if same not in made:
            value = tensor.detach()
            if value.is_floating_point():
                fits = float(value.abs().max()) <= HALF_MAX if value.numel() else True
                value = value.to(torch.float16 if fits else torch.float32)
            made[same] = np.ascontiguousarray(value.cpu().numpy())
        named[name] = made[same]
    images: list[dict[str, np.ndarray]] = []
    for i in range(len(next(iter(named.values())))):
        rows = {id(array): array[i] for array in named.values()}
        images.append({name: rows[id(array)] for name, array in named.items()})
    return images


def not_finite(image: dict[str, np.ndarray]) -> str | None:
    """The first answer with an inf or nan in it."""
    return next((name for name, array in image.items() if not np.isfinite(array).all()), None)


def together(images: list[dict[str, np.ndarray]], names: Sequence[str], device: torch.device) -> dict[str, Tensor]:
    """The answers of several images as tensors (N, ...), float32, on ``device``."""
    found: dict[str, Tensor] = {}
    for name in names:
        arrays = [torch.from_numpy(image[name]) for image in images]
        if device.type == 'cpu' and arrays[0].is_floating_point():  # stacked and converted in one go
            found[name] = torch.empty(len(arrays), *arrays[0].shape)
            for place, array in zip(found[name], arrays):
                place.copy_(array)
        else:
            batch = torch.stack(arrays).to(device)
            found[name] = batch.float() if batch.is_floating_point() else batch
    return found


def names_for(kept: Sequence[str], image: dict[str, np.ndarray], shapes: dict[str, LayerShape],
              rpn_levels: list[int] | None) -> list[str] | None:
    """The names under which everything that is wanted stands in an image's answers; None where something is missing."""
    names: list[str] = []
    for ask in kept:
        if ask == 'rpn' and rpn_levels is not None:
            wanted = [f'rpn/{level}/{i}' for level in rpn_levels for i in (0, 1)]
        elif ask in (*WHOLE, 'features'):
            wanted = [name for name in image if name.startswith(f'{ask}/')] or [ask]
        else:
            wanted = [f'{labelled(ask, rpn_levels)}/{i}' for i in range(len(shapes[ask].levels))]
        if any(name not in image for name in wanted):
            return None
        names += wanted
    return names


class RecordedPass(Pass):
    """A pass whose answers come from a record; only a RoI head runs.

    Args:
        answers: of the batch, as :func:`of_pass` names them.
        boxes: gives the recorded boxes of each image, in the samples' pixels; None: nobody asks for them.
        **network: as for :class:`kd_det.sources.passes.Pass`; of ``model`` only the RoI head need have weights.
    """

    runs_by_image = False  # features are those of the record

    def __init__(self, answers: dict[str, Tensor], boxes: Callable[[], list[InstanceData]] | None = None,
                 **network: object) -> None:
        network['shapes'] = {path: shape for path, shape in network['shapes'].items() if part_of(path) == 'roi_head'}
        super().__init__(**network)
        self._answers, self._boxes = answers, boxes

    def _levels(self, prefix: str) -> list[Tensor]:
        found = [self._answers[name] for name in self._answers if name.startswith(prefix + '/')]
        if not found:
            raise RuntimeError(f'the record was not asked for {prefix!r}; a term asks for more than its asks() says')
        return found

    @property
    def features(self) -> tuple[Tensor, ...]:
        """Those that RoIs are cut out of."""
        return tuple(self._levels('features'))

    def rpn(self) -> dict[int, tuple[Tensor, Tensor]]:
        levels = dict.fromkeys(int(name.split('/')[1]) for name in self._answers if name.startswith('rpn/'))
        return {level: tuple(self._levels(f'rpn/{level}')) for level in levels}

    def dense(self) -> tuple:
        outputs = dict.fromkeys(name.rsplit('/', 1)[0] for name in self._answers if name.startswith('dense/'))
        return tuple(self._levels(output) for output in outputs)

    def detections(self) -> list[InstanceData]:
        """Those of the whole images, where the samples show them."""
        if self._boxes is None:
            raise RuntimeError('the record was not asked for boxes; a term asks for more than its asks() says')
        found = self.once('boxes', self._boxes)
        if self.scale != 1:
            found = [InstanceData(**{**dict(image.items()), 'bboxes': image.bboxes * self.scale}) for image in found]
        return found

    def distributions(self) -> list[Tensor]:
        found = self.detections()
        if not all('distribution' in image for image in found):
            raise ConfigError(f'{type(self.model).__name__}: the record has no class distributions of its boxes, which '
                              'are not known for this detector; learn from boxes and scores alone (soft=None)')
        return [image.distribution for image in found]

    def layer(self, path: str) -> list[Tensor]:
        return super().layer(path) if part_of(path) == 'roi_head' else self._levels(labelled(path, self.rpn_levels))
