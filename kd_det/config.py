"""Load a config the way the command line asks for it, and refuse what MMEngine would silently ignore."""
import difflib
import os
import os.path as osp
import re
from dataclasses import dataclass

from mmengine.config import Config, ConfigDict
from mmengine.config.utils import ConfigParsingError
from mmengine.hub import get_config

from .channels import fill_model
from .config_keys import check_depth
from .config_types import check_types
from .errors import ConfigError
from .own_data import expand_data, with_data
from .shipped import config_file

ENDINGS = ('.py', '.json', '.yaml', '.yml')
# What Runner.from_cfg and the tools read at the top level of a config; other names there are a config's own variables.
RUNNER_KEYS = frozenset('''
    model work_dir train_dataloader val_dataloader test_dataloader train_cfg val_cfg test_cfg auto_scale_lr
    optim_wrapper param_scheduler val_evaluator test_evaluator default_hooks custom_hooks data_preprocessor load_from
    resume launcher env_cfg log_processor log_level visualizer vis_backends default_scope randomness experiment_name
    custom_imports runner_type tta_model find_unused_parameters model_wrapper_cfg sync_bn compile
    activation_checkpointing data_check data unlabelled_dataloader'''.split())


@dataclass(frozen=True)
class Distilled:
    """What a distilling ``type`` adds to a plain detector's config.

    Attributes:
        added: the keys; without them the config is the student's.
        plain: the student's type where a config written before ``student_type`` does not say.
    """

    added: tuple[str, ...]
    plain: str | None


_GENERAL = ('student_type', 'teacher', 'sources', 'terms', 'ground_truth', 'unlabelled')
DISTILLED: dict[str, Distilled] = {
    'Distiller': Distilled(_GENERAL, None),
    'FasterRCNNDistiller': Distilled((*_GENERAL, 'rpn_distill', 'rcnn_distill', 'hints'), 'TwoStageDetector'),
    'LADDistiller': Distilled((*_GENERAL, 'lad', 'soft_label', 'box_loss_average', 'dynamic_from_start',
                               'copy_quality', 'hints'), 'SingleStageDetector'),
    'SoftLabelDistiller': Distilled((*_GENERAL, 'lad', 'soft_label', 'box_loss_average', 'dynamic_from_start',
                                     'copy_quality', 'hints'), 'SingleStageDetector'),
    'CoLAD': Distilled((*_GENERAL, 'peer', 'criterion', 'granularity'), 'SingleStageDetector'),
}
"""Type in a config -> what it adds. A preset of your own is one more entry."""


def distilled(model: dict) -> Distilled | None:
    """The entry of a model config's ``type``; None for a plain detector."""
    return DISTILLED.get(str(model.get('type')).removeprefix('mmdet.'))


def load_config(path: str, options: dict | None = None, data_root: str | None = None,
                classes: list[str] | str | None = None) -> Config:
    """Read a config file, apply command-line changes, expand ``data``, fill in what is left to the backbone
    (``'auto'``).

    Args:
        path (str): a file; ``kd_det::folder/name.py`` for one that ships, ``mmdet::...`` for one of MMDetection.
        options (dict | None): ``--cfg-options``, dotted keys to values.
        data_root (str | None): ``--data-root``: replaces the config's ``data_root`` in every data set and evaluator.
        classes: ``--classes``: with ``data_root`` the key ``data`` of :func:`kd_det.own_data.expand_data`.

    Raises:
        ConfigError: no such file, no config, one that cannot be executed, or a ``_base_`` of it is not there; ``model``
            is no dict; a top-level key that looks like a misspelt runner key, or an option whose top-level key nothing
            reads (MMEngine would ignore both); ``data_root`` given but the config has none.
        DataError: what the key ``data`` names is not there.
    """
    path = config_file(path)
    cfg = _read(path)
    if 'model' in cfg:
        check_model(cfg)
    check_keys(cfg, options or {})
    name_student(cfg, path)
    if options:
        cfg.merge_from_dict(options)
        check_depth(cfg)
    if classes is not None or (data_root is not None and 'data' in cfg):
        with_data(cfg, data_root, classes)
    elif data_root is not None:
        set_data_root(cfg, data_root)
    expand_data(cfg)
    try:
        check_types(cfg, ('model',))
    except ConfigError as error:
        raise ConfigError(f'config {path!r}: {error}') from error
    if isinstance(cfg.get('model'), dict):
        fill_model(cfg.model)
    return cfg


def _read(path: str) -> Config:
    if '::' not in path and not (osp.isfile(path) and path.endswith(ENDINGS)):
        found = 'is a folder' if osp.isdir(path) else 'does not exist' if not osp.exists(path) else \
            f'is no config by its name, which ends in {osp.splitext(path)[1]!r}'
        raise ConfigError(f'config {path!r} {found}; give a .py file, kd_det::<folder>/<name>.py for one that '
                          'ships, or mmdet::<folder>/<name>.py for one of MMDetection')
    try:
        return get_config(path) if '::' in path and not osp.exists(path) else Config.fromfile(path)
    except ConfigError as error:
        if path in str(error):
            raise
        raise ConfigError(f'config {path!r}: {error}') from error
    except RecursionError as error:
        raise ConfigError(f'config {path!r} cannot be read: a _base_ of it leads back to itself') from error
    except Exception as error:  # a config is a program of its user's and may raise anything
        text = ' '.join(str(error).split()).partition(', the current sys.path')[0]
        raise ConfigError(f'config {path!r} cannot be read: {type(error).__name__}: {text}'
                          + ('. A _base_ is relative to the file that names it, absolute, kd_det::<folder>/<name>.py '
                             'or mmdet::<folder>/<name>.py' if isinstance(error, (OSError, ConfigParsingError)) else '')
                          ) from error


