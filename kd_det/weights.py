"""Load weights whole, or say exactly what does not fit."""
import hashlib
import os.path as osp
import re

import torch
from torch import nn

from .errors import CheckpointMismatch


def _listing(title: str, keys: list[str], limit: int = 20) -> str:
    if not keys:
        return ''
    more = f'\n    ... and {len(keys) - limit} more' if len(keys) > limit else ''
    return f'\n  {len(keys)} {title}:\n    ' + '\n    '.join(keys[:limit]) + more


def read_state_dict(path: str, network: str | None = None) -> tuple[dict, dict]:
    """Read a checkpoint file, URL or ``torchvision://`` name; nothing in it is executed.

    Args:
        network (str | None): 'second' takes the peer out of a checkpoint of both networks of CoLAD, and the
            state_dict where it is the peer's own.

    Returns:
        tuple: the state_dict (a bare state_dict file is one too) and the checkpoint's ``meta``.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointMismatch: the file holds no state_dict.
        kd_det.compat.checkpoint.UnsafeCheckpointError: it holds objects that only running its code could make.
    """
    from mmengine.runner import CheckpointLoader
    if '://' not in path and not osp.isfile(path):
        raise FileNotFoundError(f'checkpoint {path!r} ' + ('is a folder; give a file in it' if osp.isdir(path)
                                                           else 'does not exist; give a file or URL'))
    try:
        checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu', logger='silent')
    except (KeyError, ImportError) as error:  # a name that torchvision:// or open-mmlab:// does not have, no client
        raise CheckpointMismatch(f'{path}: cannot be read ({type(error).__name__}: {error}); give a file, an http(s) '
                                 'URL, or a name that this scheme has') from error
    state = checkpoint.get('state_dict', checkpoint) if isinstance(checkpoint, dict) else None
    if network == 'second' and isinstance(checkpoint, dict):
        state = _second_of(checkpoint, path) or state
    if not isinstance(state, dict) or not state or not all(hasattr(v, 'shape') for v in state.values()):
        raise CheckpointMismatch(f'{path}: no state_dict in it; a checkpoint of MMEngine or a bare state_dict is '
                                 'expected')
    if all(key.startswith('module.') for key in state):  # saved from inside DataParallel
        metadata = getattr(state, '_metadata', None)
        state = type(state)((key[len('module.'):], value) for key, value in state.items())
        if metadata is not None:
            state._metadata = type(metadata)((k.removeprefix('module').removeprefix('.'), v)
                                             for k, v in metadata.items())
    meta = checkpoint.get('meta') if 'state_dict' in checkpoint else None
    if meta is not None and not isinstance(meta, dict):
        raise CheckpointMismatch(f'{path}: its meta is {type(meta).__name__}; a dict is expected')
    return state, meta or {}


