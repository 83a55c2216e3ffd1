"""Mixed precision: every method trains under bf16 autocast without a term that is not finite."""
import pytest
import torch
from conftest import build, make_batch, total
from methods import METHODS


def steps(method, teachers, count):
    """Train as ``AmpOptimWrapper`` does: losses under autocast, the backward pass outside."""
    model = build(METHODS[method](teachers), 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    # PyTorch's bf16 convolution of a map of one pixel gives random gradients on the CPU (MMDetection's own RetinaNet
    # has them too): images are so large that no level is convolved from one pixel
    batches = [make_batch(sizes=((96, 96),), objects=(count,), seed=count) for count in (2, 3, 0)]
    for step in range(count):
        data = model.data_preprocessor(batches[step % 3], True)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            losses = model.loss(data['inputs'], data['data_samples'])
            loss = total(losses)
        values = {name: float((sum(v) if isinstance(v, list) else v).detach()) for name, v in losses.items()}
        assert all(value == value and abs(value) != float('inf') for value in values.values()), (step, values)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 35.0, error_if_nonfinite=True)
        optimizer.step()
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    return model


@pytest.mark.parametrize('method', METHODS)
def test_bf16_stays_finite(method, teachers):
    steps(method, teachers, 30)


@pytest.mark.slow
@pytest.mark.parametrize('method', METHODS)
def test_bf16_stays_finite_for_300_steps(method, teachers):
    steps(method, teachers, 300)


@pytest.mark.skipif(not torch.cuda.is_available(), reason='fp16 needs a GPU: its scaler and its kernels')
@pytest.mark.slow
@pytest.mark.parametrize('method', METHODS)
def test_fp16_stays_finite_for_300_steps(method, teachers):
    model = build(METHODS[method](teachers), 1).cuda()
    optimizer, scaler = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9), torch.amp.GradScaler('cuda')
    for step in range(300):
        data = model.data_preprocessor(make_batch(sizes=((64, 64),) * 2, objects=(2, step % 3), seed=step % 7), True)
        with torch.autocast('cuda', dtype=torch.float16):
            losses = model.loss(data['inputs'], data['data_samples'])
            loss = total(losses)
        assert all(bool(torch.as_tensor(sum(v) if isinstance(v, list) else v).isfinite())
                   for v in losses.values()), step
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
