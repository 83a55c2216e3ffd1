"""Who teaches: a frozen teacher, live or recorded, or a peer that trains too. A source owns its network; terms
ask it through a Pass.
"""
from .ensemble import Ensemble
from .frozen import FrozenTeacher
from .passes import Pass
from .peer import Peer
from .recorded import RecordedTeacher

__all__ = ['Ensemble', 'FrozenTeacher', 'Pass', 'Peer', 'RecordedTeacher']
