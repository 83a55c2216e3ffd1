"""The three configs: teacher.py, student.py, distilled.py, each a short file on the user's own."""
import os.path as osp
from typing import Any

from mmengine.config import Config

from ..errors import ConfigError
from ..mydata.prepare import Prepared
from ..shipped import FOLDER, PREFIX, config_file
from .anchors import Scale
from .config_text import config_text, merged, nested
from .request import Request
from .resolution import LOADERS, pipeline_of
from .schedule import SWITCHES, Schedule


class Places:
    """Where things are below the folder of the whole, absolute, so that every command runs from anywhere."""

    def __init__(self, out: str) -> None:
        self.out = osp.abspath(out)

    def __call__(self, *names: str) -> str:
        return osp.join(self.out, *names)

    def config(self, name: str) -> str:
        return self('configs', f'{name}.py')


def base_of(path: str) -> str:
    """A config's name as another one's ``_base_``."""
    if '::' in path:
        return path
    found = osp.abspath(config_file(path))
    shipped = osp.join(str(FOLDER), 'configs', '')
    return PREFIX + found.removeprefix(shipped) if found.startswith(shipped) else found


def data_key(prepared: Prepared, places: Places) -> dict[str, Any]:
    """The key ``data`` of all three."""
    files = {part: f'{part}.json' for part in prepared.parts}
    return dict(root=places('data'), classes=list(prepared.classes), **files, images=prepared.root)


def _common(cfg: Config, request: Request, data: dict) -> dict[str, Any]:
    imports = list((cfg.get('custom_imports') or {}).get('imports') or [])
    imports = [*imports, *(['kd_det'] if 'kd_det' not in imports else [])]
    made: dict[str, Any] = dict(custom_imports=dict(imports=imports),
                                data=data, randomness=dict(seed=request.seed))
    for key in ('val_evaluator', 'test_evaluator'):
        if str((cfg.get(key) or {}).get('type') if isinstance(cfg.get(key), dict) else '') == 'CocoMetric':
            made[key] = dict(classwise=True)
    return made


def _mixed(request: Request) -> dict[str, Any]:
    return dict(optim_wrapper=dict(type='AmpOptimWrapper', loss_scale='dynamic')) if request.amp else {}


def _anchors(scale: Scale | None, places: bool) -> dict[str, Any]:
    return dict(model=nested({scale.path: scale.value})) if scale is not None and places else {}


def student_text(request: Request, cfg: Config, data: dict, plan: Schedule, scale: Scale | None) -> str:
    """The plain student: the user's config, the data set, its schedule and perhaps its anchors."""
    content = merged(dict(_base_=base_of(request.student), **_common(cfg, request, data)), plan.changes)
    content = merged(content, _anchors(scale, scale is not None and scale.changed))
    if request.student_size is not None:
        sets = {key: dict(dataset=dict(_delete_=True, **_plain(cfg[key].dataset))) for key in LOADERS if cfg.get(key)}
        content = merged(content, sets)
    content = merged(merged(content, _mixed(request)), nested(request.options))
    return config_text(f'The plain student. {plan.text}.', content)


def teacher_text(request: Request, cfg: Config, student: Config, data: dict, plan: Schedule | None, scale: Scale | None,
                 start: str) -> str:
    """The teacher: as it comes (``plan`` None), or trained on the images as they will reach it.

    Args:
        cfg: the teacher's config.
        student: the student's, resolved on the data set; of the size that the teacher sees.
        scale: the student's anchors, for both.
        start: the weights that fine-tuning starts from; without a checkpoint its config's own count.
    """
    content: dict[str, Any] = dict(_base_=base_of(request.teacher), **_common(cfg, request, data))
    if plan is None:
        return config_text('The teacher, as it comes.', content)
    content = merged(content, plan.changes)
    if request.checkpoint is not None:
        content['load_from'] = start
        content['teacher_weights'] = identity(request.checkpoint)
        content = merged(content, _without_own_weights(cfg.model))
    content = merged(content, _anchors(scale, scale is not None))
    if _pipelines(cfg) != _pipelines(student):
        content.update((key, dict(_delete_=True, **_plain(student[key]))) for key in LOADERS if student.get(key))
        content['train_dataloader']['batch_size'] = plan.batch
        if (hooks := _switching(plan.changes.get('custom_hooks') or cfg.get('custom_hooks') or [],
                                student.get('custom_hooks') or [])) is not None:
            content['custom_hooks'] = hooks
    content = merged(content, _mixed(request))
    doing = 'fine-tuned' if request.checkpoint else 'trained'
    size = f', at {request.teacher_scale} times the size' if request.teacher_scale > 1 else ''
    return config_text(f'The teacher, {doing} on the images as the student sees them{size}. {plan.text}.', content)


def _without_own_weights(model: dict) -> dict[str, Any]:
    """A backbone's own weights are not read where a checkpoint brings all."""
    backbone = model.get('backbone') or {}
    if backbone.get('type') == 'TimmBackbone':
        return dict(model=dict(backbone=dict(pretrained=False, checkpoint=None)))
    return dict(model=dict(backbone=dict(init_cfg=None))) if 'init_cfg' in backbone else {}


def identity(checkpoint: str) -> str:
    """What tells a checkpoint from another one of the same name."""
    if '://' in checkpoint:
        return checkpoint
    return f'{osp.abspath(checkpoint)}, {osp.getsize(checkpoint)} bytes'


def distilled_text(added: dict[str, Any], what: str, weights: str, views: dict[str, Any] | None = None) -> str:
    """What distillation adds to the student.

    Args:
        added: of ``model``.
        what: the method, for the comment.
        weights: what tells this teacher from another: a run of another one is another run.
        views: the train data set, where it brings the teacher a view of its own.
    """
    content = dict(_base_='./student.py', model=added, teacher_weights=weights)
    if views is not None:
        content['train_dataloader'] = dict(dataset=dict(_delete_=True, **views))
    return config_text(f'The distilled student: {what}.', content)


def _plain(value: Any) -> Any:
    return value.to_dict() if hasattr(value, 'to_dict') else dict(value)


def _pipelines(cfg: Config) -> list:
    return [pipeline_of((cfg.get(key) or {}).get('dataset') or {}) for key in LOADERS]


def _switching(own: list, student: list) -> list[dict] | None:
    """The teacher's hooks with the student's switches of the pipeline; None: neither has any."""
    def switches(hook: dict) -> bool:
        return str(hook.get('type')).rsplit('.', 1)[-1] in SWITCHES
    if not any(map(switches, [*own, *student])):
        return None
    return [dict(hook) for hook in own if not switches(hook)] + [_plain(hook) for hook in student if switches(hook)]


def refuse_masks(student: Config, prepared: Prepared) -> None:
    """Raises :class:`ConfigError` for a student that needs outlines where objects have boxes only."""
    head = student.model.get('roi_head') or {}
    if 'mask_head' not in head and 'mask_head' not in student.model:
        return
    without = [picture.source for part in prepared.parts.values() for picture in part.pictures
               for thing in picture.things if not thing.outline]
    if without:
        raise ConfigError(f'--student {student.filename}: it learns masks, and {len(without)} objects have boxes only, '
                          f'the first in {without[0]}; give a student without masks, or annotations with outlines')
