"""The detector that a config deploys, with a checkpoint's weights."""
import copy

from mmengine.config import Config, ConfigDict
from torch import nn

from ..build import build
from ..plain import deployed_config
from ..weights import load_whole


def deployed_model(cfg: Config, network: str | None = None) -> ConfigDict:
    """Model config of what is deployed: the plain student of a distillation config.

    Args:
        network (str | None): 'second' for the second network of a CoLAD config.
    """
    model = deployed_config(cfg, network).model
    if 'data_preprocessor' not in model and cfg.get('data_preprocessor'):
        model.data_preprocessor = cfg.data_preprocessor  # as the runner does
    return model


def build_detector(cfg: Config, state_dict: dict, source: str, model: dict | None = None) -> nn.Module:
    """Build the deployed detector of ``cfg`` in eval mode, on the CPU, and load it strictly.

    Args:
        cfg (Config): config of the run.
        state_dict (dict): name to tensor.
        source (str): where the weights come from, for the error.
        model (dict | None): in place of :func:`deployed_model` of ``cfg``.

    Raises:
        ConfigError: the config's model cannot be built.
        CheckpointMismatch: names or shapes do not match exactly; lists them.
    """
    import mmdet.models  # noqa: F401  (registers the detectors)
    from mmdet.registry import MODELS
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import init_default_scope
    init_default_scope(cfg.get('default_scope') or 'mmdet')
    model = deployed_model(cfg) if model is None else copy.deepcopy(model)
    model = revert_sync_batchnorm(build(f'{cfg.filename or "config"}: model', model, MODELS))
    load_whole(model, state_dict, f'checkpoint {source!r}')
    return model.eval()
