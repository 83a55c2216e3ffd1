"""Weights of timm's classification networks for their feature extractors: whole, or a list of what does not fit."""
import re

import torch
from torch import Tensor, nn

from ..errors import CheckpointMismatch, ConfigError
from ..weights import load_whole, read_state_dict
from .timm_model import classifier, extractor


def read_weights(path: str) -> dict[str, Tensor]:
    """A state_dict from a ``.safetensors`` file or a checkpoint; nothing in either is executed.

    Raises:
        CheckpointMismatch: no such file, or no state_dict in it.
    """
    try:
        if path.endswith('.safetensors'):
            from safetensors import SafetensorError
            from safetensors.torch import load_file
            try:
                return load_file(path)
            except SafetensorError as error:
                raise CheckpointMismatch(f'TimmBackbone.checkpoint: {path!r} cannot be read: {error}') from error
        return read_state_dict(path)[0]
    except FileNotFoundError as error:
        raise CheckpointMismatch(f'TimmBackbone.checkpoint: {path!r} does not exist; give a file that timm\'s model '
                                 'was saved to (.safetensors, .pth), or pretrained=True to download') from error


def load_weights(net: nn.Module, state: dict[str, Tensor], model_name: str, what: str, arguments: dict) -> None:
    """Load a classification network's weights, or an extractor's own, into an extractor, strictly.

    Keys of the whole classification network that the extractor does not have (the classifier, stages behind the last
    map) may be there. Everything else must fit key for key.

    Raises:
        CheckpointMismatch: keys are missing, of another shape, or belong to no part of this model.
    """
    own = net.state_dict()
    taken = {key: next((k for k in spellings(key) if k in state), None) for key in own}
    rest = set(state) - set(taken.values())
    if rest:
        info = extractor(model_name, None, meta=True, **arguments).feature_info.info
        known = {*classifier(model_name, **arguments).state_dict(),
                 *extractor(model_name, tuple(range(len(info))), meta=True, **arguments).state_dict()}
        rest -= known
    fitting = {key: state[found] for key, found in taken.items() if found is not None}
    for key in own:  # batch norms' counters, which files from other frameworks lack, are no weights
        if key.endswith('.num_batches_tracked') and key not in fitting:
            fitting[key] = torch.zeros_like(own[key])
    fitting.update((key, state[key]) for key in rest)
    load_whole(net, fitting, what)


def spellings(key: str) -> tuple[str, ...]:
    """How an extractor's key may be spelt in a file of the whole network.

    timm's extractors flatten sequences (``stages.0.x`` becomes ``stages_0.x``) or wrap the network (``model.x``).

    >>> spellings('stages_0.blocks.1.weight')
    ('stages_0.blocks.1.weight', 'stages.0.blocks.1.weight')
    """
    first, dot, rest = key.partition('.')
    nested = re.sub(r'_(\d+)$', r'.\1', first)
    found = [key]
    if first == 'model':
        found.append(rest)
    if nested != first:
        found.append(nested + dot + rest)
    return tuple(found)


def download_weights(model_name: str, out_indices: tuple[int, ...], arguments: dict) -> dict[str, Tensor]:
    """timm's own pre-trained weights, in the extractor's keys.

    Raises:
        ConfigError: there are none, or they could not be had.
    """
    try:
        return extractor(model_name, out_indices, pretrained=True, **arguments).state_dict()
    except ConfigError as error:
        raise ConfigError(f'TimmBackbone.pretrained=True: {error.__cause__}; or download the file elsewhere and give '
                          'checkpoint=FILE') from error
