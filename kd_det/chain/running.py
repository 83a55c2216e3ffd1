"""Run the links of a chain one after the other: finished ones are skipped, an interrupted one goes on."""
from collections.abc import Sequence
from typing import Any

from mmengine.config import Config
from mmengine.dist import barrier
from mmengine.logging import print_log

from ..compat.checkpoint import load
from ..engine.checkpoint_files import latest_whole
from ..engine.distributed import leave
from ..engine.resume_check import differences
from ..engine.run_lock import work_directory
from ..engine.training import train
from ..errors import ConfigError
from .links import Link


def run_chain(links: Sequence[Link], work_dir: str, anyway: bool = False) -> str:
    """Train what is not trained yet; the student at the end of the last link.

    Every link is an ordinary run in its own work directory, whose dumped config trains it alone. A run that stops
    (Ctrl-C, an error) ends the chain; the same command goes on from there.

    Args:
        links: of :func:`kd_det.chain.links.links_of`.
        work_dir (str): of the chain; it is held while it runs.
        anyway (bool): ``--resume-anyway``: also where a link was begun under another config.

    Returns:
        str: the last link's checkpoint.

    Raises:
        ConfigError: a pair that cannot be, before the first link; a link's directory with a run of another config or
            that began with other weights.
    """
    for link in links:
        link.build()
    with work_directory(work_dir):
        checkpoint = ''
        for link in links:
            if checkpoint:
                link.begins_with(checkpoint)
            checkpoint = _trained(link, len(links), anyway)
        leave()
    return checkpoint


def _trained(link: Link, of: int, anyway: bool) -> str:
    """The checkpoint at the end of a link, which is trained if it is not."""
    barrier()  # all processes have left the link before
    found = latest_whole(link.work_dir)
    done = found is not None and _is_finished(link, found, anyway)
    what = 'is finished' if done else 'goes on' if found else 'begins'
    print_log(f'chain: link {link.number} of {of} {what} ({link.work_dir})', 'current')
    barrier()  # none of them writes before all have looked
    if not done:
        train(link.cfg, 'auto' if found else None, anyway)
        barrier()
        found = latest_whole(link.work_dir)
        if found is None:
            raise ConfigError(f'default_hooks.checkpoint: link {link.number} left no checkpoint in {link.work_dir} for '
                              'the next to start from; save the last epoch with its optimizer')
    return found


def _is_finished(link: Link, path: str, anyway: bool) -> bool:
    """Whether a link's newest checkpoint is the end of its run; refuses one of another run."""
    meta: dict[str, Any] = load(path).get('meta') or {}
    if not _at_end(link.cfg, meta):
        return False
    differing = differences(meta.get('cfg') or '', link.cfg.pretty_text)
    if differing and not anyway:
        raise ConfigError(f'{link.work_dir}: link {link.number} was trained with another config, or from other '
                          'weights:\n  ' + '\n  '.join(differing[:8])
                          + '\nGive another --work-dir, remove that folder, or take it as it is with --resume-anyway')
    return True


def _at_end(cfg: Config, meta: dict) -> bool:
    loop = cfg.train_cfg
    name, end = ('iter', loop.max_iters) if loop.get('max_iters') else ('epoch', loop.max_epochs)
    return meta.get(name) == end
