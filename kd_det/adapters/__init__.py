"""Hint adaptation layers: they carry a student's feature into the teacher's feature space.

All are called as ``adapter(guided, target_size=None)``, the size being the hint's, and exist in training only.
:class:`GlobalContext`, through which FGD compares features, is trained beside them.
:func:`align_scale` trains nothing: it gives a student's feature the teacher's mean and deviation.
"""
from .align_scale import align_scale
from .conv import ConvAdapter
from .global_context import GlobalContext
from .identity import IdentityAdapter
from .linear import LinearAdapter
from .resize import match_size

__all__ = ['ConvAdapter', 'GlobalContext', 'IdentityAdapter', 'LinearAdapter', 'align_scale', 'match_size']
