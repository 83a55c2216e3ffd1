"""The registered detectors: MMDetection's own, taught by sources through terms. The papers' methods are presets."""
from .colad import CoLAD
from .distiller import Distiller
from .faster_rcnn import FasterRCNNDistiller
from .lad import LADDistiller, SoftLabelDistiller

__all__ = ['CoLAD', 'Distiller', 'FasterRCNNDistiller', 'LADDistiller', 'SoftLabelDistiller']
