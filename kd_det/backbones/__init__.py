"""Third-party backbones as MMDetection's."""
from .timm_backbone import TimmBackbone
from .timm_maps import TimmMaps

__all__ = ['TimmBackbone', 'TimmMaps']
