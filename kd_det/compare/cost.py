"""What a detector costs: parameters, multiply-adds, time.

All three refer to the whole ``model.test_step`` of the deployed detector with one image: normalisation and padding,
(copy to the device,) network, box decoding, NMS, boxes scaled back to the original image. Reading, decoding and
resizing the image come before it and are not included.
"""
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

CONVENTION = (
    'GFLOPs: multiply-adds / 1e9 (one multiply-add = 1, the convention of MMDetection) of '
    'convolutions (deformable ones through torchvision too), linear layers, matrix products and '
    'attention in the whole test step of one image at the test size, padding included; '
    'normalisation, activations, RoIAlign, interpolation and NMS are not counted')


def parameters(model: nn.Module) -> int:
    """Number of parameters, frozen ones included; buffers (batch-norm statistics) are not."""
    return sum(p.numel() for p in model.parameters())


def _deform_conv_flops(inputs, weight, *args, out_shape, **kwargs) -> int:
    # every weight (out, in / groups, kh, kw) is applied once per output position; 2 as in PyTorch
    batch, _, height, width = out_shape
    return 2 * batch * height * width * int(np.prod(weight))


@contextlib.contextmanager
def _plain_attention():
    """Attention as matrix products: PyTorch's fused kernels for inference are not all counted."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@torch.no_grad()
def multiply_adds(model: nn.Module, batches: Sequence[dict]) -> float:
    """Mean multiply-adds of ``model.test_step`` over the batches; see :data:`CONVENTION`.

    A two-stage detector's number depends on how many proposals an image gives, hence the mean over real images.
    """
    import torchvision  # noqa: F401  (registers torch.ops.torchvision)
    counter = FlopCounterMode(
        display=False, custom_mapping={torch.ops.torchvision.deform_conv2d: _deform_conv_flops})
    total = 0
    for batch in batches:
        with _plain_attention(), counter:
            model.test_step(batch)
        total += counter.get_total_flops()
    return total / 2 / len(batches)


def input_sizes(model: nn.Module, batches: Sequence[dict]) -> list[tuple[int, int]]:
    """The different (width, height) that reach the network, padding included, sorted."""
    shapes = {tuple(model.data_preprocessor(batch, False)['inputs'].shape[-2:])
              for batch in batches}
    return sorted((width, height) for height, width in shapes)


@dataclass
class Latency:
    """Times of single images in milliseconds, in the order they were taken."""
    times: list[float]

    @property
    def median(self) -> float:
        return float(np.median(self.times))

    @property
    def p90(self) -> float:
        """90th percentile, linearly interpolated."""
        return float(np.percentile(self.times, 90))

    @property
    def images_per_second(self) -> float:
        """Number of images by their total time; slow outliers count."""
        return 1000 * len(self.times) / sum(self.times)


@torch.no_grad()
def latencies(models: Sequence[nn.Module], batches: Sequence[Sequence[dict]], repeat: int,
              warmup: int = 5, device: torch.device | str = 'cpu',
              clock: Callable[[], float] = time.perf_counter,
              progress: Callable[[int, int], None] = lambda done, total: None) -> list[Latency]:
    """Time detectors side by side: A, B, C, A, B, C ..., every round on the next image.

    What else the machine does then disturbs all of them alike, and ratios stay meaningful.

    Args:
        models (Sequence[nn.Module]): in eval mode, on ``device``.
        batches (Sequence[Sequence[dict]]): for every model the same images, one a batch.
        repeat (int): rounds that are timed.
        warmup (int): rounds before them that are not.
        device (torch.device | str): CUDA is waited for before the clock is read.
        clock (Callable): seconds.
        progress (Callable): called with (rounds done, rounds in all).

    Raises:
        ValueError: ``repeat`` below 1.
    """
    if repeat < 1:
        raise ValueError(f'repeat={repeat}: at least one round must be timed')
    cuda = torch.device(device).type == 'cuda'
    times: list[list[float]] = [[] for _ in models]
    for done in range(-warmup, repeat):
        for model, images, mine in zip(models, batches, times):
            batch = images[done % len(images)]
            if cuda:
                torch.cuda.synchronize(device)
            start = clock()
            model.test_step(batch)
            if cuda:
                torch.cuda.synchronize(device)
            if done >= 0:
                mine.append(1000 * (clock() - start))
        progress(done + warmup + 1, repeat + warmup)
    return [Latency(mine) for mine in times]
