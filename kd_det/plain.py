"""From a distil config to the plain detectors in it, and back, by a table: no detector is imported for it."""
import copy
import os.path as osp

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from .channels import fill_model
from .config import check_model, distilled, load_config
from .config_keys import check_options
from .errors import ConfigError
from .own_data import class_numbers
from .weights import classes_of, read_state_dict


def student_model(model: dict) -> ConfigDict:
    """The plain detector that a distil config trains: without what distillation added. Others come back unchanged.

    Of a CoLAD config it is the first network.

    Args:
        model (dict): the ``model`` of a config.

    Returns:
        ConfigDict: a copy that MMDetection builds without kd_det, and that the checkpoint's state_dict fits strictly.

    Raises:
        ConfigError: the student's type is not known.
    """
    model = ConfigDict(copy.deepcopy(dict(model)))
    entry = distilled(model)
    if entry is not None:
        plain = model.get('student_type') or entry.plain
        if plain is None:
            raise ConfigError(f'model.student_type: missing; {model.type} stands where the student\'s own type was, '
                              'e.g. student_type=\'RetinaNet\'')
        for key in entry.added:
            model.pop(key, None)
        model.type = plain
    return model


def set_teacher(cfg: Config, config: str, checkpoint: str) -> None:
    """``--teacher CONFIG CHECKPOINT``: another teacher, the rest of the ``teacher`` dict (scale_factor ...) stays.

    Raises:
        ConfigError: the config is of no distiller with a teacher; the two stand the other way round.
    """
    if config.endswith(('.pth', '.pt', '.safetensors')) or checkpoint.endswith('.py'):
        raise ConfigError(f'--teacher {config} {checkpoint}: the config comes first, then the checkpoint')
    if 'teacher' not in cfg.model:
        raise ConfigError(f'--teacher: model.type {cfg.model.get("type")!r} has no teacher; give a distil config')
    cfg.model.teacher.update(config=config, checkpoint=checkpoint)


def settle_classes(cfg: Config) -> None:
    """Give each teacher the number of classes that its checkpoint was trained on, and a CoLAD peer the student's; in
    place.

    A teacher's config names the set that it was written for; its weights may be of another one. Where the checkpoint is
    not there yet, or records no class names, nothing is changed. The number goes to ``cfg_options`` of the source.
    """
    model = cfg.get('model') or {}
    for key, source in {'teacher': model.get('teacher'), **(model.get('sources') or {}),
                        'peer': model.get('peer')}.items():
        if not isinstance(source, dict) or not isinstance(source.get('config'), str):
            continue
        checkpoint = source.get('checkpoint')
        if key == 'peer' or source.get('type') == 'Peer':
            first = (cfg.get('train_dataloader') or {}).get('dataset') or {}
            names = (first.get('metainfo') or {}).get('classes')
        else:
            names = classes_of(read_state_dict(checkpoint)[1]) if checkpoint and osp.isfile(checkpoint) else None
        if not names or isinstance(names, str):
            continue
        found = class_numbers(detector_config(source['config'], source.get('cfg_options'), key), len(names))
        if found:
            print_log(f'{key}: {len(names)} classes instead of its config\'s, as '
                      + ('the data set has' if checkpoint is None else f'{checkpoint} was trained on'), 'current')
            prefix = '' if 'backbone' in load_config(source['config']) else 'model.'
            source['cfg_options'] = {**(source.get('cfg_options') or {}),
                                     **{prefix + path: number for path, number in found.items()}}


def with_student(cfg: Config, student: Config) -> Config:
    """``--student CONFIG``: what a distil config adds, on another student's own config.

    Model, data and schedule are the other student's; the distiller, its terms and the teacher are those of ``cfg``, and
    its second view of the data and its images without labels, where it has them.

    Raises:
        ConfigError: ``cfg`` is of no distiller, or ``student`` is one itself.
    """
    entry = distilled(cfg.model)
    if entry is None:
        raise ConfigError(f'--student: model.type {cfg.model.get("type")!r} is no distiller; give a distil config')
    if distilled(student.model) is not None:
        raise ConfigError(f'--student: {student.filename} is itself a distil config; give the plain student\'s')
    result = Config(student._cfg_dict.to_dict(), filename=cfg.filename)
    result.model.type, result.model.student_type = cfg.model.type, student.model.type
    for key in entry.added:
        if key in cfg.model and key != 'student_type':
            result.model[key] = cfg.model[key]
    if 'unlabelled_dataloader' in cfg:
        result.unlabelled_dataloader = cfg.unlabelled_dataloader
    views = cfg.train_dataloader.dataset
    if views.get('type') == 'TwoViewDataset':
        result.train_dataloader.dataset = dict(type='TwoViewDataset', scale_factor=views.scale_factor,
                                               dataset=student.train_dataloader.dataset)
    return result


