"""The registered detectors: each is an MMDetection detector with a frozen teacher, or a peer, beside it."""
from copy import deepcopy

from mmengine.config import ConfigDict

from .colad import CoLAD
from .distiller import DistillerMixin
from .faster_rcnn import FasterRCNNDistiller
from .lad import LADDistiller
from .soft_label import SoftLabelDistiller

DISTILLERS: dict[str, type] = {
    cls.__name__: cls for cls in (FasterRCNNDistiller, LADDistiller, SoftLabelDistiller, CoLAD)}


def student_model(model: dict) -> ConfigDict:
    """The plain detector that a distil config trains: without what distillation added. Others come back unchanged.

    Of a CoLAD config it is the first network.

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


__all__ = ['DISTILLERS', 'CoLAD', 'DistillerMixin', 'FasterRCNNDistiller', 'LADDistiller', 'SoftLabelDistiller',
           'student_model']
