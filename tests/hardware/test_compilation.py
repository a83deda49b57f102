import sys
import time
from collections.abc import Callable
from functools import partial

import pytest
import torch

from src.graph import Batch
from src.hardware import compilation
from src.hardware.compilation import fastest_kernels
from src.model import AffinityModel, build_model
from src.visnet.chunked_kernels import EAGER, ChunkedKernels
from src.visnet.kernels import Kernels
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

    return ChunkedKernels(*map(wait, kernels[:2]))


def choose(model: AffinityModel, num_steps: int = 10**9, earlier: str | None = None) -> Kernels:
    common = {"device": CPU, "precision": torch.float32}
    name, kernels = fastest_kernels(model, BATCHES, num_steps=num_steps, earlier=earlier, **common)
    assert (name == "plain") == (kernels is compilation.EAGER)
    return kernels


def test_the_faster_kernels_are_taken(model, monkeypatch, caplog):
    caplog.set_level("INFO")
    plain, compiled = slowed(EAGER), ChunkedKernels(*EAGER)
    monkeypatch.setattr(compilation, "EAGER", plain)
    monkeypatch.setattr(compilation, "compiled_kernels", lambda *_: compiled)
    assert choose(model) is compiled
    assert "message passing is compiled" in caplog.text
    monkeypatch.setattr(compilation, "EAGER", compiled)
    monkeypatch.setattr(compilation, "compiled_kernels", lambda *_: plain)
    assert choose(model) is compiled
    assert "no faster here" in caplog.text
    assert choose(model, earlier="compiled") is plain  # as the run did that goes on


def test_a_short_training_is_not_compiled(model, monkeypatch):
    monkeypatch.setattr(compilation, "compiled_kernels", lambda *_: pytest.fail("compiled"))
    assert choose(model, num_steps=3) is EAGER


def test_without_a_compiler_the_plain_kernels_are_used_and_it_is_said(model, monkeypatch, caplog):
    def no_compiler(*_):
        raise RuntimeError("InvalidCxxCompiler: No working C++ compiler found\nand more")

    monkeypatch.setattr(compilation, "compiled_kernels", lambda *_: ChunkedKernels(no_compiler, no_compiler))
    for earlier in (None, "compiled"):
        assert choose(model, earlier=earlier) is EAGER
    assert (
        caplog.messages
        == [
            "message passing is not compiled, training is slower: "
            "RuntimeError: InvalidCxxCompiler: No working C++ compiler found"
        ]
        * 2
    )


def scaled_gradient(factor, *arguments):
    nodes, feature, weights = EAGER.gradient_chunk(*arguments)
    return nodes, feature, EdgeWeights(*(factor * weight for weight in weights))


@pytest.mark.parametrize("factor", [1.1, float("nan")])
def test_kernels_with_other_gradients_are_refused(factor, model, monkeypatch, caplog):
    wrong = partial(scaled_gradient, factor)
    monkeypatch.setattr(compilation, "compiled_kernels", lambda *_: ChunkedKernels(EAGER.message_chunk, wrong))
    assert choose(model, earlier="compiled") is EAGER
    assert "gradients would differ" in caplog.text


def test_without_memory_to_try_the_plain_kernels_are_used(model, monkeypatch, caplog):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(compilation, "compiled_kernels", lambda *_: ChunkedKernels(full, full))
    assert choose(model) is EAGER
    assert "memory ran out while it was tried" in caplog.text


def test_trying_changes_nothing(model, monkeypatch):
    monkeypatch.setattr(compilation, "compiled_kernels", lambda *_: slowed(EAGER))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    choose(model)
    assert torch.equal(torch.rand(3), expected)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.representation.kernels is EAGER


@pytest.fixture
def on_a_card(model: AffinityModel, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[str, Kernels]]:
    """Chooses as on a CUDA GPU, where batches stay on the CPU and the given kernels stand for Triton's."""

    def choose_on_card(
        by_triton: Kernels | None, plain: Kernels = EAGER, free: float = 1e9, **more: object
    ) -> tuple[str, Kernels]:
        monkeypatch.setattr(compilation, "triton_kernels", lambda _model: by_triton)
        monkeypatch.setattr(compilation, "EAGER", plain)
        monkeypatch.setattr(Batch, "to", lambda batch, _device: batch)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (free, 6e10))
        monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _device: 0)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _device: 0)
        common = {"num_steps": 1, "device": torch.device("cuda"), "precision": torch.float32}
        return fastest_kernels(model, BATCHES, **common, **more)

    return choose_on_card


def test_triton_is_taken_on_a_card_however_short_the_run_is(on_a_card, model, caplog):
    caplog.set_level("INFO")
    by_triton = ChunkedKernels(*EAGER)
    assert on_a_card(by_triton, slowed(EAGER))[0] == "triton"
    assert "message passing is by Triton" in caplog.text
    assert on_a_card(slowed(EAGER))[0] == "plain"
    assert "message passing is not by Triton: that is no faster here" in caplog.text
    assert on_a_card(None, slowed(EAGER))[0] == "plain"
    model.representation.message_passing = "lean"
    assert on_a_card(by_triton, slowed(EAGER))[0] == "plain"


def test_triton_is_not_taken_where_it_fails_or_differs(on_a_card, caplog):
    def fails(*_):
        raise RuntimeError("PTX compilation failed")

    assert on_a_card(ChunkedKernels(fails, fails), slowed(EAGER))[0] == "plain"
    assert "message passing is not by Triton, training is slower: RuntimeError: PTX compilation failed" in caplog.text
    assert on_a_card(ChunkedKernels(EAGER.message_chunk, partial(scaled_gradient, 2.0)), slowed(EAGER))[0] == "plain"
    assert "message passing is not by Triton: gradients would differ" in caplog.text


def test_a_run_by_triton_goes_on_by_triton_if_it_can(on_a_card):
    assert on_a_card(slowed(EAGER), earlier="triton")[0] == "triton"
    assert on_a_card(None, slowed(EAGER), earlier="triton")[0] == "plain"


@pytest.mark.parametrize(("free", "elements"), [(1e8, None), (2e9, 2**20 + int(0.85e9 / 180)), (8e9, 2**24)])
def test_without_triton_chunks_are_as_long_as_the_free_memory_allows(on_a_card, free, elements):
    """Usable are 85 % of what is free, of which chunks take half; at lmax 1 an element takes 180 bytes."""
    name, kernels = on_a_card(None, free=free)
    assert name == "plain"
    assert kernels.elements == elements
    assert kernels.longest_run(64, torch.device("cuda")) == (elements or 2**20) // 64


@pytest.mark.parametrize(("changes", "reason"), [({"hidden_channels": 48}, "powers of two"), ({}, "triton halted")])
def test_without_triton_it_is_said_why(changes, reason, caplog, monkeypatch):
    caplog.set_level("INFO")
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "src.visnet.triton_kernels", raising=False)
    model = build_model(tiny_settings(**changes)).representation
    assert compilation.triton_kernels(model) is None
    assert "no Triton kernels" in caplog.text
    assert reason in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lmax", [1, 2])
def test_compiled_kernels_compute_the_same(lmax, precision, caplog):
    """Needs a compiler; compiles for a minute."""
    caplog.set_level("INFO")
    model = build_model(tiny_settings(num_layers=4, lmax=lmax))
    common = {"device": CPU, "precision": precision}
    _, kernels = fastest_kernels(model, BATCHES, num_steps=1, earlier="compiled", **common)
    assert kernels is not EAGER, caplog.text
