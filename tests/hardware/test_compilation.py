import time

import pytest
import torch

from src.hardware import compilation
from src.hardware.compilation import fastest_kernels
from src.model import AffinityModel, build_model
from src.visnet.chunked_kernels import EAGER, ChunkedKernels
from src.visnet.message_passing import EdgeWeights
from tests.synthetic import random_batch, tiny_settings

BATCHES = [random_batch(1, seed=1), random_batch(2, seed=2)]
CPU = torch.device("cpu")


@pytest.fixture
def model() -> AffinityModel:
    torch.manual_seed(0)
    return build_model(tiny_settings(dropout=0.2)).train()


def slowed(kernels: ChunkedKernels) -> ChunkedKernels:
    def wait(kernel):
        def run(*arguments):
            time.sleep(0.02)
            return kernel(*arguments)

        return run

    return ChunkedKernels(*map(wait, kernels))


def choose(model: AffinityModel, num_steps: int | None = 10**9) -> ChunkedKernels:
    return fastest_kernels(model, BATCHES, num_steps=num_steps, device=CPU, precision=torch.float32)


def test_the_faster_kernels_are_taken(model, monkeypatch, caplog):
    caplog.set_level("INFO")
    plain, compiled = slowed(EAGER), ChunkedKernels(*EAGER)
    monkeypatch.setattr(compilation, "EAGER", plain)
    monkeypatch.setattr(compilation, "compiled_kernels", lambda: compiled)
    assert choose(model) is compiled
    assert "message passing is compiled" in caplog.text
    monkeypatch.setattr(compilation, "EAGER", compiled)
    monkeypatch.setattr(compilation, "compiled_kernels", lambda: plain)
    assert choose(model) is compiled
    assert "no faster here" in caplog.text
    assert choose(model, num_steps=None) is plain  # as the run did that goes on


def test_a_short_training_is_not_compiled(model, monkeypatch):
    monkeypatch.setattr(compilation, "compiled_kernels", lambda: pytest.fail("compiled"))
    assert choose(model, num_steps=3) is EAGER


def test_without_a_compiler_the_plain_kernels_are_used_and_it_is_said(model, monkeypatch, caplog):
    def no_compiler(*_):
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nand more")

    monkeypatch.setattr(compilation, "compiled_kernels", lambda: ChunkedKernels(no_compiler, no_compiler))
    for num_steps in (10**9, None):
        assert choose(model, num_steps) is EAGER
    assert (
        caplog.messages
        == [
            "message passing is not compiled, training is slower: "
            "RuntimeError: InvalidCxxCompiler: No working C++ compiler found"
        ]
        * 2
    )


@pytest.mark.parametrize("factor", [1.1, float("nan")])
def test_kernels_with_other_gradients_are_refused(factor, model, monkeypatch, caplog):
    def wrong(*arguments):
        nodes, feature, weights = EAGER.gradient_chunk(*arguments)
        return nodes, feature, EdgeWeights(*(factor * weight for weight in weights))

    monkeypatch.setattr(compilation, "compiled_kernels", lambda: ChunkedKernels(EAGER.message_chunk, wrong))
    assert choose(model, num_steps=None) is EAGER
    assert "gradients would differ" in caplog.text


def test_without_memory_to_try_the_plain_kernels_are_used(model, monkeypatch, caplog):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(compilation, "compiled_kernels", lambda: ChunkedKernels(full, full))
    assert choose(model) is EAGER
    assert "memory ran out while it was tried" in caplog.text


def test_trying_changes_nothing(model, monkeypatch):
    monkeypatch.setattr(compilation, "compiled_kernels", lambda: slowed(EAGER))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    choose(model)
    assert torch.equal(torch.rand(3), expected)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.representation.kernels is EAGER


@pytest.mark.slow
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lmax", [1, 2])
def test_compiled_kernels_compute_the_same(lmax, precision, caplog):
    """Needs a compiler; compiles for a minute."""
    caplog.set_level("INFO")
    model = build_model(tiny_settings(num_layers=4, lmax=lmax))
    kernels = fastest_kernels(model, BATCHES, num_steps=None, device=CPU, precision=precision)
    assert kernels is not EAGER, caplog.text
