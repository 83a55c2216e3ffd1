"""Deformable convolution v1 (Dai et al., 2017) and v2 with modulation (Zhu et al., 2019)."""
from __future__ import annotations

import torch
import torchvision.ops  # noqa: F401  registers torch.ops.torchvision
from torch import Tensor

from .precision import compute_dtype

__all__ = [
    'deform_conv_backward_input',
    'deform_conv_backward_parameters',
    'deform_conv_forward',
    'modulated_deform_conv_backward',
    'modulated_deform_conv_forward',
]


def _operands(*tensors: Tensor) -> list[Tensor]:
    dtype = compute_dtype(*tensors)
    return [t.detach().to(dtype).contiguous() for t in tensors]


def _safe(offset: Tensor) -> Tensor:
    """Offsets without NaN and infinity, which make torchvision's kernel read foreign memory.

    They become a place outside any map, where a sample counts as 0, as in MMCV's kernel.
    """
    far = 2.0 ** 24
    return offset.nan_to_num(nan=far, posinf=far, neginf=-far)  # (N, 2 * taps, OH, OW)


def _no_mask(offset: Tensor) -> Tensor:
    """torchvision wants some mask tensor even where it does not use one."""
    return offset.new_zeros((offset.size(0), 1))  # (N, 1)


def _v1_geometry(kW: int, kH: int, dW: int, dH: int, padW: int, padH: int, dilationW: int,
                 dilationH: int, group: int, deformable_group: int) -> tuple:
    return dH, dW, padH, padW, dilationH, dilationW, group, deformable_group, False


def deform_conv_forward(input: Tensor, weight: Tensor, offset: Tensor, output: Tensor,
                        columns: Tensor, ones: Tensor, *, im2col_step: int = 0,
                        **geometry: int) -> None:
    """Fill ``output`` (N, O, OH, OW).

    Args:
        input: (N, C, H, W).
        weight: (O, C / group, kH, kW).
        offset: (N, deformable_group * 2 * kH * kW, OH, OW), (dy, dx) pairs in input pixels.
        columns, ones: empty scratch tensors, unused.
        im2col_step: memory hint of MMCV's kernel, unused.
    """
    if output.numel() == 0:
        return
    x, w, o = _operands(input, weight, offset)
    output.copy_(torch.ops.torchvision.deform_conv2d(
        x, w, _safe(o), _no_mask(o), w.new_zeros(w.size(0)), *_v1_geometry(**geometry)))


