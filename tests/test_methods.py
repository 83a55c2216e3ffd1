"""What the tests of precision, devices, ranks and hard data go over: nothing that ships is left out."""
from every_loss import LOSSES
from methods import IMPLIED, METHODS

import kd_det.losses
import kd_det.terms
from kd_det.config import DISTILLED
from kd_det.terms import Term


def types(value) -> set[str]:
    """Every ``type`` in nested dicts and lists."""
    if isinstance(value, dict):
        own = {value['type']} if isinstance(value.get('type'), str) else set()
        return own | {name for part in value.values() for name in types(part)}
    return {name for part in value for name in types(part)} if isinstance(value, (list, tuple)) else set()


class NoTeachers:
    def of(self, kind, seed=7):
        return dict(config=kind, checkpoint='t.pth')


def test_every_term_and_preset_is_a_method_here():
    found = {name for make in METHODS.values() for name in types(make(NoTeachers()).to_dict())}
    found |= {term for name in found for term in IMPLIED.get(name, ())}
    terms = {name for name in kd_det.terms.__all__ if issubclass(getattr(kd_det.terms, name), Term)} - {'Term'}
    assert terms | set(DISTILLED) <= found, (terms | set(DISTILLED)) - found


def test_every_loss_is_among_the_losses():
    registered = {name for name in kd_det.losses.__all__ if name.endswith('Loss')}
    assert registered == {label.split(',')[0] for label in LOSSES} and len(registered) >= 14
