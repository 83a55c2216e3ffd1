"""Checkpoints from the web: whole or not at all, never waiting for ever, and every error names the URL."""
import http.client
import os.path as osp
import urllib.error
import urllib.request
from typing import BinaryIO
from urllib.parse import urlparse

import torch

from ..errors import CheckpointMismatch
from ..files import damage, write_whole

TIMEOUT = 60.0  # seconds without a byte
CHUNK = 1 << 20


def fetch(url: str, model_dir: str | None = None, file_name: str | None = None) -> str:
    """The local copy of ``url``, downloaded if there is none that is whole. Returns its path.

    The copy is where ``torch.hub`` would put it. It appears under its name only when as many bytes have arrived as the
    server announced; a copy that is damaged, as an interrupted download of an earlier version leaves it, is downloaded
    again.

    Raises:
        CheckpointMismatch: the server cannot be reached, refuses, stops in between or says nothing for a minute.
    """
    folder = model_dir or osp.join(torch.hub.get_dir(), 'checkpoints')
    path = osp.join(folder, file_name or osp.basename(urlparse(url).path))
    if osp.exists(path) and damage(path) is None:
        return path
    try:
        request = urllib.request.Request(url, headers={'User-Agent': 'kd_det'})
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            write_whole(path, lambda file: _copy(answer, file, url))
    except urllib.error.HTTPError as error:
        raise CheckpointMismatch(f'{url}: the server answered {error.code} {error.reason}; check the address, or '
                                 'download the file by hand and name it instead') from error
    except TimeoutError as error:
        raise CheckpointMismatch(f'{url}: the server said nothing for {TIMEOUT:g} s') from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise CheckpointMismatch(f'{url}: the server said nothing for {TIMEOUT:g} s') from error
        raise CheckpointMismatch(f'{url}: cannot be reached ({error.reason})') from error
    except (ConnectionError, http.client.HTTPException) as error:
        raise CheckpointMismatch(f'{url}: the connection broke ({error}); nothing of the file was kept') from error
    return path


def _copy(answer: BinaryIO, file: BinaryIO, url: str) -> None:
    announced, found = answer.headers.get('Content-Length'), 0
    while chunk := answer.read(CHUNK):
        file.write(chunk)
        found += len(chunk)
    if announced is not None and found != int(announced):
        raise CheckpointMismatch(f'{url}: {found} of {announced} bytes arrived; nothing of them was kept, try again')
