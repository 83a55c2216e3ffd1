"""The student as MMDetection's own two files: a resolved config and a minimal checkpoint that need no kd_det."""
import hashlib
import io
import os.path as osp
from dataclasses import dataclass

import torch
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.config import Config, ConfigDict

from ..backbones import timm_maps
from ..build import build
from ..compare.student import build_detector
from ..errors import ConfigError
from ..files import write_whole
from ..plain import deployed_config
from ..weights import classes_of, read_state_dict

PLAIN_TYPES = {'BatchedPAAHead': ('PAAHead', ('covariance_type',))}
"""kd_det's type -> MMDetection's with the same weights and predictions, and the arguments that only training reads."""
REASONS = {'COPHead': 'its class scores are conditioned on nine coefficients that no head of MMDetection has'}
MODULE = timm_maps.__name__.rpartition('.')[2]
"""The file that is written beside the config of a student with a timm backbone, and its name in ``custom_imports``."""
FIND_MODULE = f"""# {MODULE}.py lies beside this file, and is found there
import sys

sys.path.insert(0, '{{{{ fileDirname }}}}')
"""
TRAINING_KEYS = ('custom_hooks', 'load_from', 'resume', 'data_check', 'work_dir', 'launcher', 'experiment_name',
                 'teacher_weights')  # kd-det distill's note of whom a run learned from


@dataclass
class PlainFiles:
    """What was written.

    Attributes:
        config, checkpoint (str): paths.
        needs (dict[str, str]): types of kd_det that stay, with the reason; empty: plain MMDetection loads the files.
        module (str | None): path of the backbone's own file, where MMDetection has no such backbone; it needs timm.
    """
    config: str
    checkpoint: str
    needs: dict[str, str]
    module: str | None = None


def plain_config(cfg: Config, network: str | None = None) -> tuple[Config, dict[str, str]]:
    """The deployed detector's resolved config, in MMDetection's own types wherever there is one.

    A :class:`~kd_det.backbones.TimmBackbone` becomes the :class:`~kd_det.backbones.TimmMaps` that is the same network,
    whose file stands alone; ``custom_imports`` names it.

    Returns:
        tuple: the config, and the types of kd_det that have no equivalent with the reason; where there are any,
        ``custom_imports`` of kd_det stays, and is taken out otherwise.

    Raises:
        ConfigError: the student's own type is not known.
    """
    content = deployed_config(cfg, network)._cfg_dict.to_dict()
    if 'data_preprocessor' not in content['model'] and content.get('data_preprocessor'):
        content['model']['data_preprocessor'] = content['data_preprocessor']
    for key in TRAINING_KEYS:
        content.pop(key, None)
    content = _plain_data(content)
    needs: dict[str, str] = {}
    content['model'] = _replaced(content['model'], needs)
    _without_pretraining(content['model'])
    imports = content.get('custom_imports') or {}
    others = [name for name in imports.get('imports') or [] if name.split('.')[0] not in ('kd_det', MODULE)]
    others += ['kd_det'] if needs else []
    others += [MODULE] if _has_timm(content['model']) else []
    content.pop('custom_imports', None)
    if others:
        content['custom_imports'] = dict(imports, imports=others)
    content.setdefault('default_scope', 'mmdet')
    return Config(content), needs


def _plain_data(content: dict) -> dict:
    """Without the second view that only distillation reads."""
    for key, loader in content.items():
        dataset = loader.get('dataset') if key.endswith('_dataloader') and isinstance(loader, dict) else None
        if isinstance(dataset, dict) and dataset.get('type') == 'TwoViewDataset':
            loader['dataset'] = dataset['dataset']
    return content


def _replaced(value, needs: dict[str, str]):
    if isinstance(value, (list, tuple)):
        return type(value)(_replaced(part, needs) for part in value)
    if not isinstance(value, dict):
        return value
    value = {key: _replaced(part, needs) for key, part in value.items()}
    kind = str(value.get('type', '')).removeprefix('mmdet.')
    if kind in PLAIN_TYPES:
        value['type'], dropped = PLAIN_TYPES[kind]
        value = {key: part for key, part in value.items() if key not in dropped}
    elif kind == 'TimmBackbone':
        value = _resolved(value)
    elif kind and kind != 'TimmMaps' and _is_ours(kind):
        needs[kind] = REASONS.get(kind, 'MMDetection has no equivalent')
    return value


