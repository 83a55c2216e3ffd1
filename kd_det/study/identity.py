"""What identifies a run: a hash of its resolved config and one of its weights, the same on every machine."""
import copy
import hashlib
import json

from mmengine.config import Config

from ..config import set_data_root
from ..config_difference import differing, flat, plain
from ..weights import digest, read_state_dict

# What only says where and how a run was started. The seed stands beside the hash, not in it.
NOT_HASHED = ('work_dir', 'load_from', 'resume', 'launcher', 'log_level', 'experiment_name')
HOOKS_OF_TRAIN_PY = ('WholeCheckpointHook', 'InterruptHook')


def normalised(cfg: Config) -> dict:
    """The part of a resolved config that two runs of one recipe share, as plain dicts and lists.

    Left out: :data:`NOT_HASHED`, the seed, the two hooks that ``kd-det train`` adds, the place of the data set
    (``data_root``) and that of the teacher's checkpoint, whose weights have a hash of their own.
    """
    cfg = Config(copy.deepcopy(cfg._cfg_dict.to_dict()))
    if cfg.get('data_root'):
        set_data_root(cfg, 'DATA')
    content = cfg._cfg_dict.to_dict()
    for key in NOT_HASHED:
        content.pop(key, None)
    content['randomness'] = {k: v for k, v in (content.get('randomness') or {}).items() if k != 'seed'}
    content['custom_hooks'] = [hook for hook in content.get('custom_hooks') or []
                               if hook.get('type') not in HOOKS_OF_TRAIN_PY]
    model = content.get('model') or {}
    for network in (model.get('teacher'), *(model.get('sources') or {}).values()):
        if isinstance(network, dict):
            network.pop('checkpoint', None)
    if (model.get('peer') or {}).get('checkpoint'):
        model['peer']['checkpoint'] = 'TRAINED'  # another recipe than a peer that starts from nothing
    return plain(content)


def config_hash(cfg: Config) -> str:
    """SHA-256 of :func:`normalised`: independent of seed, place and machine."""
    return hashlib.sha256(json.dumps(normalised(cfg), sort_keys=True).encode()).hexdigest()


def differing_keys(one: Config, other: Config) -> list[str]:
    """Dotted keys in which two configs differ as far as the hash is concerned."""
    return differing(flat(normalised(one)), flat(normalised(other)))


def weights_hash(path: str) -> str:
    """:func:`kd_det.weights.digest` of a checkpoint's state_dict."""
    return digest(read_state_dict(path)[0])
