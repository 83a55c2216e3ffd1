"""Third-party backbones as MMDetection's."""
from .timm_backbone import TimmBackbone

__all__ = ['TimmBackbone']