def _resolved(backbone: dict) -> dict:
    """What its constructor finds out, written down; no weights are read or downloaded for it."""
    with torch.device('meta'):
        found = build('model.backbone', {**backbone, 'pretrained': False, 'checkpoint': None}, MODELS)
    return dict(type='TimmMaps', **found.resolved)


def _has_timm(value) -> bool:
    if isinstance(value, dict):
        return value.get('type') == 'TimmMaps' or any(map(_has_timm, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_has_timm, value))


def _is_ours(kind: str) -> bool:
    found = MODELS.module_dict.get(kind) or TASK_UTILS.module_dict.get(kind)
    return found is not None and found.__module__.split('.')[0] == 'kd_det'


def _without_pretraining(model: dict) -> None:
    """The checkpoint holds every weight: nothing is to be downloaded when the exported config is built."""
    for part in model.values():
        for one in part if isinstance(part, (list, tuple)) else [part]:
            initial = one.get('init_cfg') if isinstance(one, dict) else None
            if isinstance(initial, dict) and initial.get('type') == 'Pretrained':
                one['init_cfg'] = None


def write_plain(cfg: Config, checkpoint: str, out: str, network: str | None = None,
                overwrite: bool = False) -> PlainFiles:
    """Write ``OUT/<name>.py`` and ``OUT/<name>-<hash>.pth``, and ``OUT/timm_maps.py`` for a timm backbone.

    The checkpoint holds ``state_dict`` on the CPU and, under ``meta``, the class names; the first eight digits of its
    SHA-256 are in its name, as MMDetection publishes models. The network is built from the plain config and the weights
    are loaded strictly before anything is written.

    Args:
        cfg: of the run; a distil config too.
        checkpoint: file or URL.
        out: folder.
        network: 'second' for CoLAD's second network.
        overwrite: replace files that are there.

    Raises:
        ConfigError: a file of the name is there, with another content.
        CheckpointMismatch: the checkpoint does not fit.
    """
    plain, needs = plain_config(cfg, network)
    state, meta = read_state_dict(checkpoint, network)
    build_detector(plain, state, checkpoint, model=ConfigDict(plain.model.to_dict()))
    classes = class_names(cfg, meta)
    kept = dict(state_dict={key: value.detach().cpu().clone() for key, value in state.items()},
                meta=dict(dataset_meta=dict(classes=classes) if classes else {}))
    buffer = io.BytesIO()
    torch.save(kept, buffer)
    content = buffer.getvalue()
    name = osp.splitext(osp.basename(cfg.filename or 'student.py'))[0]
    config = osp.join(out, f'{name}.py')
    file = osp.join(out, f'{name}-{hashlib.sha256(content).hexdigest()[:8]}.pth')
    text, module, own = plain.pretty_text, None, None
    if _has_timm(plain.model.to_dict()):
        text, module, own = FIND_MODULE + text, osp.join(out, f'{MODULE}.py'), _content_of(timm_maps.__file__)
    made = {config: text.encode(), file: content, **({module: own} if module else {})}
    if not overwrite:  # equal ones are left alone
        made = {path: new for path, new in made.items() if _content_of(path) != new}
    refuse_existing(list(made), overwrite)
    for path, new in sorted(made.items(), key=lambda item: item[0] == config):  # the config last
        write_whole(path, new)
    return PlainFiles(config, file, needs, module)


def _content_of(path: str) -> bytes | None:
    if not osp.isfile(path):
        return None
    with open(path, 'rb') as file:
        return file.read()


def refuse_existing(paths: list[str], overwrite: bool) -> None:
    """Raises :class:`ConfigError` for a file that is there, unless it may be replaced."""
    there = [path for path in paths if osp.exists(path)]
    if there and not overwrite:
        raise ConfigError(f'OUT: {there[0]} is there already; name another folder, or give --overwrite')


def class_names(cfg: Config, meta: dict) -> tuple[str, ...]:
    """Class names by label: the checkpoint's, or else those of the config's test set; empty where none says."""
    found = classes_of(meta)
    if not found:
        dataset = (cfg.get('test_dataloader') or cfg.get('val_dataloader') or {}).get('dataset') or {}
        found = (dataset.get('metainfo') or {}).get('classes')
    return tuple(found or ())
