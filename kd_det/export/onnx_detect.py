"""Detections of an exported ONNX file by NumPy and ONNX Runtime alone. Images: (h, w, 3) uint8, BGR, as cv2 reads."""
import json

import numpy as np


def load(path):
    import onnxruntime
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    return session, json.loads(session.get_modelmeta().custom_metadata_map['kd_det'])


def prepare(image, meta):
    """An image that was resized to fit into the input -> (1, 3, H, W) float32: padded right and below, normalised."""
    canvas = np.full((*meta['input_size'], 3), meta['pad_value'], np.float32)
    canvas[:image.shape[0], :image.shape[1]] = image[..., ::-1] if meta['channel_order'] == 'rgb' else image
    return ((canvas - np.float32(meta['mean'])) / np.float32(meta['std'])).transpose(2, 0, 1)[None]


def feeds(image, meta):
    """What the session takes; a detector of two stages also asks where the image ends and padding begins."""
    return {'images': prepare(image, meta), **({'shape': np.float32(image.shape[:2])} if meta['takes_shape'] else {})}


def overlaps(one, others):
    sides = np.minimum(one[2:], others[:, 2:]) - np.maximum(one[:2], others[:, :2])
    both = np.prod(np.clip(sides, 0, None), axis=1)
    area = np.prod(one[2:] - one[:2]) + np.prod(others[:, 2:] - others[:, :2], axis=1) - both
    return both / np.maximum(area, 1e-6)


def detect(scores, boxes, shape, meta):
    """(P, C) scores, (P, 4) or (P, C, 4) boxes, (h, w) before padding -> boxes (n, 4), scores (n,), labels (n,)."""
    if meta['clip']:
        boxes = np.clip(boxes, 0, [shape[1], shape[0], shape[1], shape[0]])
    found, all_boxes = [], boxes
    for label in range(scores.shape[1]):
        boxes = all_boxes if all_boxes.ndim == 2 else all_boxes[:, label]
        own = np.flatnonzero((scores[:, label] > 0) & ((boxes[:, 2:] - boxes[:, :2]).min(1) > meta['min_size']))
        own = rest = own[np.argsort(-scores[own, label], kind='stable')]
        while len(rest):
            best, rest = rest[0], rest[1:]
            rest = rest[overlaps(boxes[best], boxes[rest]) <= meta['nms_iou']]
            box = boxes[best]
            if meta['vote']:  # PAA: mean of the overlapping boxes of the class
                near = overlaps(box, boxes[own])
                weight = np.exp(-(1 - near)**2 / 0.025) * scores[own, label] * (near > 0.01)
                if not weight.sum():  # a box without area
                    continue
                box = (weight[:, None] * boxes[own]).sum(0) / weight.sum()
            found.append((*box, scores[best, label], label))
    found = np.array(sorted(found, key=lambda row: -row[4])[:meta['max_per_image']] or np.zeros((0, 6)))
    return found[:, :4], found[:, 4], found[:, 5].astype(int)


def run(session, image, meta):
    """Boxes in pixels of the (resized) image."""
    scores, boxes = session.run(['scores', 'boxes'], feeds(image, meta))
    return detect(scores[0], boxes[0], image.shape[:2], meta)
