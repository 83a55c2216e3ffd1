"""A student's feature at the scale of a teacher's, for layers of the teacher that go on with it."""
import torch
from torch import Tensor

from ..arguments import at_least_float32

EPSILON = 1e-8  # in both variances


def align_scale(student: Tensor, teacher: Tensor) -> Tensor:
    r"""Every channel of the student's map with the teacher's mean and standard deviation::

        y = (x - mean(x)) std(t) / std(x) + mean(t)      per channel, over batch and space (N, H, W)

    It is computed as a x + b with a = std(t) / std(x) and b = mean(t) - a mean(x), so that equal maps give exactly the
    map. The gradient runs through mean(x) and std(x); the teacher's are constants. Variances are over the N H W places
    (no Bessel correction), and 1e-8 is added to both. Being statistics of the batch, they depend on what else is in it,
    and four images are not two and two. Padding takes part on both sides.

    Args:
        student: (N, C, H, W).
        teacher: (N, C, h, w), of any size; detached.

    Returns:
        (N, C, H, W), in the student's dtype; computed in float32 or float64.

    Raises:
        ValueError: no maps, or other numbers of channels.

    Source: Wang et al., "CrossKD: Cross-Head Knowledge Distillation for Object Detection", CVPR 2024.
    """
    if student.dim() != 4 or teacher.dim() != 4 or student.shape[1] != teacher.shape[1]:
        raise ValueError(f'two maps (N, C, H, W) of equally many channels are expected, found {tuple(student.shape)} '
                         f'and {tuple(teacher.shape)}')
    x = at_least_float32(student)
    variance, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)                             # (1, C, 1, 1)
    wanted, centre = torch.var_mean(at_least_float32(teacher.detach()).to(x.dtype), (0, 2, 3), correction=0,
                                    keepdim=True)
    slope = ((wanted + EPSILON) / (variance + EPSILON)).sqrt()                                            # (1, C, 1, 1)
    return torch.addcmul(centre - slope * mean, x, slope).to(student.dtype)
