"""Two gloo ranks that are forked from the test's process, so that imports are paid for once."""
import datetime
import traceback
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch.distributed as dist


def forked(work: Any, folder: Path, *arguments: Any) -> None:
    """Runs ``work(rank, folder, *arguments)`` on both, in one process group; an error of either fails the test."""
    context = get_context('fork')
    ranks = [context.Process(target=_rank, args=(work, rank, folder, arguments)) for rank in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(150)
        process.kill()
    errors = ''.join(path.read_text() for path in folder.glob('error*'))
    assert not errors and [process.exitcode for process in ranks] == [0, 0], errors


def _rank(work: Any, rank: int, folder: Path, arguments: tuple) -> None:
    try:
        dist.init_process_group('gloo', init_method=f'file://{folder}/store', rank=rank, world_size=2,
                                timeout=datetime.timedelta(seconds=120))
        work(rank, folder, *arguments)
    except BaseException:
        (folder / f'error{rank}').write_text(traceback.format_exc())
        raise
