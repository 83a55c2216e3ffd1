"""Multi-scale deformable attention (Zhu et al., Deformable DETR, eq. 3)."""
from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .precision import compute_dtype

__all__ = ['ms_deform_attn_backward', 'ms_deform_attn_forward']


def _attend(value: Tensor, shapes: Tensor, starts: Tensor, locations: Tensor,
            weights: Tensor) -> Tensor:
    """``sum_lk A_lk V_l(phi_l(p_k))`` with bilinear ``V_l``, zero outside; differentiable."""
    batch, _, heads, width = value.shape
    queries, points = locations.size(1), locations.size(4)
    grid = locations * 2 - 1  # (N, Q, M, L, P, 2), grid_sample's range
    total = value.new_zeros(batch * heads, width, queries)  # (N*M, D, Q)
    for level, ((height, length), start) in enumerate(zip(shapes.tolist(), starts.tolist())):
        plane = value[:, start:start + height * length]  # (N, HW, M, D)
        plane = plane.permute(0, 2, 3, 1).reshape(batch * heads, width, height, length)
        where = grid[:, :, :, level].transpose(1, 2).reshape(batch * heads, queries, points, 2)
        sampled = F.grid_sample(plane, where, mode='bilinear', padding_mode='zeros',
                                align_corners=False)  # (N*M, D, Q, P)
        weight = weights[:, :, :, level].transpose(1, 2).reshape(
            batch * heads, 1, queries, points)  # (N*M, 1, Q, P)
        total = total + (sampled * weight).sum(-1)  # (N*M, D, Q)
    return total.view(batch, heads * width, queries).transpose(1, 2).contiguous()  # (N, Q, M*D)


def ms_deform_attn_forward(value: Tensor, value_spatial_shapes: Tensor,
                           value_level_start_index: Tensor, sampling_locations: Tensor,
                           attention_weights: Tensor, im2col_step: int = 0) -> Tensor:
    """Attended values (N, Q, M * D).

    Args:
        value: (N, sum of H*W, M, D), levels one after the other.
        value_spatial_shapes: (L, 2) int64 of (H, W).
        value_level_start_index: (L,) int64, where each level begins in ``value``.
        sampling_locations: (N, Q, M, L, P, 2) of (x, y), 0 to 1 over the level's extent.
        attention_weights: (N, Q, M, L, P).
        im2col_step: memory hint of MMCV's kernel, unused.
    """
    dtype = compute_dtype(value)
    with torch.no_grad(), torch.autocast(value.device.type, enabled=False):
        return _attend(value.to(dtype), value_spatial_shapes, value_level_start_index,
                       sampling_locations.to(dtype), attention_weights.to(dtype)).to(value.dtype)


def ms_deform_attn_backward(value: Tensor, value_spatial_shapes: Tensor,
                            value_level_start_index: Tensor, sampling_locations: Tensor,
                            attention_weights: Tensor, grad_output: Tensor, grad_value: Tensor,
                            grad_sampling_loc: Tensor, grad_attn_weight: Tensor,
                            im2col_step: int = 0) -> None:
    """Add the gradients into ``grad_value``, ``grad_sampling_loc`` and ``grad_attn_weight``."""
    dtype = compute_dtype(value)
    inputs = [t.detach().to(dtype).requires_grad_()
              for t in (value, sampling_locations, attention_weights)]
    with torch.enable_grad(), torch.autocast(value.device.type, enabled=False):
        output = _attend(inputs[0], value_spatial_shapes, value_level_start_index, *inputs[1:])
        grads = torch.autograd.grad(output, inputs, grad_output.to(dtype))
    for total, grad in zip((grad_value, grad_sampling_loc, grad_attn_weight), grads):
        total.add_(grad)