def digest(state: dict) -> str:
    """SHA-256 over name, dtype, shape and bytes of every tensor of a state_dict, in order of names.

    Equal for equal weights in whatever file: the file itself would not do, it holds times, paths and the optimizer's
    state.
    """
    found = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        found.update(f'{name} {tensor.dtype} {tuple(tensor.shape)}\n'.encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def classes_of(meta: dict) -> tuple[str, ...] | None:
    """The class names that MMEngine (``dataset_meta``) or MMCV 1 (``CLASSES``) wrote into a checkpoint."""
    names = (meta.get('dataset_meta') or {}).get('classes') or (meta.get('dataset_meta') or {}).get('CLASSES') \
        or meta.get('CLASSES')
    return tuple(names) if names else None


def check_values(model: nn.Module, state: dict, what: str) -> None:
    """The tensors of ``state`` can be weights of a trained network.

    Raises:
        CheckpointMismatch: inf or NaN; complex numbers, or whole numbers where the network has real ones; every kernel
            and matrix all zero.
    """
    own = model.state_dict()
    real = {name: value for name, value in state.items() if name in own and own[name].is_floating_point()}
    for name, value in real.items():
        if not value.is_floating_point():
            raise CheckpointMismatch(f'{what}: {name} holds {str(value.dtype).removeprefix("torch.")}, real numbers '
                                     'are expected; a quantised or otherwise converted checkpoint does not load')
    broken = [name for name, value in real.items() if not bool(value.isfinite().all())]
    if broken:
        raise CheckpointMismatch(f'{what}: {len(broken)} of {len(state)} tensors hold inf or NaN, e.g. {broken[0]}; '
                                 'its training diverged, or the file was converted wrongly')
    kernels = [value for value in real.values() if value.dim() > 1]
    if kernels and not any(bool(value.any()) for value in kernels):
        raise CheckpointMismatch(f'{what}: every weight in it is zero; it was never trained')


def _second_of(checkpoint: dict, path: str) -> dict | None:
    """The second network in a checkpoint of both; None where it is another file."""
    peer, meta = (checkpoint.get('kd_det') or {}).get('peer'), checkpoint.get('meta') or {}
    if peer is None and meta.get('kd_det_network') != 'second' and is_of_both(meta):
        raise CheckpointMismatch(f'{path}: of a CoLAD run, but its kd_det entry, which holds the second network, was '
                                 'taken out; give the file with _peer in its name')
    return peer


def is_of_both(meta: dict) -> bool:
    """Whether a checkpoint's ``meta`` says that CoLAD wrote it, with the first network in its state_dict."""
    return meta.get('kd_det_network') != 'second' and re.search(r'type=.CoLAD.', str(meta.get('cfg', ''))) is not None


def mismatch(model: nn.Module, state: dict) -> tuple[list[str], list[str], list[str]]:
    """Missing, unexpected and mis-shaped keys of ``state`` for ``model``, each with its shapes."""
    own = model.state_dict()
    missing = [f'{k} {tuple(v.shape)}' for k, v in own.items() if k not in state]
    unexpected = [f'{k} {tuple(v.shape)}' for k, v in state.items() if k not in own]
    shapes = [f'{k}: checkpoint {tuple(state[k].shape)}, network {tuple(v.shape)}'
              for k, v in own.items() if k in state and state[k].shape != v.shape]
    return missing, unexpected, shapes


def without_old_keys(model: nn.Module, state: dict, what: str) -> dict:
    """A state_dict without what older versions stored beside the weights.

    - ``data_preprocessor.mean`` and ``.std``, weights' companions in early MMDetection 3.x: they must be what the
      config normalises by.
    - ``ema_*``: MMCV 1's second copy of every weight; the deployed ones are under the plain names.

    Raises:
        CheckpointMismatch: the network was trained on images normalised otherwise.
    """
    own = model.state_dict()
    copies = {'ema_' + key.replace('.', '_') for key in own}
    kept = type(state)((k, v) for k, v in state.items() if k in own or k not in copies)
    for name in ('mean', 'std'):
        key = f'data_preprocessor.{name}'
        if key in own or key not in kept:
            continue
        trained = kept.pop(key).flatten().float()
        configured = getattr(getattr(model, 'data_preprocessor', None), name, None)
        if configured is None or not torch.allclose(trained, configured.flatten().float().cpu(), atol=1e-2):
            raise CheckpointMismatch(f'{what}: it was trained on images with {name} {trained.tolist()}, the config\'s '
                                     f'data_preprocessor.{name} is '
                                     f'{None if configured is None else configured.flatten().tolist()}')
    if hasattr(state, '_metadata'):
        kept._metadata = state._metadata
    return kept


def load_whole(model: nn.Module, state: dict, what: str) -> None:
    """``model.load_state_dict(state, strict=True)`` with an error that can be acted on.

    Args:
        what (str): names the checkpoint and its purpose in the message.

    Raises:
        CheckpointMismatch: any key is missing, unexpected or of another shape; all of them are listed and the model
            is left as it was; or it has values that no
            trained network has (:func:`check_values`). Keys that older versions wrote beside the weights are
            no mismatch, see :func:`without_old_keys`.
    """
    state = without_old_keys(model, state, what)
    check_values(model, state, what)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        missing, unexpected, shapes = mismatch(model, state)
        model.load_state_dict(before)
        raise CheckpointMismatch(
            f'{what} does not fit the configured network ({type(model).__name__}).'
            + _listing('keys missing in the checkpoint', missing)
            + _listing('keys the network does not have', unexpected) + _listing('tensors of another shape', shapes)
            + ('' if missing or unexpected or shapes else f'\n  {error}')
            + '\nGive the config that the checkpoint was trained with, or another checkpoint.') from None


def load_deployed(model: nn.Module, path: str, network: str | None = None) -> dict:
    """Load a checkpoint for evaluation: whole or not at all. Returns its ``meta``.

    Args:
        network (str | None): 'first' or 'second' of a CoLAD pair; None where there is no pair.

    Raises:
        CheckpointMismatch: it does not fit, or holds the second network where the first is asked for.
    """
    state, meta = read_state_dict(path, network)
    if network == 'first' and meta.get('kd_det_network') == 'second':
        raise CheckpointMismatch(f'checkpoint {path} is the second network\'s own; evaluate it with --network second, '
                                 'or give the file without _peer in its name')
    load_whole(getattr(model, 'module', model), state, f'checkpoint {path}')
    return meta
