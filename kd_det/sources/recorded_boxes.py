"""What a teacher finds in whole images, recorded once an image and carried into every view of it."""
import hashlib
import json
import os.path as osp
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from mmdet.structures.bbox import get_box_tensor
from mmengine.dataset import pseudo_collate
from mmengine.structures import InstanceData
from torch import Tensor

from ..datasets.followed_views import in_view
from ..errors import ConfigError
from .passes import Pass
from .shards import Shards
from .views import file_size
from .whole_images import WholeImages

ASK = 'boxes'
"""How terms ask for it; see :meth:`kd_det.terms.term.Term.asks`."""


class RecordedBoxes:
    """The final boxes of a teacher, each with its whole class distribution, by image file::

        boxes/boxes          (D, 4) float32, xyxy in pixels of the file       half precision would lose half a pixel
        boxes/scores         (D,)   float32                                   compared with thresholds
        boxes/labels         (D,)   int32
        boxes/distribution   (D, K) float16     sigmoids of K = C classes, or a softmax over K = C + 1, background last

    The teacher looks at the whole image through the test pipeline of its own config, at the size that it was made for.
    A view's boxes are the whole image's, moved as the view's ground truth is (resized, mirrored, cropped, rotated, see
    :mod:`kd_det.datasets.followed_views`), so that an image has one entry whatever is drawn for it. So they are not the
    boxes that a live teacher finds in that view, except where it looks at the same pixels.

    Args:
        shards: where entries are.
        images: shows image files.
        teacher: of which what is missing is asked; a :class:`kd_det.sources.recorded.RecordedTeacher`.
        key (str): of the record, for messages.
    """

    def __init__(self, shards: Shards, images: WholeImages, teacher: Any, key: str) -> None:
        self.shards, self.images, self.teacher, self.key = shards, images, teacher, key

    def of(self, samples: list, device: torch.device) -> list[InstanceData]:
        """What the teacher finds in the image of each sample, where the sample shows it: ``bboxes`` (d, 4) in the
        sample's pixels, ``scores`` (d,), ``labels`` (d,), and ``distribution`` (d, K) where it is known; float32.
        """
        return [self._in_view(self.entry(sample.metainfo), sample.metainfo, device) for sample in samples]

    def entry(self, meta: dict) -> dict[str, np.ndarray]:
        """The arrays of one image, read, or asked and recorded.

        Args:
            meta: with ``img_path`` and ``img_id``.

        Raises:
            ConfigError: nothing is recorded for it, and nothing may be missing.
        """
        name = self.name_of(meta)
        found = self.shards.read(name)
        if found:
            self.teacher.counts['read'] += 1
            return found
        why = self.teacher.why_not_asked
        if why is not None:
            raise ConfigError(f'{self.key}: {self.shards.folder} has no boxes of image {meta.get("img_path")}, and '
                              f'{why}; record them (kd-det record), or let the run do it (record.missing=\'record\' '
                              'and a checkpoint)')
        found = self._ask(meta)
        self.shards.add(name, found)
        self.teacher.counts['asked'] += 1
        return found

    def name_of(self, meta: dict) -> str:
        """16 hex digits for an image file (name and bytes) and how the teacher looks at it."""
        path = meta.get('img_path') or ''
        what = [ASK, self.images.name, osp.basename(path), file_size(path), str(meta.get('img_id'))]
        return hashlib.blake2b(json.dumps(what).encode(), digest_size=8).hexdigest()

    @torch.no_grad()
    def _ask(self, meta: dict) -> dict[str, np.ndarray]:
        model = self.teacher.network
        data = model.data_preprocessor(pseudo_collate([self.images(meta['img_path'], meta.get('img_id'))]), False)
        inputs, samples = data['inputs'], data['data_samples']
        inputs = inputs.to(memory_format=torch.channels_last) if self.teacher.channels_last else inputs
        found = Pass(model, inputs, samples, {}, around=self.teacher._precision)
        image = found.detections()[0]
        w_scale, h_scale = samples[0].metainfo.get('scale_factor', (1.0, 1.0))[:2]
        boxes = get_box_tensor(image.bboxes).float()
        boxes = boxes / boxes.new_tensor([w_scale, h_scale, w_scale, h_scale])
        parts = {'boxes': boxes, 'scores': image.scores.float(), 'labels': image.labels.int()}
        with suppress(ConfigError):  # of some detectors they are not known, which matters where a term asks for them
            parts['distribution'] = found.distributions()[0].half()
        for name, value in parts.items():
            if not bool(value.isfinite().all()):
                raise ValueError(f'{self.teacher.key}: {name} of its boxes in {meta["img_path"]} are inf or nan and '
                                 f'are not recorded; evaluate {self.teacher.key}.checkpoint {self.teacher.checkpoint}')
        return {f'{ASK}/{name}': value.cpu().numpy() for name, value in parts.items()}

    def _in_view(self, entry: dict[str, np.ndarray], meta: dict, device: torch.device) -> InstanceData:
        def tensor(name: str) -> Tensor:
            return torch.from_numpy(np.array(entry[f'{ASK}/{name}']))
        boxes, shown = in_view(tensor('boxes'), meta, self.key)
        parts = dict(bboxes=boxes, scores=tensor('scores'), labels=tensor('labels').long())
        if f'{ASK}/distribution' in entry:
            parts['distribution'] = tensor('distribution').float()
        return InstanceData(**{name: value[shown].to(device) for name, value in parts.items()})
