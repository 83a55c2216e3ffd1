"""A detector looks at image files, as the test pipeline of its own config does."""
import hashlib
import json
from typing import Any

from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import DefaultScope

from ..config import load_config
from ..errors import ConfigError
from ..plain import deployed_config


def whole_pipeline(cfg: Config, key: str) -> list[dict]:
    """The transforms of a config's test data, without annotations.

    Raises:
        ConfigError: it has none.
    """
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    if not dataset.get('pipeline'):
        raise ConfigError(f'{key}: it has no test_dataloader.dataset.pipeline, which says how this detector looks at '
                          'images')
    return [step for step in dataset['pipeline'] if step['type'] != 'LoadAnnotations']


class WholeImages:
    """Image files as a detector's own test pipeline shows them to it, whatever a training pipeline makes of them.

    Args:
        config (str | dict): of the detector, a file or a whole config.
        cfg_options (dict | None): changes to it.
        key (str): of ``config``, for messages.

    Raises:
        ConfigError: a config without a test pipeline.
    """

    def __init__(self, config: str | dict, cfg_options: dict | None, key: str) -> None:
        if isinstance(config, str):
            cfg = load_config(config, cfg_options)
        else:
            cfg = Config(dict(config) if 'model' in config else dict(model=config))
        steps = whole_pipeline(deployed_config(cfg), key)
        model = deployed_config(cfg).model
        said = json.dumps([steps, model.get('test_cfg'), model.get('data_preprocessor')], sort_keys=True, default=str)
        self.name = hashlib.blake2b(said.encode(), digest_size=8).hexdigest()
        """Of what decides, beside the weights, what is found in an image."""
        with DefaultScope.overwrite_default_scope('mmdet'):
            self._pipeline = Compose(steps)

    def __call__(self, path: str, image_id: Any) -> dict:
        """One image, ready for ``data_preprocessor``."""
        with DefaultScope.overwrite_default_scope('mmdet'):
            return self._pipeline(dict(img_path=path, img_id=image_id))
