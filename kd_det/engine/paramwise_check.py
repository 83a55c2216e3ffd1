"""Settings of the optimizer that reach no parameter: MMEngine asks which names hold a key, and none need do."""
import difflib

from mmengine.runner import Runner

from ..errors import ConfigError


def check_custom_keys(runner: Runner) -> None:
    """Each of ``paramwise_cfg.custom_keys`` is in the name of a parameter.

    Raises:
        ConfigError: one that nearly is the name of a part, and of none; one that resembles nothing (configs carry keys
            for parts that not every size of a backbone has) is a warning.
    """
    wrapper = runner.optim_wrapper if isinstance(runner.optim_wrapper, dict) else {}
    keys = (wrapper.get('paramwise_cfg') or {}).get('custom_keys') or {}
    names = [name for name, _ in runner.model.named_parameters()]
    parts = {part for name in names for part in name.split('.')}
    for key in keys:
        if any(key in name for name in names):
            continue
        for word in str(key).split('.'):
            close = [] if word in parts else difflib.get_close_matches(word, parts, n=1, cutoff=0.8)
            if close:
                raise ConfigError(f'optim_wrapper.paramwise_cfg.custom_keys: no parameter has {key!r} in its name; did '
                                  f'you mean {close[0]!r}?')
        runner.logger.warning(f'optim_wrapper.paramwise_cfg.custom_keys: no parameter has {key!r} in its name, so that '
                              'it changes nothing')
