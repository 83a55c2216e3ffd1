"""align_scale: by loops, equal maps untouched, gradients, degenerate channels and places, precision."""
import pytest
import torch

from kd_det.adapters import align_scale


def by_loops(student, teacher):
    """One channel after the other, one number after the other."""
    out = torch.empty_like(student)
    for c in range(student.shape[1]):
        mine = [float(v) for v in student[:, c].flatten()]
        theirs = [float(v) for v in teacher[:, c].flatten()]
        centre, other = sum(mine) / len(mine), sum(theirs) / len(theirs)
        spread = (sum((v - centre)**2 for v in mine) / len(mine))**0.5
        wanted = (sum((v - other)**2 for v in theirs) / len(theirs))**0.5
        for n in range(student.shape[0]):
            for y in range(student.shape[2]):
                for x in range(student.shape[3]):
                    out[n, c, y, x] = (float(student[n, c, y, x]) - centre) / spread * wanted + other
    return out


def maps(*shape, dtype=torch.float64, seed=0, scale=1.0, offset=0.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype) + offset


def test_formula_against_loops():
    student, teacher = maps(2, 3, 4, 5, scale=7, offset=-2), maps(2, 3, 3, 2, seed=1, scale=0.3, offset=5)
    torch.testing.assert_close(align_scale(student, teacher), by_loops(student, teacher), rtol=1e-6, atol=1e-6)
    found = align_scale(student, teacher)
    torch.testing.assert_close(found.mean((0, 2, 3)), teacher.mean((0, 2, 3)))
    torch.testing.assert_close(found.var((0, 2, 3), correction=0), teacher.var((0, 2, 3), correction=0), rtol=1e-6,
                               atol=0)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16])
def test_equal_maps_come_out_bit_for_bit(dtype):
    feature = maps(2, 4, 8, 8, scale=3, offset=1).to(dtype)
    assert torch.equal(align_scale(feature, feature.clone()), feature)


def test_scale_and_offset_of_the_students_channels_do_not_matter():
    student, teacher = maps(2, 3, 4, 5), maps(2, 3, 4, 5, seed=1)
    factor, shift = torch.tensor([2.0, 0.1, 30.0]).view(1, 3, 1, 1), torch.tensor([5.0, -3.0, 0.0]).view(1, 3, 1, 1)
    torch.testing.assert_close(align_scale(student * factor + shift, teacher), align_scale(student, teacher), rtol=1e-5,
                               atol=1e-5)


def test_the_gradient_runs_through_the_students_statistics_and_not_to_the_teacher():
    student, teacher = maps(2, 2, 2, 3).requires_grad_(), maps(2, 2, 2, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: align_scale(x, teacher.detach()), (student,))
    weights = maps(2, 2, 2, 3, seed=2)
    (align_scale(student, teacher) * weights).sum().backward()
    assert teacher.grad is None
    # standardised: moving or stretching a whole channel changes nothing, so the gradient is orthogonal to both
    centred = student.detach() - student.detach().mean((0, 2, 3), keepdim=True)
    torch.testing.assert_close(student.grad.sum((0, 2, 3)), torch.zeros(2, dtype=torch.float64), rtol=0, atol=1e-6)
    torch.testing.assert_close((student.grad * centred).sum((0, 2, 3)), torch.zeros(2, dtype=torch.float64), rtol=0,
                               atol=1e-6)


@pytest.mark.parametrize('shape', [(1, 2, 1, 1), (2, 2, 3, 3)])
def test_a_single_place_and_a_constant_channel_take_the_teachers_mean(shape):
    student, teacher = torch.full(shape, 0.3).requires_grad_(), maps(2, 2, 3, 3, dtype=torch.float32, seed=1)
    found = align_scale(student, teacher)
    torch.testing.assert_close(found, teacher.mean((0, 2, 3)).view(1, 2, 1, 1).expand(shape), rtol=1e-3, atol=1e-3)
    found.sum().backward()
    assert student.grad.isfinite().all()
    if shape[0] == 1:
        assert not student.grad.any()


def test_half_precision_is_computed_in_float32():
    student, teacher = maps(2, 3, 8, 8, scale=100, offset=900), maps(2, 3, 8, 8, seed=1)
    half = student.to(torch.float16)  # its variance is more than float16 can add up
    found = align_scale(half, teacher.to(torch.float16))
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.double(), align_scale(half.double(), teacher.to(torch.float16).double()),
                               rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize('shapes', [((2, 3, 4, 4), (2, 4, 4, 4)), ((2, 3), (2, 3))])
def test_what_is_no_pair_of_maps_is_refused(shapes):
    with pytest.raises(ValueError, match='two maps'):
        align_scale(torch.zeros(shapes[0]), torch.zeros(shapes[1]))
