"""Images about which nothing is known: a folder, or the images that an annotation file lists."""
import os.path as osp
from typing import Any

from mmengine.dataset import BaseDataset

from .image_folder import images_in, listed_images

KEY = 'unlabelled_dataloader.dataset'


class UnlabelledImages(BaseDataset):
    """Images without annotations, for ``unlabelled_dataloader``.

    Args:
        data_prefix (dict): ``img``, the folder of the images.
        ann_file (str): a COCO file whose images, and no others, are taken; its annotations are not read. Empty: every
            image below the folder.
        pipeline (list[dict]): as for training. ``LoadAnnotations`` may stand in it and finds no object.
        **dataset: ``data_root`` and what every data set of MMEngine takes.

    Raises:
        DataError: no such folder or file, no image in it, images that are not there.
    """

    METAINFO: dict = {}

    def __init__(self, ann_file: str = '', data_prefix: dict | None = None, **dataset: Any) -> None:
        super().__init__(ann_file=ann_file, data_prefix=dict(img='') if data_prefix is None else data_prefix, **dataset)

    def load_data_list(self) -> list[dict]:
        folder = self.data_prefix.get('img') or '.'
        return [dict(img_path=osp.join(folder, name), img_id=number, instances=[])
                for number, name in enumerate(self._names(folder))]

    def _names(self, folder: str) -> list[str]:
        if not self.ann_file:
            return images_in(f'{KEY}.data_prefix.img', folder)
        return listed_images(f'{KEY}.ann_file', self.ann_file, f'{KEY}.data_prefix.img', folder)
