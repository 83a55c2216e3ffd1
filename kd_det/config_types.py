"""What a config builds by a ``type``: types and keys are held against the registered classes before anything is built.

A registry complains of a wrong key from inside a constructor, without saying where in the config it stands, and not at
all where the class takes any key (``**kwargs``) or asks a dict with ``get``.
"""
import difflib
from collections.abc import Collection
from typing import Any

from mmdet import registry
from mmengine.registry import DefaultScope, Registry

from .build import arguments_of
from .errors import ConfigError

MODEL = (registry.MODELS, registry.TASK_UTILS)
PLACES: dict[str, tuple[Registry, ...]] = dict(
    dataset=(registry.DATASETS,), datasets=(registry.DATASETS,), pipeline=(registry.TRANSFORMS,),
    transforms=(registry.TRANSFORMS,), sampler=(registry.DATA_SAMPLERS,), batch_sampler=(registry.DATA_SAMPLERS,),
    val_evaluator=(registry.METRICS, registry.EVALUATOR), test_evaluator=(registry.METRICS, registry.EVALUATOR),
    metrics=(registry.METRICS,), default_hooks=(registry.HOOKS,), custom_hooks=(registry.HOOKS,),
    optimizer=(registry.OPTIMIZERS,), param_scheduler=(registry.PARAM_SCHEDULERS,), visualizer=(registry.VISUALIZERS,),
    vis_backends=(registry.VISBACKENDS,), log_processor=(registry.LOG_PROCESSORS,))
"""Key outside the model -> where the types below it are registered."""
UNNAMED = frozenset({'optimizer', 'visualizer', 'log_processor', 'default_hooks', 'val_evaluator', 'test_evaluator'})
"""Places that may do without a type: others fill one in, or hold named parts."""
TAKEN_OUT = frozenset({'type', 'priority', 'convert_to_iter_based'})
"""Keys that whoever builds reads before the class is called."""
LAYERS = frozenset('''norm_cfg conv_cfg act_cfg init_cfg upsample_cfg dcn plugins roi_layer nms order_cfg ffn_cfgs
    padding_cfg'''.split())
"""Keys in a model whose dicts are changed on their way to a class, so that they say little about its arguments."""
SETTINGS = frozenset('''rpn rcnn rpn_proposal assigner sampler nms nms_pre nms_post max_per_img max_per_image max_num
    score_thr min_bbox_size pos_weight debug allowed_border mask_thr_binary mask_thr mask_size neg_iou_thr pos_iou_thr
    min_pos_iou iou_thr iou_threshold isr carl bias ga_assigner ga_sampler center_ratio ignore_ratio perm_range
    num_points oversample_ratio importance_sample_ratio neg_pos_ratio neg_pos_ub pos_fraction add_gt_as_proposals num
    local_maximum_kernel filter_thr kernel sigma panoptic_on semantic_on instance_on match_low_quality smoothl1_beta
    corner_topk topk top_k distance_threshold conf_thr filter_low_score score_voting init refine dynamic_rcnn iou_topk
    beta_topk update_iter_interval initial_iou initial_beta initial_epoch initial_assigner pos_radius max_num_grid
    subdivision_steps subdivision_num_points scale_factor object_mask_thr panoptic mask_overlap stuff_area_limit alpha
    beta reg_assigner perm_repeat_gt_cfg chunked_size multi_label with_nms yolox_style min_scores augments'''.split())
"""What MMDetection's heads read of ``model.train_cfg`` and ``model.test_cfg``."""

FILTERS = frozenset({'filter_empty_gt', 'min_size', 'bbox_min_size'})
"""What data sets read of ``filter_cfg``."""


def check_types(cfg: dict, keys: Collection[str] | None = None) -> None:
    """Look at every dict that is built by its ``type``, and at the settings of heads.

    Keys of data sets, transforms, samplers, metrics, hooks, optimizers and schedulers must be arguments of their class.
    In the model, where parents change their parts' configs, a key is refused where it resembles an argument that is not
    given, as a misspelt one does; so are settings in ``train_cfg`` and ``test_cfg``.

    Args:
        cfg: a whole config.
        keys: top-level keys to look at; None: all. Whoever wants a network from a config need not mind its evaluator.

    Raises:
        ConfigError: naming the key, what was found, and what would do.
    """
    with DefaultScope.overwrite_default_scope(str(cfg.get('default_scope') or 'mmdet')):
        for key, value in cfg.items():
            if keys is not None and key not in keys:
                continue
            if key == 'model':
                _model(key, value)
            elif key in PLACES:
                _outside(key, value, PLACES[key], key not in UNNAMED)
            elif key.endswith('_dataloader') or key in ('optim_wrapper', 'train_cfg', 'val_cfg', 'test_cfg'):
                _outside(key, value, None, False)


