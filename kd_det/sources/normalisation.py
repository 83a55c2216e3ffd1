"""From one preprocessor's normalised, padded batch to the other's."""
import torch
from mmengine.model import BaseDataPreprocessor
from torch import Tensor, nn

from ..errors import ConfigError


class Renormalisation:
    """x_t[c] = a[c] * x_s[p(c)] + b[c] inside the image, with a = std_s / std_t and b = (mean_s - mean_t) / std_t; the
    teacher's pad value around it. p exchanges the order of channels where one network wants RGB and the other BGR.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module) -> None:
        channels = max(len(_mean(student)), len(_mean(teacher)), 1)
        student_mean, student_std = _statistics(student, channels)
        teacher_mean, teacher_std = _statistics(teacher, channels)
        self.flip = _flips(student) != _flips(teacher)
        if self.flip:
            student_mean, student_std = student_mean.flip(0), student_std.flip(0)
        self.gain = (student_std / teacher_std).view(1, -1, 1, 1)
        self.bias = ((student_mean - teacher_mean) / teacher_std).view(1, -1, 1, 1)
        self.pad_value = float(getattr(teacher, 'pad_value', 0))

    @property
    def is_identity(self) -> bool:
        """Whether pixels inside images stay as they are."""
        return not self.flip and bool((self.gain == 1).all()) and bool((self.bias == 0).all())

    def __call__(self, inputs: Tensor, img_shapes: list[tuple[int, int]]) -> Tensor:
        """(N, C, H, W) of the student's -> the same of the teacher's; ``img_shapes`` are (h, w) without padding."""
        batch = inputs.flip(1) if self.flip else inputs
        batch = batch * self.gain.to(batch) + self.bias.to(batch)  # (N, C, H, W)
        for image, (height, width) in zip(batch, (shape[:2] for shape in img_shapes)):
            image[:, height:] = self.pad_value
            image[:, :, width:] = self.pad_value
        return batch


def renormalisation(student: nn.Module | None, teacher: nn.Module | None) -> Renormalisation | None:
    """What turns the student's batch into the teacher's; None when both do the same, or one does nothing that is known
    (a preprocessor that neither normalises nor pads).

    Raises:
        ConfigError: the two normalise different numbers of channels.
    """
    if any(one is None or type(one) is BaseDataPreprocessor for one in (student, teacher)):
        return None
    counts = {len(_mean(one)) for one in (student, teacher) if len(_mean(one)) > 1}
    if len(counts) > 1:
        raise ConfigError(f'data_preprocessor.mean: {len(_mean(student))} channels, the teacher\'s has '
                          f'{len(_mean(teacher))}; both see the same images')
    found = Renormalisation(student, teacher)
    same_padding = found.pad_value == float(getattr(student, 'pad_value', 0))
    return None if found.is_identity and same_padding else found


def normalise(image: Tensor, preprocessor: nn.Module) -> Tensor:
    """A raw image (C, H, W) as the preprocessor would hand it to its detector, without padding."""
    if _flips(preprocessor):
        image = image.flip(0)
    image = image.float()
    if not getattr(preprocessor, '_enable_normalize', False):
        return image
    return (image - preprocessor.mean) / preprocessor.std


def _flips(preprocessor: nn.Module) -> bool:
    return bool(getattr(preprocessor, '_channel_conversion', False))


def _mean(preprocessor: nn.Module) -> Tensor:
    if getattr(preprocessor, '_enable_normalize', False):
        return preprocessor.mean.flatten()
    return torch.zeros(1)


def _statistics(preprocessor: nn.Module, channels: int) -> tuple[Tensor, Tensor]:
    """Mean and std in the preprocessor's own channel order, (channels,) each, on the CPU."""
    if getattr(preprocessor, '_enable_normalize', False):
        mean, std = (getattr(preprocessor, name).flatten().cpu().float() for name in ('mean', 'std'))
        return mean.expand(channels), std.expand(channels)
    return torch.zeros(channels), torch.ones(channels)
