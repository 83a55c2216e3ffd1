"""SSD predicts: MMDetection 3.3's ``BaseDenseHead`` asks every head for a ``loss_cls``, and ``SSDHead`` has none."""


def install() -> None:
    """Give ``SSDHead`` the answer "nothing special" where it has none; idempotent, needs ``mmdet``."""
    from mmdet.models.dense_heads import SSDHead
    if not hasattr(SSDHead, 'loss_cls'):
        SSDHead.loss_cls = None