def check_model(cfg: Config) -> None:
    """Raises :class:`ConfigError` for a config without a ``model`` that is a dict."""
    found = cfg.get('model')
    if not isinstance(found, dict):
        what = f'model is {found!r}' if 'model' in cfg else 'it has no model'
        raise ConfigError(f'config {cfg.filename!r}: {what}; a detector, model = dict(type=...), is expected')


def name_student(cfg: Config, path: str) -> None:
    """Set ``model.student_type`` of a distil config that does not say it: the type in the config that it inherits.

    A distil config replaces the ``type`` of its ``_base_``, which by then is gone from the merged config; it is read
    from the base file. Where no base has one (a resolved config that an earlier run dumped), nothing is set, and
    building a distiller for training refuses it.
    """
    model = cfg.get('model') or {}
    if distilled(model) is None or model.get('student_type') or not osp.isfile(path):
        return
    for base in Config._get_base_files(path):
        base_path, _ = Config._get_cfg_path(base, path)
        inherited = Config.fromfile(base_path, import_custom_modules=False).get('model') or {}
        if 'type' not in inherited:
            continue
        if distilled(inherited) is None:
            model.student_type = inherited['type']
        else:  # a variation of another distil config
            name_student(between := ConfigDict(model=inherited), base_path)
            if between.model.get('student_type'):
                model.student_type = between.model.student_type
        return


def check_keys(cfg: Config, options: dict) -> None:
    """Raise :class:`ConfigError` on a top-level key that is probably a typing error.

    A config may define variables of its own, so only names close to one that the runner reads are refused. An option
    must name a key that the config or the runner knows: an unknown one would have no effect.
    """
    for key in cfg:
        # a child's misspelt key stands beside the right one, which its base has
        close = difflib.get_close_matches(key, RUNNER_KEYS - set(cfg), n=1, cutoff=0.8) \
            or difflib.get_close_matches(key, RUNNER_KEYS, n=1, cutoff=0.93) \
            or [known for known in RUNNER_KEYS if sorted(known) == sorted(key)]
        if key not in RUNNER_KEYS and close:
            raise ConfigError(f'config key {key!r} is read by nothing; did you mean {close[0]!r}?')
    for option in options:
        key = option.split('.')[0]
        if key not in RUNNER_KEYS and key not in cfg:
            close = difflib.get_close_matches(key, RUNNER_KEYS | set(cfg), n=1)
            raise ConfigError(f'--cfg-options {option}: {key!r} is neither in the config nor read by the runner'
                              + (f'; did you mean {close[0]!r}?' if close else ''))
    check_depth(cfg)


def set_data_root(cfg: Config, data_root: str) -> None:
    """Put ``data_root`` in place of the config's own, in data sets, evaluators and every other string that begins so.

    Raises:
        ConfigError: the config names no ``data_root`` at its top level, so there is nothing to replace.
    """
    old = cfg.get('data_root')
    if not old:
        raise ConfigError('--data-root: the config has no top-level data_root to replace; set the data sets\' own with '
                          '--cfg-options train_dataloader.dataset.data_root=... val_evaluator.ann_file=...')
    new = osp.join(data_root, '')
    stem = old.rstrip('/')

    def replace(value):
        if isinstance(value, str) and (value == stem or value.startswith(stem + '/')):
            return new + value[len(stem):].lstrip('/')
        if isinstance(value, dict):
            return ConfigDict({k: replace(v) for k, v in value.items()})
        if isinstance(value, (list, tuple)):
            return type(value)(replace(v) for v in value)
        return value

    for key in list(cfg):
        # the data set of a teacher's own config is never loaded, and a work_dir below data/ is not data
        if key != 'work_dir':
            cfg[key] = replace(cfg[key])


def resume_from(cfg: Config, resume: str | None) -> None:
    """Apply ``--resume``: None, ``'auto'`` (the latest checkpoint in the work directory) or a checkpoint path.

    Raises:
        ConfigError: a path that does not exist.
    """
    if resume is None:
        return
    cfg.resume = True
    cfg.load_from = None
    if resume != 'auto':
        if '://' not in resume and not os.path.isfile(resume):
            raise ConfigError(f'--resume {resume!r}: no such checkpoint; give a file, or --resume alone for the latest '
                              f'in the work directory')
        cfg.load_from = resume


def check_load_from(cfg: Config) -> None:
    """``load_from`` is a file or a URL.

    Raises:
        ConfigError: it is neither.
    """
    found = cfg.get('load_from')
    if found and (not isinstance(found, str) or ('://' not in found and not osp.isfile(found))):
        raise ConfigError(f'load_from: there is no file {found!r}; give the file or URL of a checkpoint to begin from, '
                          'or None')


def keep_config(cfg: Config) -> None:
    """Refuse a work directory in which the runner's dump of the resolved config would replace the config itself.

    A dump of an earlier run, which holds no ``_base_``, may be replaced: it is resolved already.

    Raises:
        ConfigError: the config lies in ``cfg.work_dir``.
    """
    target = os.path.join(cfg.work_dir, os.path.basename(cfg.filename or ''))
    if cfg.filename and os.path.isfile(target) and os.path.samefile(target, cfg.filename):
        with open(target, encoding='utf-8') as file:
            if re.search(r'^_base_ *=', file.read(), re.MULTILINE):
                raise ConfigError(f'--work-dir {cfg.work_dir}: {cfg.filename} lies there and would be overwritten by '
                                  'its resolved form; give another directory')
