"""MMDetection's own detectors that distil, ``LAD`` and LD's ``KnowledgeDistillationSingleStageDetector``, of the same
two networks as one of our configs.
"""
import kd_det  # noqa: F401  (prepares the stack before anything of MMDetection is imported)

# isort: split
from mmdet.models.dense_heads import GFLHead, PAAHead
from mmdet.registry import MODELS
from mmengine.config import Config, ConfigDict

from kd_det.config import load_config
from kd_det.plain import student_model


def teachers_of(cfg: Config) -> dict[str, tuple[ConfigDict, ConfigDict]]:
    """The teachers of a distil config by name: what it says of each, and the plain detector that this means."""
    named = {'teacher': cfg.model.get('teacher'), **(cfg.model.get('sources') or {})}
    return {name: (source, plain_detector(source)) for name, source in named.items() if source and 'config' in source}


def plain_detector(source: ConfigDict) -> ConfigDict:
    """A teacher's, without its own changes (``cfg_options``): as MMDetection knows it."""
    config = load_config(source.config) if isinstance(source.config, str) else source.config
    return student_model(config.model if 'model' in config else config)


def counterpart(cfg: Config) -> tuple[str, ConfigDict] | None:
    """Name and config of MMDetection's own detector for what a config distils; None where it has none."""
    model, terms = cfg.model, [term.get('type') for term in cfg.model.get('terms') or ()]
    if not model.get('teacher'):
        return None
    student, teacher = student_model(model), plain_detector(model.teacher)
    heads = [MODELS.get(one.bbox_head.type) for one in (student, teacher) if 'bbox_head' in one]
    if len(heads) == 2 and model.type == 'LADDistiller' and model.get('lad', True) and all(
            issubclass(head, PAAHead) for head in heads):
        return 'LAD', mmdet_lad(student, teacher, model.teacher.checkpoint)
    if len(heads) == 2 and 'LD' in terms and all(issubclass(head, GFLHead) for head in heads):
        return 'LD', mmdet_ld(student, teacher, model.teacher.checkpoint)
    return None


def mmdet_lad(student: ConfigDict, teacher: ConfigDict, checkpoint: str) -> ConfigDict:
    """``LAD``; its heads are ``LADHead``, with PAA's parameters."""
    for part in (student, teacher):
        part.bbox_head.type = 'LADHead'
    student.update(type='LAD', teacher_backbone=teacher.backbone, teacher_neck=teacher.neck,
                   teacher_bbox_head=teacher.bbox_head, teacher_ckpt=checkpoint)
    return student


def mmdet_ld(student: ConfigDict, teacher: ConfigDict, checkpoint: str) -> ConfigDict:
    """LD: its own head is ``LDHead``, with GFL's parameters; the loss of MMDetection's recipe."""
    student.bbox_head.update(type='LDHead', loss_ld=dict(type='KnowledgeDistillationKLDivLoss', loss_weight=0.25, T=10))
    student.update(type='KnowledgeDistillationSingleStageDetector', teacher_config=ConfigDict(model=teacher),
                   teacher_ckpt=checkpoint)
    return student
