"""What the parts of gpu.py run on: the device, sizes that suit it, complexes, and trainers of the program."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path

import torch

from benchmarks.networks import OURS, NotHereError, set_form
from benchmarks.workload import drawn_graph
from config import CONFIG, GPU_6GB
from src.data.cache import GraphCache, protein_file
from src.data.dataset import Dataset, Example, load_dataset
from src.data.demo import write_demo
from src.data.packing import unpack
from src.graph import ComplexGraph
from src.hardware.device import DeviceError, choose_device
from src.model import ViSNet
from src.pdbbind.index import read_dataset, select_entries
from src.run.trainer_setup import make_loaders, make_trainer
from src.settings import GraphSettings, ModelSettings, Settings, read_settings
from src.system.storage import read_plain
from src.training import Trainer

ROOT = Path(__file__).resolve().parents[1]
NUM_DRAWN = 64  # complexes; a batch of more has some several times
SHARDS = "graphs-*.pt"  # of a folder of the cache


@dataclass(frozen=True)
class Sizes:
    """How much is run."""

    shape: dict[str, object]  # of the network, as in config.py
    num_complexes: int  # of the data set
    batch_sizes: tuple[int, ...]  # of the speeds
    window: int  # complexes of a training step elsewhere
    num_poses: int
    repeats: int
    seconds: float  # of a comparison of speeds
    epochs: int  # of a short training
    compiles: bool  # with forms and networks that take minutes to compile


ON_GPU = Sizes(
    shape=dict(GPU_6GB), num_complexes=400, batch_sizes=(1, 16, 64), window=16, num_poses=1500, repeats=15, seconds=3.0,
    epochs=10, compiles=True,
)  # fmt: skip
ON_CPU = Sizes(
    shape={**GPU_6GB, "visnet_hidden_channels": 16, "visnet_num_layers": 3, "visnet_num_rbf": 16, "batch_size": 4},
    num_complexes=20, batch_sizes=(1, 2), window=2, num_poses=30, repeats=3, seconds=1.0, epochs=4,
    compiles=False,
)  # fmt: skip


@dataclass
class Bench:
    """The device, what is run on it, and which forms of message passing are left out: those that made it unusable."""

    device: torch.device
    sizes: Sizes
    folder: Path
    data: Path | None = None
    without: frozenset[str] = frozenset()
    why_cpu: str = ""

    @property
    def is_gpu(self) -> bool:
        return self.device.type == "cuda"

    @cached_property
    def forms(self) -> list[str]:
        """The forms to try: those that are here."""
        wanted = [form for form in OURS if self.sizes.compiles or "compiled" not in form]
        return [form for form in wanted if form not in self.without and not self.why_not_here(form)]

    def why_not_here(self, form: str) -> str:
        """Why a form cannot be had; empty where it can."""
        try:
            set_form(ViSNet(self.model_settings()).to(self.device), form)
        except NotHereError as error:
            return str(error)
        return ""

    def wait(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize(self.device)

    def settings(self, name: str = "run", **changes: object) -> Settings:
        """Those of config.py for a small GPU, of a run in a folder of its own."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        paths = {
            "dataset_path": str(self.folder / "demo"),
            "processed_data_dir": str(self.folder / "processed_data"),
            "checkpoint_dir": str(folder),
            "results_dir": str(folder),
            "manual_save_trigger_file": str(folder / "SAVE_NOW.flag"),
        }
        training = {"message_passing": "fast", "processing_num_workers": 2, "ema_decay": 0.9, "scheduler": "cosine"}
        return read_settings({**CONFIG, **self.sizes.shape, **paths, **training, **changes}, root=ROOT)

    def model_settings(self, **changes: object) -> ModelSettings:
        return replace(self.settings().model, dropout=0.0, **changes)

    def examples(self, count: int) -> list[Example]:
        """Complexes of the size of real pockets: those of --data, else drawn ones; there may be some several times."""
        if self.data:
            found = self.dataset.examples
        else:
            settings = self.settings().graph
            found = [_drawn_example(number, settings) for number in range(min(count, NUM_DRAWN))]
        return [found[number % len(found)] for number in range(count)]

    @cached_property
    def dataset(self) -> Dataset:
        settings = self.settings()
        if self.data is None:
            write_demo(Path(settings.data.dataset_path), num_complexes=self.sizes.num_complexes)
            return load_dataset(settings.data, settings.graph, settings.processing)
        if list(self.data.glob(SHARDS)):
            return _of_graphs(self.data, self.sizes.num_complexes)
        table = _table_of_some(self.data, settings, self.folder / "some.csv", self.sizes.num_complexes)
        data = replace(settings.data, dataset_path=str(self.data), index_file=str(table))
        return load_dataset(data, settings.graph, settings.processing)

    def trainer(
        self, name: str, form: str = "fast", *, num_complexes: int | None = None, **changes: object
    ) -> tuple[Trainer, tuple]:
        """A trainer at the beginning of a run on the data set, and what its `fit` takes."""
        settings = self.settings(name, **changes)
        codes = [example.graph.code for example in self.dataset.examples[:num_complexes]]
        num_validation = max(1, len(codes) // 10)
        split = {"train": codes[num_validation:], "validation": codes[:num_validation], "test": []}
        trainer = make_trainer(settings, self.dataset, split, self.device, synthetic=self.data is None)
        set_form(trainer.model.representation, form)
        return trainer, make_loaders(settings, self.dataset, split, self.device)


def make_bench(folder: Path, data: Path | None = None, *, without: Sequence[str] = ()) -> Bench:
    """The first GPU if it works, else the CPU. Numbers are fp32 where nothing else is said: TF32 is off."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    why = ""
    try:
        device = choose_device("cuda")
    except DeviceError as error:
        device, why = torch.device("cpu"), str(error)
    sizes = ON_GPU if device.type == "cuda" else ON_CPU
    return Bench(device, sizes, folder, data, frozenset(without), why)


@cache
def _drawn_example(number: int, settings: GraphSettings) -> Example:
    return Example(drawn_graph(number, settings), 4.0 + number % 5)


def _of_graphs(folder: Path, most: int) -> Dataset:
    """A data set of graphs of the cache, which hold no labels: those are made up of the number of contacts."""
    graphs: list[ComplexGraph] = []
    for path in sorted(folder.glob(SHARDS)):
        graphs += unpack(read_plain(path))
    graphs = sorted({graph.code: graph for graph in graphs}.values(), key=lambda graph: graph.code)
    graphs = graphs[:: max(1, len(graphs) // most)][:most]
    examples = tuple(Example(graph, 2.0 + math.sqrt(graph.contacts.shape[1]) / 5) for graph in graphs)
    cache = GraphCache(folder, {graph.code: graph for graph in graphs}, (), 0, {}, {})
    return Dataset(examples, (), len(graphs), cache, {})


def _table_of_some(data: Path, settings: Settings, path: Path, most: int) -> Path:
    """A table of every k-th complex of a folder in the PDBbind layout: to build all graphs would take too long."""
    index, files = read_dataset(data, None)
    entries, _ = select_entries(index.entries, settings.data)
    usable = [one for one in entries if one.code in files and files[one.code].ligands]
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["code", "protein_path", "ligand_path", "pK"])
        for one in usable[:: max(1, len(usable) // most)][:most]:
            found = files[one.code]
            if protein := protein_file(found, settings.data.structure):
                rows.writerow([one.code, protein.resolve(), found.ligands[0].resolve(), one.pk])
    return path