def detector_config(config: str | dict, cfg_options: dict | None, key: str) -> ConfigDict:
    """The plain detector's config that ``config`` means.

    Args:
        config: a config file (``mmdet::...`` too), a whole config or a detector's config. Of a distiller's config it
            is the student: a distilled detector can teach in turn, and its own teacher is not needed then.
        cfg_options: changes, dotted keys.
        key: whose config it is, for the message ('teacher', 'peer').

    Raises:
        ConfigError: no such file, or no detector in it.
    """
    path = config if isinstance(config, str) else None
    if path is not None:
        config = load_config(path)
    config = Config(copy.deepcopy(dict(config))) if not isinstance(config, Config) else copy.deepcopy(config)
    if cfg_options:
        if not isinstance(cfg_options, dict):
            raise ConfigError(f'{key}.cfg_options: found {cfg_options!r}; a dict of dotted keys is expected')
        check_options(f'{key}.cfg_options', config._cfg_dict, cfg_options)
        if path is not None:  # anew: what the file leaves to the backbone ('auto') is filled in after a swap of it
            config = load_config(path, cfg_options)
        else:
            config.merge_from_dict(cfg_options)
    # a whole config has its detector under `model`; a detector's own config has a backbone
    model = config.model if 'model' in config and 'backbone' not in config else ConfigDict(config._cfg_dict)
    if cfg_options:  # they may have swapped the backbone
        fill_model(model)
    if 'type' not in model:
        raise ConfigError(f'{key}.config: neither a config with a `model` nor a detector with a `type`; found the '
                          f'keys {sorted(config)}')
    if 'data_preprocessor' in config and 'backbone' not in config and 'data_preprocessor' not in model:
        model.data_preprocessor = config.data_preprocessor
    return student_model(model)


PEER_KEYS = {'config', 'checkpoint', 'cfg_options'}


def peer_config(peer: dict) -> ConfigDict:
    """The second network's plain config, from the ``peer`` dict of a CoLAD config.

    Raises:
        ConfigError: no dict, unknown keys, no ``config``, or no detector in it.
    """
    if not isinstance(peer, dict):
        raise ConfigError(f'peer: found {peer!r}; dict(config=..., checkpoint=None) is expected')
    unknown = set(peer) - PEER_KEYS
    if unknown or not peer.get('config'):
        raise ConfigError(f'peer: unknown keys {sorted(unknown)}, found {sorted(peer)}; config is needed, '
                          f'{sorted(PEER_KEYS)} are known')
    return detector_config(peer['config'], peer.get('cfg_options'), 'peer')


def deployed_config(cfg: Config, network: str | None = None) -> Config:
    """The config with the plain student as its model, for evaluation: no teacher is built or needed.

    It is named ``NAME_test.py``: the runner dumps it into the work directory, where the training's own may lie.

    Args:
        network (str | None): of a CoLAD config, 'first' (also None) or 'second'.

    Raises:
        ConfigError: ``network`` is 'second' and there is one only.
    """
    check_model(cfg)
    plain = Config(cfg._cfg_dict.to_dict() if hasattr(cfg, '_cfg_dict') else dict(cfg), cfg_text=cfg.text or '#',
                   filename=cfg.filename and f'{osp.splitext(cfg.filename)[0]}_test.py')
    if network == 'second':
        if cfg.model.get('type') != 'CoLAD':
            raise ConfigError(f'--network second: model.type is {cfg.model.get("type")!r}, which has one network; a '
                              'CoLAD config is expected (the second\'s own config needs no --network)')
        plain.model = peer_config(cfg.model.peer)
    else:
        plain.model = student_model(cfg.model)
    return plain
