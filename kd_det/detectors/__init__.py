"""The registered detectors: each is an MMDetection detector with a frozen teacher, or a peer, beside it."""
from .colad import CoLAD
from .distiller import DistillerMixin
from .faster_rcnn import FasterRCNNDistiller
from .lad import LADDistiller
from .soft_label import SoftLabelDistiller

DISTILLERS: dict[str, type] = {
    cls.__name__: cls for cls in (FasterRCNNDistiller, LADDistiller, SoftLabelDistiller, CoLAD)}


__all__ = ['DISTILLERS', 'CoLAD', 'DistillerMixin', 'FasterRCNNDistiller', 'LADDistiller', 'SoftLabelDistiller',
           ]
