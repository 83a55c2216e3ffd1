"""What one network says about one batch: each part runs when it is first asked for, and once."""
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from mmdet.models.detectors import DetectionTransformer
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor, nn

from ..heads.dense_outputs import DenseOutputs, decoder_of, training_format
from .distributions import distributions_of
from .layers import Captured, LayerShape, box_forward, head_features, part_of


class Pass:
    """One network on one batch.

    Args:
        model: the network, a detector.
        inputs: (N, C, H, W), as the network wants them.
        samples: N samples.
        shapes: layers that somebody will ask for, with what they return.
        whole: whether something behind the backbone will be asked for; else only the backbone runs.
        rpn_levels: levels at which the RPN runs; None: all.
        rois: the RoIs (R, 5) of each R-CNN stage in this network's pixels, for layers of its RoI head.
        around: a context in which the network runs (precision).
        grad: whether it is part of the training graph.
        scale: sides of ``inputs`` over what ``samples`` say of them.

    Attributes:
        runs_by_image: whether some images of the batch can run without the others.
    """

    runs_by_image = True

    def __init__(self, model: nn.Module, inputs: Tensor, samples: list, shapes: dict[str, LayerShape],
                 whole: bool = True, rpn_levels: list[int] | None = None,
                 rois: Callable[[], list[Tensor]] | None = None,
                 around: Callable[[], AbstractContextManager] = nullcontext, grad: bool = False,
                 scale: int = 1) -> None:
        self.model, self.inputs, self.samples = model, inputs, samples
        self._whole, self.rpn_levels, self._rois = whole, rpn_levels, rois
        self._around, self._grad, self.scale = around, grad, scale
        self._of_image: dict[int, list[Tensor]] = {}  # features of the images that have run alone
        self._captured = Captured(model, shapes)
        self._known: dict[Any, Any] = {}
        self.known: Tensor | None = None  # which of the student's classes it speaks about; None: all

    def once(self, key: Any, run: Callable[[], Any]) -> Any:
        """What ``run`` gives, from the first time that ``key`` is asked for; layers are listened to while it runs."""
        if key not in self._known:
            with torch.set_grad_enabled(self._grad and torch.is_grad_enabled()), self._around(), \
                    self._captured.listening():
                self._known[key] = run()
        return self._known[key]

    @property
    def features(self) -> tuple[Tensor, ...]:
        """What the neck (or the backbone, where there is none) gives, per level (N, C, h, w)."""
        return self.once('features', lambda: self.model.extract_feat(self.inputs))

    def backbone(self) -> None:
        """Run the backbone, and what is behind it where that will be asked for."""
        if self._whole:
            _ = self.features
        else:
            self.once('backbone', lambda: self.model.backbone(self.inputs))

    def rpn(self) -> dict[int, tuple[Tensor, Tensor]]:
        """Level -> (scores (N, A C, h, w), deltas (N, 4 A, h, w)) of the RPN."""
        features = self.features
        levels = list(range(len(features))) if self.rpn_levels is None else self.rpn_levels
        scores, deltas = self.once('rpn', lambda: self.model.rpn_head([features[j] for j in levels]))
        return {level: (scores[i], deltas[i]) for i, level in enumerate(levels)}

    def image_sizes(self) -> list[tuple[int, int]]:
        """(h, w) of each image without padding, in this network's pixels."""
        return [tuple(side * self.scale for side in sample.metainfo['img_shape'][:2]) for sample in self.samples]

    def proposed(self) -> list[Tensor]:
        """Boxes (p, 4) that the RPN proposes in each image, the best first, in this network's pixels."""
        features, head = self.features, self.model.rpn_head
        if self.rpn_levels in (None, list(range(len(features)))):
            outputs = tuple(zip(*self.rpn().values()))
        else:  # proposals need all levels
            outputs = self.once('whole rpn', lambda: head(features))
        metas = [dict(sample.metainfo, img_shape=size) for sample, size in zip(self.samples, self.image_sizes())]
        found = self.once('proposals', lambda: head.predict_by_feat(*outputs, batch_img_metas=metas, cfg=head.test_cfg))
        return [get_box_tensor(image.bboxes) for image in found]

    def detections(self) -> list[InstanceData]:
        """What the whole detector finds in each image after its NMS: boxes, scores, labels; in its own pixels."""
        model, samples = self.model, self.views()
        if isinstance(model, DetectionTransformer) or not (hasattr(model, 'bbox_head') or hasattr(model, 'rpn_head')):
            found = self.once('detections', lambda: model.predict(self.inputs, samples, rescale=False))
            return [sample.pred_instances for sample in found]
        features = self.features
        if not hasattr(model, 'rpn_head'):
            return self.once('detections', lambda: model.bbox_head.predict(features, samples, rescale=False))
        proposals = self.proposed_instances()
        return self.once('detections', lambda: model.roi_head.predict(features, proposals, samples, rescale=False))

    def proposed_instances(self) -> list[InstanceData]:
        """The proposals that :meth:`detections` come from."""
        features = self.features
        return self.once('proposed instances',
                         lambda: self.model.rpn_head.predict(features, self.views(), rescale=False))

    def distributions(self) -> list[Tensor]:
        """The class distribution (D, K) of each of :meth:`detections`: sigmoids of K = C classes, or a softmax over
        K = C + 1 with the background last; :func:`kd_det.sources.distributions.distributions_of`.
        """
        with self._around():
            return distributions_of(self)

    def views(self) -> list[DetDataSample]:
        """The images as this network sees them, without their objects."""
        return [self._sample(sample) for sample in self.samples]

    def _sample(self, sample: Any) -> DetDataSample:
        """An image as this network sees it, without its objects."""
        sides = {name: tuple(side * self.scale for side in sample.metainfo[name][:2])
                 for name in ('img_shape', 'pad_shape', 'batch_input_shape') if name in sample.metainfo}
        return DetDataSample(metainfo={**sample.metainfo, **sides})

    def rois(self) -> list[Tensor]:
        """The RoIs (R, 5) of each R-CNN stage that ran in the student, in this network's pixels."""
        if 'rois' not in self._known:  # whoever makes them may ask this very network: it is not listened to twice
            self._known['rois'] = self._rois() if self._rois is not None else []
        return self._known['rois']

    def rcnn(self, stage: int, asked: int) -> dict[str, Tensor]:
        """``cls_score`` (R, classes + 1) and ``bbox_pred`` that R-CNN stage ``stage`` of this network gives for the
        RoIs of stage ``asked`` of the student.
        """
        features, rois = self.features, self.rois()[asked]
        return self.once(('rcnn', stage, asked), lambda: box_forward(self.model, stage, features, rois))

    def rcnn_of(self, stage: int, asked: int, places: Tensor, alone: bool = False) -> dict[str, Tensor]:
        """:meth:`rcnn` of the RoIs at ``places`` (S,). The others are run as well where all are wanted: by a layer of
        the RoI head, or because they have been run.

        Args:
            alone: nobody will ask anything else in this step, so that only the images run that these RoIs are of.
        """
        if ('rcnn', stage, asked) in self._known or any(part_of(path) == 'roi_head' for path in self._captured.shapes):
            answer = self.rcnn(stage, asked)
            return {name: answer[name][places] for name in ('cls_score', 'bbox_pred')}
        rois = self.rois()[asked][places]
        if alone and self.runs_by_image and 'features' not in self._known:
            return self._rcnn_of_images(stage, rois)
        return self.rcnn_at(stage, rois)

    def _rcnn_of_images(self, stage: int, rois: Tensor) -> dict[str, Tensor]:
        """:meth:`rcnn_at`, for which only the images run that the RoIs are of, each once a step."""
        images, numbers = rois[:, 0].unique(return_inverse=True)
        images = images.long().tolist()
        missing = [image for image in images if image not in self._of_image]
        with torch.set_grad_enabled(self._grad and torch.is_grad_enabled()), self._around():
            if missing:
                levels = self.model.extract_feat(self.inputs if len(missing) == len(self.inputs)
                                                 else self.inputs[missing])
                self._of_image.update((image, [level[i:i + 1] for level in levels]) for i, image in enumerate(missing))
            features = tuple(torch.cat(level) for level in zip(*(self._of_image[image] for image in images)))
            return box_forward(self.model, stage, features, torch.cat([numbers[:, None].to(rois), rois[:, 1:]], 1))

    def rcnn_at(self, stage: int, rois: Tensor) -> dict[str, Tensor]:
        """The same about any RoIs (R, 5) in its own pixels; its layers are not listened to."""
        features = self.features
        with torch.set_grad_enabled(self._grad and torch.is_grad_enabled()), self._around():
            return box_forward(self.model, stage, features, rois)

    def dense(self) -> tuple:
        """What the dense head gives in training: its forward's outputs, per level."""
        features = self.features

        def run() -> tuple:
            with training_format(self.model.bbox_head):
                return self.model.bbox_head(features)
        return self.once('dense', run)

    def dense_outputs(self) -> DenseOutputs:
        """What the dense head says, in one form for all heads."""
        head, outputs = self.model.bbox_head, self.dense()
        return self.once('dense outputs', lambda: DenseOutputs.of(head, decoder_of(head, 'bbox_head'), outputs))

    def dense_again(self) -> DenseOutputs:
        """The dense head once more, as part of the training graph, with what somebody has put into its layers; it is
        not listened to. The gradient passes through the network and stops at its features.
        """
        head, features = self.model.bbox_head, self.features
        with self._around(), training_format(head):
            outputs = head(features)
        return DenseOutputs.of(head, decoder_of(head, 'bbox_head'), outputs)

    def layer(self, path: str) -> list[Tensor]:
        """The outputs of a layer, per level; runs what it belongs to, unless that has run already."""
        part = part_of(path)
        if part in ('backbone', 'neck'):
            self.backbone()
        elif part == 'rpn_head':
            self.rpn()
        elif part == 'roi_head':
            for stage in range(len(self.rois())):
                self.rcnn(stage, stage)
        elif isinstance(self.model, DetectionTransformer):
            features = self.features
            head_inputs = self.once('transformer', lambda: head_features(self.model, features, self.samples))
            if part == 'bbox_head':
                known = {name: head_inputs[name] for name in ('hidden_states', 'references') if name in head_inputs}
                self.once('dense', lambda: self.model.bbox_head(**known))
        else:
            self.dense()
        return self._captured.levels(path)
