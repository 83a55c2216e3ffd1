"""The registered detectors: each is an MMDetection detector with a frozen teacher beside it."""
from copy import deepcopy

from mmengine.config import ConfigDict

from .distiller import DistillerMixin
from .faster_rcnn import FasterRCNNDistiller
from .lad import LADDistiller
from .soft_label import SoftLabelDistiller

DISTILLERS: dict[str, type[DistillerMixin]] = {
    cls.__name__: cls for cls in (FasterRCNNDistiller, LADDistiller, SoftLabelDistiller)}


def student_model(model: dict) -> ConfigDict:
    """The plain detector that a distil config trains: without what distillation added. Others come back unchanged.

    Args:
        model (dict): the ``model`` of a config.

    Returns:
        ConfigDict: a copy that MMDetection builds without kd_det, and that the checkpoint's state_dict fits strictly.
    """
    model = ConfigDict(deepcopy(dict(model)))
    distiller = DISTILLERS.get(str(model.get('type')).removeprefix('mmdet.'))
    if distiller is not None:
        model.type = distiller.deployed_type
        for key in distiller.distill_keys:
            model.pop(key, None)
    return model


__all__ = ['DISTILLERS', 'DistillerMixin', 'FasterRCNNDistiller', 'LADDistiller', 'SoftLabelDistiller',
           'student_model']