def _v1_gradients(grad_output: Tensor, input: Tensor, weight: Tensor, offset: Tensor,
                  geometry: dict[str, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by input, weight and offset."""
    g, x, w, o = _operands(grad_output, input, weight, offset)
    return torch.ops.torchvision._deform_conv2d_backward(
        g, x, w, _safe(o), _no_mask(o), w.new_zeros(w.size(0)), *_v1_geometry(**geometry))[:3]


def deform_conv_backward_input(input: Tensor, offset: Tensor, grad_output: Tensor,
                               grad_input: Tensor, grad_offset: Tensor, weight: Tensor,
                               columns: Tensor, *, im2col_step: int = 0,
                               **geometry: int) -> None:
    """Add the gradients into ``grad_input`` and ``grad_offset``.

    torchvision computes the weight's gradient in the same call. It is left in ``columns``, the scratch tensor that MMCV
    hands to :func:`deform_conv_backward_parameters` next.
    """
    if grad_output.numel() == 0:
        return
    by_input, by_weight, by_offset = _v1_gradients(grad_output, input, weight, offset, geometry)
    grad_input.add_(by_input)
    grad_offset.add_(by_offset)
    columns.resize_(by_weight.shape).copy_(by_weight)


def deform_conv_backward_parameters(input: Tensor, offset: Tensor, grad_output: Tensor,
                                    grad_weight: Tensor, columns: Tensor, ones: Tensor, *,
                                    scale: float = 1, im2col_step: int = 0,
                                    **geometry: int) -> None:
    """Add ``scale`` times the weight's gradient into ``grad_weight``."""
    if grad_output.numel() == 0:
        return
    if columns.shape == grad_weight.shape:  # left by deform_conv_backward_input
        by_weight = columns.clone()
        columns.resize_(0)
    else:
        # the gradient by the weight does not depend on its values
        by_weight = _v1_gradients(grad_output, input, torch.zeros_like(grad_weight), offset,
                                  geometry)[1]
    grad_weight.add_(by_weight, alpha=scale)


def _v2_geometry(kernel_h: int, kernel_w: int, stride_h: int, stride_w: int, pad_h: int,
                 pad_w: int, dilation_h: int, dilation_w: int, group: int,
                 deformable_group: int) -> tuple:
    return (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group,
            True)


def _as_read(name: str, t: Tensor, channels: int, size: torch.Size) -> Tensor:
    """``t`` as MMCV's v2 kernel reads it: the first ``channels * OH * OW`` numbers of each image.

    The kernel takes the row length from the output and never looks at the shape of the offsets and the mask. DyHead
    relies on it: it gives a coarser level the offsets of the finer one, and its published weights were trained with
    what the kernel makes of them.
    """
    count = channels * size[0] * size[1]
    if t[0].numel() < count:
        raise ValueError(
            f'modulated_deform_conv: {name} has shape {tuple(t.shape)}, but an output of '
            f'{size[0]} x {size[1]} needs {channels} channels of at least that size')
    return t.flatten(1)[:, :count].reshape(-1, channels, *size)  # (N, channels, OH, OW)


def _add_as_read(total: Tensor, grad: Tensor) -> None:
    """Add the gradient of :func:`_as_read`'s result into the gradient of its argument."""
    if grad.shape == total.shape:
        total.add_(grad)
        return
    rest = total[0].numel() - grad[0].numel()
    total.add_(torch.nn.functional.pad(grad.flatten(1), (0, rest)).view(total.shape))


def _v2_operands(input: Tensor, weight: Tensor, bias: Tensor, offset: Tensor, mask: Tensor,
                 size: torch.Size, with_bias: bool, geometry: dict[str, int]) -> tuple:
    """Arguments of torchvision's op; ``size`` is that of the output, (OH, OW)."""
    x, w, o, m, b = _operands(input, weight, offset, mask, bias)
    samples = geometry['deformable_group'] * geometry['kernel_h'] * geometry['kernel_w']
    o = _as_read('offset', _safe(o), 2 * samples, size)  # (N, 2 * samples, OH, OW)
    m = _as_read('mask', m, samples, size)  # (N, samples, OH, OW)
    return (x, w, o, m, b if with_bias else w.new_zeros(w.size(0)), *_v2_geometry(**geometry))


def modulated_deform_conv_forward(input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor,
                                  offset: Tensor, mask: Tensor, output: Tensor, columns: Tensor,
                                  *, with_bias: bool, **geometry: int) -> None:
    """Fill ``output`` (N, O, OH, OW).

    Args:
        mask: (N, deformable_group * kH * kW, OH, OW), the factor of each sample.
        bias: (O,), or empty where ``with_bias`` is false.
        others: as in :func:`deform_conv_forward`.

    Raises:
        ValueError: offset or mask are smaller than the output needs.
    """
    if output.numel() == 0:
        return
    output.copy_(torch.ops.torchvision.deform_conv2d(*_v2_operands(
        input, weight, bias, offset, mask, output.shape[2:], with_bias, geometry)))


def modulated_deform_conv_backward(input: Tensor, weight: Tensor, bias: Tensor, ones: Tensor,
                                   offset: Tensor, mask: Tensor, columns: Tensor,
                                   grad_input: Tensor, grad_weight: Tensor, grad_bias: Tensor,
                                   grad_offset: Tensor, grad_mask: Tensor, grad_output: Tensor,
                                   *, with_bias: bool, **geometry: int) -> None:
    """Add the gradients into the five ``grad_*`` tensors (``grad_bias`` only with a bias)."""
    if grad_output.numel() == 0:
        return
    operands = _v2_operands(input, weight, bias, offset, mask, grad_output.shape[2:], with_bias,
                            geometry)
    by_input, by_weight, by_offset, by_mask, by_bias = (
        torch.ops.torchvision._deform_conv2d_backward(
            grad_output.to(operands[0].dtype).contiguous(), *operands))
    grad_input.add_(by_input)
    grad_weight.add_(by_weight)
    _add_as_read(grad_offset, by_offset)
    _add_as_read(grad_mask, by_mask)
    if with_bias:
        grad_bias.add_(by_bias)
