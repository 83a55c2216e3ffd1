"""One augmentation, two resolutions: the student's view and the teacher's of the same image."""
import copy
from collections.abc import Sequence

import torch
from mmdet.registry import DATASETS, TRANSFORMS
from mmengine.dataset import BaseDataset, Compose

from ..errors import ConfigError
from ..random_state import cpu_random_state, set_cpu_random_state

# Transforms whose random draws do not depend on the image's size, so that a second run from the same random state
# makes the same decisions at another resolution.
SIZE_FREE = {'LoadImageFromFile', 'LoadAnnotations', 'FilterAnnotations', 'RandomFlip', 'PhotoMetricDistortion',
             'PackDetInputs'}
RESIZES = {'Resize', 'RandomResize', 'RandomChoiceResize', 'FixScaleResize', 'ResizeShortestEdge'}


def check_pipeline(pipeline: Sequence[dict], key: str) -> list[bool]:
    """Whether a pipeline can be repeated at another resolution; which of its steps resize.

    Args:
        key: where it stands, for the message.

    Raises:
        ConfigError: a transform whose draws depend on the image size; none that resizes.
    """
    names = [str(transform['type']).rsplit('.', 1)[-1] for transform in pipeline]
    for name in names:
        if name not in SIZE_FREE | RESIZES:
            raise ConfigError(f'{key}: {name} cannot be repeated at another resolution; usable are '
                              f'{sorted(SIZE_FREE | RESIZES)}')
    if not RESIZES & set(names):
        raise ConfigError(f'{key}: nothing resizes the image, so both views would have its own size; one of '
                          f'{sorted(RESIZES)} is expected')
    return [name in RESIZES for name in names]


class TwoViewDataset:
    """Delivers, with each sample of the student's data set, the teacher's larger view of the same augmented image.

    The student's pipeline runs as ever. From the first resize on it runs again, on the image as it was there, each
    transform from the random state it had before, with every resize directed to exactly ``scale_factor`` times the size
    that the student's reached: the teacher's view is made from the original pixels, never from the student's smaller
    image, and pixel (x, y) of the student is pixel (s x, s y) of the teacher in continuous coordinates. What comes
    before the first resize, reading and decoding above all, is the same for both and done once. The view travels as
    ``data_samples.teacher_view`` (uint8, (3, s h, s w)); boxes are those of the student.

    Args:
        dataset (dict): the student's train data set.
        scale_factor (int): sides of the teacher's view over the student's; equal to ``teacher.scale_factor``.

    Raises:
        ConfigError: a transform whose draws depend on the image size (crops, mosaics): its two views would differ; no
            transform that resizes: they would be equal.
    """

    def __init__(self, dataset: dict, scale_factor: int = 2) -> None:
        if not isinstance(scale_factor, int) or scale_factor < 2:
            raise ConfigError(f'TwoViewDataset.scale_factor: found {scale_factor!r}; a whole number of at least 2 is '
                              'expected (with equal resolutions the plain data set will do)')
        pipeline = dataset.get('pipeline')
        if pipeline is None:
            raise ConfigError(f'TwoViewDataset.dataset: {dataset.get("type")} has no pipeline of its own; wrap the '
                              'inner data set')
        self.is_resize = check_pipeline(pipeline, 'TwoViewDataset.dataset.pipeline')
        self.scale_factor = scale_factor
        self.dataset: BaseDataset = DATASETS.build({**dataset, 'pipeline': []})
        self.transforms = Compose(copy.deepcopy(list(pipeline))).transforms
        self.shared = self.is_resize.index(True)  # transforms before the first resize
        self.resize = TRANSFORMS.build(dict(type='Resize', scale=(1, 1), keep_ratio=False))

    @property
    def metainfo(self) -> dict:
        """That of the student's data set."""
        return self.dataset.metainfo

    def full_init(self) -> None:
        self.dataset.full_init()

    def get_data_info(self, idx: int) -> dict:
        return self.dataset.get_data_info(idx)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, idx: int) -> dict:
        while True:
            original = self.dataset.get_data_info(idx)
            for transform in self.transforms[:self.shared]:
                original = original and transform(original)
            # transforms change what they are given, and the second view begins from the same
            packed, trail = self._student_view(copy.deepcopy(original))
            if packed is not None:
                after = cpu_random_state()
                packed['data_samples'].teacher_view = self._teacher_view(original, trail)
                set_cpu_random_state(after)
                return packed
            # a pipeline may refuse an image (FilterAnnotations); MMDetection then draws another one
            idx = self.dataset._rand_another()

    def _student_view(self, results: dict | None) -> tuple[dict | None, list[tuple]]:
        """The packed sample, and for each transform the random state it began with and the size it left."""
        trail = []
        for transform in self.transforms[self.shared:]:
            if results is None:
                break
            state = cpu_random_state()
            results = transform(results)
            trail.append((state, results and results.get('img_shape')))
        return results, trail

    def _teacher_view(self, results: dict, trail: list[tuple]) -> torch.Tensor:
        """The same steps at the larger size: (3, s h, s w), uint8."""
        steps = list(zip(self.transforms, self.is_resize))[self.shared:]
        for (transform, is_resize), (state, shape) in zip(steps, trail):
            if is_resize:
                height, width = shape[:2]
                self.resize.scale = (width * self.scale_factor, height * self.scale_factor)
                results = self.resize(results)
            else:
                set_cpu_random_state(state)
                results = transform(results)
        return results['inputs']