# -- outside the model
def _outside(key: str, value: Any, registries: tuple[Registry, ...] | None, needed: bool) -> None:
    if isinstance(value, (list, tuple)):
        for i, one in enumerate(value):
            _outside(f'{key}[{i}]', one, registries, needed)
    if not isinstance(value, dict):
        return
    _check_type(key, value)
    if registries is not None and 'type' in value:
        cls = _registered(key, value['type'], registries)
        if cls is not None:
            _check_keys(key, value, cls, closed=True)
    elif registries is not None and needed and value:
        raise ConfigError(f'{key}.type: missing; found {sorted(map(str, value))}')
    albumentations = str(value.get('type')).endswith('Albu')  # its transforms are another library's
    for name, part in value.items():
        if key == 'default_hooks':
            _outside(f'{key}.{name}', part, registries, True)
        elif name in PLACES and not (albumentations and name == 'transforms'):
            _outside(f'{key}.{name}', part, PLACES[name], name not in UNNAMED)
        elif name == 'filter_cfg' and isinstance(part, dict):
            _resembles(f'{key}.{name}', part, FILTERS)


def _registered(key: str, kind: Any, registries: tuple[Registry, ...]) -> Any:
    """The class of a type; None where another package's own registry must know."""
    if not isinstance(kind, str):
        return kind if isinstance(kind, type) else None
    found = next((one for registry in registries if (one := registry.get(kind)) is not None), None)
    if found is None and '.' not in kind:
        close = _close(kind, {name for registry in registries for name in _names(registry)}, 0.6)
        raise ConfigError(f'{key}.type: {kind!r} is not registered' + (f'; did you mean {close!r}?' if close else
                          f' among {", ".join(registry.name for registry in registries)}s; custom_imports names the '
                          'modules that register types of your own'))
    return found


def _names(registry: Registry) -> set[str]:
    found = set(registry.module_dict)
    return found | _names(registry.parent) if registry.parent is not None else found


# -- the model
def _model(key: str, value: Any, settings: bool = False) -> None:
    if isinstance(value, (list, tuple)):
        for i, one in enumerate(value):
            _model(f'{key}[{i}]', one, settings)
    if not isinstance(value, dict):
        return
    _check_type(key, value)
    if 'type' in value:
        found = [cls for registry in MODEL if isinstance(value['type'], str)
                 and (cls := registry.get(value['type'])) is not None]
        if not found and isinstance(value['type'], str) and value['type'][:1].isupper() and '.' not in value['type']:
            close = _close(value['type'], {name for registry in MODEL for name in _names(registry)}, 0.8)
            if close:
                raise ConfigError(f'{key}.type: {value["type"]!r} is not registered; did you mean {close!r}?')
        if len(found) == 1:
            _check_keys(key, value, found[0], closed=False)
    elif settings:
        _resembles(key, value, SETTINGS)
    for name, part in value.items():
        if name not in LAYERS:
            _model(f'{key}.{name}', part, settings or name in ('train_cfg', 'test_cfg'))


# -- keys
def _check_type(key: str, value: dict) -> None:
    for name in value:
        if 'type' not in value and 3 <= len(str(name)) <= 5 and _close(name, {'type'}, 0.75):
            raise ConfigError(f'{key}: nothing reads {name!r}; did you mean \'type\'?')


def _check_keys(key: str, value: dict, cls: Any, closed: bool) -> None:
    """``closed``: whoever builds hands the dict over as it is."""
    takes, takes_more = arguments_of(cls)
    if cls.__name__ == 'EMAHook':  # hands further keys to the average
        average = registry.MODELS.get(str(value.get('ema_type', 'ExponentialMovingAverage')))
        takes = {**takes, **(arguments_of(average)[0] if average is not None else {})}
    known = set(takes) | TAKEN_OUT
    unknown = [name for name in value if name not in known and not str(name).startswith('_')]
    if closed and not takes_more and unknown:
        close = _close(unknown[0], set(takes), 0.6)
        raise ConfigError(f'{key}: {cls.__name__} has no argument {unknown[0]!r}; '
                          + (f'did you mean {close!r}?' if close else f'it has {sorted(takes)}'))
    _resembles(key, value, known)


def _resembles(key: str, value: dict, known: set[str] | frozenset[str]) -> None:
    """A key that nothing knows and that is nearly one which is not given."""
    for name in value:
        if name not in known and not str(name).startswith('_'):
            close = _close(name, set(known) - set(value), 0.65 if len(str(name)) <= 4 else 0.8)
            if close:
                raise ConfigError(f'{key}: nothing reads {name!r}; did you mean {close!r}?')


def _close(name: Any, known: set[str], cutoff: float) -> str | None:
    return next(iter(difflib.get_close_matches(str(name), sorted(known), n=1, cutoff=cutoff)), None)
