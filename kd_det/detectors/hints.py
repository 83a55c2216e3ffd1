"""The ``hints`` key of the presets."""
from typing import Any

from ..errors import ConfigError


def hint_terms(hints: Any) -> list[tuple[str, dict]]:
    """(config key, config) of a term for each hint.

    Several hints on one layer are told apart in the log by a number.

    Raises:
        ConfigError: no list of dicts.
    """
    if not isinstance(hints, (list, tuple)) or not all(isinstance(cfg, dict) for cfg in hints):
        raise ConfigError(f'hints: found {hints!r}; a list of dicts is expected, hints=[dict(layer=...)]')
    layers = [cfg.get('layer') for cfg in hints]
    found = []
    for i, cfg in enumerate(hints):
        cfg = dict(cfg, type='Hint')
        if layers.count(cfg.get('layer')) > 1:
            cfg.setdefault('name', str(layers[:i].count(cfg['layer'])))
        found.append((f'hints[{i}]', cfg))
    return found
