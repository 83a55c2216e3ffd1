"""Several processes: what ``--launcher`` needs where MMEngine counts on a GPU."""
import ctypes
import gc
import os
import signal
import sys

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.device import get_device

from ..errors import ConfigError

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
TORCHRUN_VARIABLES = ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_ADDR', 'MASTER_PORT')


def prepare_launcher(cfg: Config, launcher: str) -> None:
    """Apply ``--launcher`` to the config and, without a GPU, start the process group.

    MMEngine gives every process a CUDA device and hands it to ``DistributedDataParallel``. Without CUDA this starts
    ``gloo`` instead, and the wrapper is one without devices, so that the same scripts run on CPU cores.

    Args:
        cfg (Config): changed in place: ``launcher`` and, without a GPU, ``model_wrapper_cfg``.
        launcher (str): none, pytorch, slurm or mpi.

    Raises:
        ConfigError: launcher pytorch outside torchrun; slurm or mpi without a GPU.
    """
    cfg.launcher = launcher
    if launcher == 'none':
        return
    missing = [name for name in TORCHRUN_VARIABLES if name not in os.environ]
    if launcher == 'pytorch' and missing:
        raise ConfigError(f'--launcher pytorch: {", ".join(missing)} not set in the environment; start with '
                          'torchrun --nproc-per-node COUNT -m kd_det train (or test) CONFIG ... --launcher pytorch')
    end_with_parent()
    if get_device() != 'cpu':
        return
    if launcher != 'pytorch':
        raise ConfigError(f'--launcher {launcher}: no accelerator was found, and on CPU cores only --launcher pytorch '
                          'works, with torchrun --nproc-per-node COUNT -m kd_det train CONFIG ... --launcher pytorch')
    if not dist.is_initialized():
        if torch.get_num_threads() * int(os.environ['WORLD_SIZE']) > (os.cpu_count() or 1) and \
                'OMP_NUM_THREADS' not in os.environ:
            torch.set_num_threads(1)  # processes that each use all cores slow each other down
        dist.init_process_group('gloo')
    wrapper = dict(cfg.get('model_wrapper_cfg') or dict(
        type='MMDistributedDataParallel', broadcast_buffers=False,
        find_unused_parameters=cfg.get('find_unused_parameters', False)))
    wrapper['device_ids'] = None
    cfg.model_wrapper_cfg = wrapper


def is_first_process() -> bool:
    """Whether this process is rank 0, also before any process group is there: launchers say it in the environment."""
    return os.environ.get('RANK', os.environ.get('SLURM_PROCID', os.environ.get('OMPI_COMM_WORLD_RANK', '0'))) == '0'


def end_with_parent() -> None:
    """Ask Linux for a SIGTERM when the launcher dies, so that a killed one leaves no ranks training on."""
    if sys.platform != 'linux':
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died in between
        raise SystemExit(128 + signal.SIGTERM)


def leave() -> None:
    """End the process group, if there is one, and with it gloo's threads.

    To be called when no one holds the runner any more: ``DistributedDataParallel`` keeps the group alive, its wrapper
    is part of reference cycles, and a thread of gloo that lets go of its last tensor while Python ends aborts the
    process ("terminate called without an active exception") after all work was done.
    """
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
        gc.collect()
