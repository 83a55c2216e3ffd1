"""A frozen teacher whose answers are recorded once and read from then on."""
import hashlib
import json
import warnings
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..build import check_arguments
from ..errors import ConfigError
from ..weights import load_whole
from .answers import COLOURS, RecordedPass, apart, kept_for, names_for, not_finite, of_pass, runs_roi_head, together
from .frozen import FrozenTeacher
from .layers import LayerShape, part_of
from .passes import Pass
from .record import Record
from .recorded_boxes import ASK as BOXES
from .recorded_boxes import RecordedBoxes
from .shards import Shards, in_words
from .views import TOLERANCE, Colours, difference, view_of, words_of
from .weightless import apply_to_real, give_memory, without_weights
from .whole_images import WholeImages


class RecordedTeacher(FrozenTeacher):
    """A :class:`~kd_det.sources.frozen.FrozenTeacher` that answers from disk::

        teacher=dict(config=..., checkpoint=..., record='DIR')        # the first epoch records, later ones read
        teacher=dict(config=..., checkpoint=..., record=dict(folder='DIR', max_disk='200GB', missing='error'))

    What belongs to one exact view of an image is recorded: maps of hints' layers, RPN outputs, dense outputs; and what
    follows any geometric augmentation: final boxes (:mod:`kd_det.sources.recorded_boxes`). A view is
    an image in one size, mirrored or not (a mirrored feature map is not the feature map of the mirrored image, so it is
    a view of its own), on one padded canvas (padding reaches into features). The RoI head answers for the student's
    RoIs, which are others in each step: it runs, on recorded features. Terms that run more of the teacher are refused
    by name.

    Values are kept in half precision (relative rounding 2^-11, absolute 3e-8 near 0; single precision where a value is
    above 65504), and what is asked live is rounded alike, so that all epochs see the same.

    The network is built without weights; it gets them when something is missing, and never in a run of which everything
    is recorded. Answers are bound to the teacher's weights, config and ``scale_factor``: a folder of another teacher is
    refused. With no ``checkpoint`` the folder is taken at its word, nothing may be missing, and no RoI head runs.

    Args:
        record (str | dict): a folder, or the arguments of :class:`Record`.
        **teacher: see :class:`~kd_det.sources.frozen.FrozenTeacher`.

    Raises:
        ConfigError: a term that runs the network itself; answers of another teacher; in a step, missing answers
            (``missing='error'``), or an image whose colours are not those of the recorded one.
        ValueError: in a step, the live teacher's answers are not finite.
    """

    def __init__(self, config: str | dict, checkpoint: str | None = None, record: str | dict | None = None,
                 key: str = 'teacher', student_preprocessor: nn.Module | None = None, **teacher: Any) -> None:
        self._has_parameters = self._is_trained = False
        super().__init__(config, checkpoint, key=key, student_preprocessor=student_preprocessor, **teacher)
        self._config, self._cfg_options = config, teacher.get('cfg_options')
        place = f'{key}.record'
        record = dict(folder=record) if isinstance(record, str) else record
        self.record = Record(**check_arguments(place, record, Record, ('key',), 'a folder'), key=place)
        self.shards = Shards(self.record.folder, self.record.max_bytes, place)
        self.shards.scan()
        self._colours = Colours(student_preprocessor)
        self._asks: tuple[str, ...] = ()
        self._kept: list[str] = []
        self.boxes: RecordedBoxes | None = None
        self._where = torch.zeros(())  # goes where the detector goes
        self.counts = dict(read=0, asked=0)

    # -- before training --------------------------------------------------------------------------------------------
    def _built(self) -> nn.Module:
        with without_weights():
            return super()._built()

    def asked_by(self, terms: Sequence[Any]) -> None:
        """What the terms will ask.

        Raises:
            ConfigError: one that runs the network itself.
        """
        for term in terms:
            if term.asks() is None:
                self.refuse(term)
        asks = list(dict.fromkeys(ask for term in terms for ask in term.asks()))
        if BOXES in asks:
            images = WholeImages(self._config, self._cfg_options, f'{self.key}.config')
            self.boxes = RecordedBoxes(self.shards, images, self, f'{self.key}.record')
            asks.remove(BOXES)
        self._asks = tuple(asks)
        self._kept = kept_for(self._asks)

    @property
    def of_views(self) -> bool:
        """Whether anything is recorded that belongs to one exact view."""
        return bool(self._kept)

    @property
    def why_not_asked(self) -> str | None:
        """Why the live teacher is not asked for what is missing; None: it is."""
        if self.record.missing == 'error':
            return 'record.missing is \'error\''
        return None if self.checkpoint is not None else 'there is no checkpoint'

    def refuse(self, term: Any) -> None:
        """Raises :class:`ConfigError`, for a term that would run the network."""
        raise ConfigError(f'{self.key}.record: {term.key}, {type(term).__name__}, runs the teacher itself, not only '
                          'what can be recorded of a view; take record out, or give the term a source of its own')

    def probe(self, paths: Collection[str]) -> None:
        known = {path: self.shards.shapes.get(self._shape_name(path)) for path in paths}
        if all(known.values()):
            self.shapes = {path: LayerShape([tuple(level) for level in found['levels']], found['overwritten'])
                           for path, found in known.items()}
            return
        self._give_parameters()
        super().probe(paths)
        self.shards.shapes.update({self._shape_name(path): dict(levels=shape.levels, overwritten=shape.overwritten)
                                   for path, shape in self.shapes.items()})

    def _shape_name(self, path: str) -> str:
        return f'{path}@{self.rpn_levels}' if part_of(path) == 'rpn_head' else path

    def load(self) -> None:
        """Find out whose answers are wanted, and compare; once. No weights are kept, but those of a RoI head that runs.

        Raises:
            ConfigError: the record is of another teacher, or nothing says whose it is.
            CheckpointMismatch: the checkpoint does not hold this network.
        """
        if self.loaded:
            return
        state = None
        if self.checkpoint is None and self.shards.identities():
            self.weights_digest = self.shards.identities()[0]['weights']
        else:
            state = self._read_weights()
            self._check_fit(state)
            if self.inheritance is not None:
                own = self.model.state_dict()
                self.inheritance.hold({name: value for name, value in state.items() if name in own})
        self.shards.open(dict(weights=self.weights_digest, network=_hash_of(self._network_cfg),
                              scale_factor=str(self.scale_factor)))
        if runs_roi_head(self._asks):
            if state is None:
                raise ConfigError(f'{self.key}.checkpoint: found None; the RoI head answers for the student\'s RoIs '
                                  'and runs, on recorded features, so that its weights are needed')
            if not self._has_parameters:
                self._take_roi_head(state)
        self.loaded = True

    def _check_fit(self, state: dict) -> None:
        if self.strict and not self._has_parameters:
            with warnings.catch_warnings():
                warnings.simplefilter('ignore')  # PyTorch says that weights do not stay, which is meant
                load_whole(self.model, state, f'{self.key}.checkpoint {self.checkpoint}')

    def _take_roi_head(self, state: dict) -> None:
        give_memory(self.model.roi_head)
        load_whole(self.model.roi_head, {name.removeprefix('roi_head.'): value for name, value in state.items()
                                         if name.startswith('roi_head.')}, f'{self.key}.checkpoint {self.checkpoint}')
        apply_to_real(self.model, lambda tensor: tensor.to(self._where.device))

    # -- the network ------------------------------------------------------------------------------------------------
    @property
    def network(self) -> nn.Module:
        """The trained network, built and loaded for it."""
        self.load()
        if not self._is_trained:
            self._give_parameters()
            self._take_weights(self._read_weights())
            self._is_trained = True
        return self.model

    def _give_parameters(self) -> None:
        if not self._has_parameters:
            self.model = super()._built().to(self._where.device)
            self._has_parameters = True

    def release(self) -> None:
        """Let go of the network, which nothing has been asked of for a while."""
        if not self._has_parameters or self.checkpoint is None:
            return
        self._casts.undo()
        heads = self.model.roi_head if runs_roi_head(self._asks) else None
        self.model = self._built()
        if heads is not None:
            self.model.roi_head = heads
        apply_to_real(self.model, lambda tensor: tensor.to(self._where.device))
        self._has_parameters = self._is_trained = False

    def apply(self, fn: Any, detector: nn.Module) -> None:
        if self._follows(detector):
            self._where = fn(self._where)
            self._casts.undo()
            self.model._apply(fn) if self._has_parameters else apply_to_real(self.model, fn)

    def _device_type(self) -> str:
        return self._where.device.type

    # -- the step ---------------------------------------------------------------------------------------------------
    def open(self, inputs: Tensor, samples: list, whole: bool = True, rois: Any = None) -> Pass:
        self.load()
        answers = self.answers(inputs, samples)
        if self._has_parameters and runs_roi_head(self._asks):
            _ = self.network  # it was built to be examined, and nothing was missing
        found = None if self.boxes is None else lambda: self.boxes.of(samples, inputs.device)
        return RecordedPass(answers, found, model=self.model, inputs=inputs, samples=samples, shapes=self.shapes,
                            whole=True, rpn_levels=self.rpn_levels, around=self._precision, scale=self.scale_factor,
                            rois=None if rois is None else lambda: [self.scale_rois(boxes) for boxes in rois()])

    def answers(self, inputs: Tensor, samples: list) -> dict[str, Tensor]:
        """All that the terms ask about a batch, read or, where it is missing, asked and recorded.

        Args:
            inputs: (N, C, H, W), normalised and padded by the student's preprocessor.
            samples: N samples.

        Returns:
            dict[str, Tensor]: as :func:`kd_det.sources.answers.of_pass` names them; (N, ...), float32.
        """
        if not self._kept:
            return {}
        views = [view_of(sample, tuple(inputs.shape[-2:])) for sample in samples]
        colours = self._colours(inputs, samples)
        images, missing = [], []
        for i, (view, sample) in enumerate(zip(views, samples)):
            image = self.shards.read(view)
            if COLOURS in image:
                self._check_colours(image[COLOURS], colours[i], sample)
            if not image or self._names(image) is None:
                missing.append(i)
            images.append(image)
        if missing:
            for i, new in zip(missing, self._ask(inputs, samples, missing)):
                images[i] = {**images[i], **new}
                self.shards.add(views[i], {**{k: v for k, v in images[i].items() if k != COLOURS}, COLOURS: colours[i]})
        self.counts['read'] += len(views) - len(missing)
        self.counts['asked'] += len(missing)
        return together(images, self._names(images[0]), inputs.device)

    def _names(self, image: dict[str, np.ndarray]) -> list[str] | None:
        return names_for(self._kept, image, self.shapes, self.rpn_levels)

    def _check_colours(self, recorded: np.ndarray, seen: np.ndarray, sample: Any) -> None:
        found = difference(recorded, seen)
        if found > TOLERANCE:
            raise ConfigError(f'{self.key}.record: the colours of {words_of(sample)} are not those of the recorded '
                              f'view ({found:.1f} grey levels apart, {TOLERANCE:g} are allowed): the pipeline changes '
                              f'it at random, or otherwise than when {self.record.folder} was recorded, or the file is '
                              'another')

    @torch.no_grad()
    def _ask(self, inputs: Tensor, samples: list, missing: list[int]) -> list[dict[str, np.ndarray]]:
        """The live teacher's answers for some images of a batch."""
        why = self.why_not_asked
        if why is not None:
            raise ConfigError(f'{self.key}.record: {self.record.folder} has no answer for '
                              f'{words_of(samples[missing[0]])} on a canvas of {inputs.shape[-2]}x{inputs.shape[-1]} '
                              f'pixels, and {why}; record it (kd-det record), or let the run do it '
                              '(record.missing=\'record\' and a checkpoint)')
        _ = self.network
        if len(missing) < len(samples):
            inputs, samples = inputs[missing], [samples[i] for i in missing]
        found = super().open(inputs, samples, any(part_of(ask) != 'backbone' for ask in self._kept))
        images = apart(of_pass(found, self._kept, self.key))
        for image, sample in zip(images, samples):
            name = not_finite(image)
            if name is not None:
                raise ValueError(f'{self.key}: its answer {name} for {words_of(sample)} is inf or nan and is not '
                                 f'recorded; evaluate {self.key}.checkpoint {self.checkpoint}')
        return images

    # -- words ------------------------------------------------------------------------------------------------------
    def describe(self) -> list[str]:
        rule = 'is an error' if self.why_not_asked else 'is asked of the live teacher and recorded'
        lines = [*super().describe(), f'    answers from {self.record.folder}: {len(self.shards)} views, '
                 f'{in_words(self.shards.bytes)} of at most {in_words(self.record.max_bytes)}; what is missing {rule}']
        if self.boxes is not None:
            lines.append('    its boxes, with class distributions, are of whole images and follow the augmentation')
        if runs_roi_head(self._asks):
            lines.append('    its RoI head runs, on recorded features: it is asked about the student\'s RoIs')
        return lines


def _hash_of(network: dict) -> str:
    """16 hex digits of a detector's config, as far as it decides what the trained network says of a batch."""
    kept = {name: value for name, value in network.items() if name not in ('train_cfg', 'test_cfg', 'init_cfg')}
    return hashlib.blake2b(json.dumps(kept, sort_keys=True, default=str).encode(), digest_size=8).hexdigest()
