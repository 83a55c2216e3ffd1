"""Images without labels: what trained detectors say about them, as a COCO annotation file to look at and train on."""
from .folder import label_folder
from .fusion import fuse
from .labelling import Labeller, Teacher
from .thresholds import ClassThreshold, choose, table

__all__ = ['ClassThreshold', 'Labeller', 'Teacher', 'choose', 'fuse', 'label_folder', 'table']
