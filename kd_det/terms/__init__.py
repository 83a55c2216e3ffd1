"""What is taught: one term a file. See :class:`kd_det.terms.term.Term` for what they have in common."""
from .assignment import LabelAssignment
from .class_balanced import ClassBalancedDistillation
from .co_learning import CoLearning
from .cross_head import CrossHead
from .hint import Hint
from .ld import LD
from .prediction import BCKD
from .pseudo_label import PseudoLabel
from .rcnn import RCNNDistillation
from .rpn import RPNDistillation
from .soft_label import SoftLabel
from .term import Term

__all__ = ['BCKD', 'LD', 'ClassBalancedDistillation', 'CoLearning', 'CrossHead', 'Hint', 'LabelAssignment',
           'PseudoLabel', 'RCNNDistillation', 'RPNDistillation', 'SoftLabel', 'Term']
