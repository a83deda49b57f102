"""This program beside three networks of PyTorch Geometric: same graphs, splits, seeds, epochs and batches.

python benchmarks/peers.py --data $AIDD_REAL_DATA --work FOLDER [--split cluster] [--seeds 1 2 3] [--networks ...]

Trains on the codes of index/cleansplit_train.txt. 'This program' is `main.py` by the recipe of
benchmarks/pretrained.py, its network alone and joined with its Gaussian process. SchNet and ViSNet are PyG's, ViSNet
in the size of the recipe, SchNet in that of its paper; GINE is that of docs/python.md with three layers of 64
channels. Each gets every edge of the graphs through src/data/pyg.py; SchNet and ViSNet take elements and positions,
as they are made to, GINE all node features and the kind and length of each edge. Optimizer, schedule, weight average
and the choice of the best epoch by the validation RMSE are those of the recipe; the learning rate is the better of
two by the validation RMSE after two epochs. What has run is not run again. The table joins the test sets of the
seeds.
"""

from __future__ import annotations

import argparse
import copy
import csv
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch_geometric.data import Data
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GINEConv, global_mean_pool
from torch_geometric.nn.models import SchNet, ViSNet

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.pretrained import RECIPE, clean_index, settings_of_run, train  # noqa: E402
from config import CONFIG  # noqa: E402
from src.data.dataset import Dataset, load_dataset  # noqa: E402
from src.data.pyg import EDGE_TYPES, ComplexDataset  # noqa: E402
from src.evaluation.metrics import compare, metrics_with_intervals, results_table  # noqa: E402
from src.graph import NODE_FEATURES, BondType  # noqa: E402
from src.settings import Settings, read_settings  # noqa: E402
from src.similarity.splits import compare_complexes, split_dataset  # noqa: E402

OURS = {"this program": "predicted_pK", "this program, network alone": "predicted_pK_network"}
LEARNING_RATES, TRIAL_EPOCHS = (5e-4, 1.5e-3), 2
CUTOFF = 6.0  # Å, of contacts, the longest edges


class GivenEdges(nn.Module):
    """In the place of a neighbour search: the edges of the graph."""

    def __init__(self, *, with_vectors: bool) -> None:
        super().__init__()
        self.with_vectors = with_vectors

    def forward(self, pos: Tensor, _: Tensor) -> tuple[Tensor, ...]:
        difference = pos[self.edges[0]] - pos[self.edges[1]]
        return (self.edges, difference.norm(dim=1), *([difference.clone()] if self.with_vectors else []))


class ByElements(nn.Module):
    """A network of elements and positions that searches neighbours with a module of its own."""

    def __init__(self, network: nn.Module, given: GivenEdges) -> None:
        super().__init__()
        self.network, self.given = network, given

    def forward(self, batch: Data) -> Tensor:
        self.given.edges = batch.edge_index
        found = self.network(batch.x[:, 0], batch.pos, batch.batch)
        return (found[0] if isinstance(found, tuple) else found)[:, 0]


class Gine(nn.Module):
    def __init__(self, width: int = 64, num_layers: int = 3) -> None:
        super().__init__()
        self.columns = nn.ModuleList(nn.Embedding(size, width) for size in NODE_FEATURES.values())
        self.relation, self.bond = nn.Embedding(len(EDGE_TYPES), width), nn.Embedding(len(BondType), width)
        self.distance, self.last = nn.Linear(1, width), nn.Linear(width, 1)
        shapes = [(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)) for _ in range(num_layers)]
        self.convs = nn.ModuleList(GINEConv(nn.Sequential(*layers)) for layers in shapes)
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in shapes)

    def forward(self, batch: Data) -> Tensor:
        x = sum(column(values) for column, values in zip(self.columns, batch.x.T, strict=True))
        source, target = batch.edge_index
        distance = (batch.pos[source] - batch.pos[target]).norm(dim=1, keepdim=True)
        edges = self.relation(batch.edge_type) + self.bond(batch.bond_type) + self.distance(distance)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = x + norm(conv(x, batch.edge_index, edges)).relu()
        return self.last(global_mean_pool(x, batch.batch))[:, 0]


def visnet() -> nn.Module:
    given, size = GivenEdges(with_vectors=True), {"hidden_channels": CONFIG["visnet_hidden_channels"], "num_heads": 8}
    layers = RECIPE["visnet_num_layers"]
    network = ViSNet(**size, num_layers=layers, num_rbf=32, max_z=119, cutoff=CUTOFF, reduce_op="mean")
    network.representation_model.distance = given
    return ByElements(network, given)


def schnet() -> nn.Module:
    given = GivenEdges(with_vectors=False)
    return ByElements(SchNet(cutoff=CUTOFF, interaction_graph=given, readout="mean"), given)


NETWORKS: dict[str, Callable[[], nn.Module]] = {"GINE": Gine, "SchNet": schnet, "ViSNet of PyG": visnet}


def main() -> None:
    options = _options()
    options.work.mkdir(parents=True, exist_ok=True)
    index = clean_index(options.data, options.work)
    torch.set_num_threads(options.threads)
    for seed in options.seeds:
        folder = options.work / f"{options.split}-{seed}"
        changes = settings_of_run(options, index, folder, seed) | {"split": options.split}
        if not (folder / "results" / "metrics.json").exists():
            train(changes)
        settings = read_settings({**CONFIG, **changes}, root=ROOT)
        dataset = load_dataset(settings.data, settings.graph, settings.processing)
        split = split_dataset(dataset, settings.data, seed, compare_complexes(dataset, settings.processing))
        for name in options.networks:
            path = folder / f"{name}.json"
            if not path.exists():
                path.write_text(json.dumps(_train(name, settings, dataset, split, seed)))
    print(_table(options))


def _train(name: str, settings: Settings, dataset: Dataset, split: dict[str, list[str]], seed: int) -> dict[str, float]:
    """Code -> pK of the test set, by the epoch with the least validation RMSE."""
    parts = {
        part: ComplexDataset(dataset.judged(codes), lambda data: data.to_homogeneous()) for part, codes in split.items()
    }
    parts["train"] = [*parts["train"]]  # made once
    trials = [_fit(name, settings, parts, seed, rate, TRIAL_EPOCHS) for rate in LEARNING_RATES]
    rate = LEARNING_RATES[int(np.argmin([rmse for rmse, _ in trials]))]
    rmse, network = _fit(name, settings, parts, seed, rate, settings.training.epochs)
    print(f"{name}, seed {seed}: learning rate {rate:g}, validation RMSE {rmse:.3f}", flush=True)
    codes = [one.graph.code for one in parts["test"].examples]
    return dict(zip(codes, _predict(network, parts["test"])[0].tolist(), strict=True))


def _fit(
    name: str, settings: Settings, parts: dict[str, ComplexDataset], seed: int, rate: float, num_epochs: int
) -> tuple[float, nn.Module]:
    """The least validation RMSE, and the network then."""
    torch.manual_seed(seed)
    network, training = NETWORKS[name](), settings.training
    loader = DataLoader(parts["train"], batch_size=training.batch_size, shuffle=True)
    labels = torch.cat([one.y for one in parts["train"]])
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=training.weight_decay)
    total, warmup = num_epochs * len(loader), training.warmup_epochs * len(loader)
    schedule = LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, (1 + math.cos(math.pi * min((step - warmup) / (total - warmup), 1))) / 2),
    )
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(training.ema_decay))
    best, kept = math.inf, network
    for _ in range(num_epochs):
        network.train()
        for batch in loader:
            optimizer.zero_grad()
            predicted = network(batch) * labels.std() + labels.mean()
            (predicted - batch.y).square().mean().backward()
            nn.utils.clip_grad_norm_(network.parameters(), training.gradient_clip_norm)
            optimizer.step()
            schedule.step()
            average.update_parameters(network)
        average.module.scale = labels.mean().item(), labels.std().item()
        predicted, measured = _predict(average.module, parts["validation"])
        rmse = float((predicted - measured).square().mean().sqrt())
        if rmse < best:
            best, kept = rmse, copy.deepcopy(average.module)
    return best, kept


@torch.no_grad()
def _predict(network: nn.Module, part: ComplexDataset) -> tuple[Tensor, Tensor]:
    network.eval()
    mean, deviation = network.scale
    batches = list(DataLoader(part, batch_size=32))
    return torch.cat([network(one) * deviation + mean for one in batches]), torch.cat([one.y for one in batches])


def _table(options: argparse.Namespace) -> str:
    """A line for each network, then how it differs from this program, on the same complexes."""
    found: dict[str, list[float]] = {name: [] for name in (*OURS, *options.networks)}
    measured, codes = [], []
    for seed in options.seeds:
        folder = options.work / f"{options.split}-{seed}"
        with (folder / "results" / "test_predictions.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        measured += [float(row["measured_pK"]) for row in rows]
        codes += [row["code"] for row in rows]
        for name, column in OURS.items():
            found[name] += [float(row[column]) for row in rows]
        for name in options.networks:
            told = json.loads((folder / f"{name}.json").read_text())
            found[name] += [told[row["code"]] for row in rows]
    labels, first = np.array(measured), np.array(found["this program"])
    lines = {name: metrics_with_intervals(np.array(told), labels, clusters=codes) for name, told in found.items()}
    differences = []
    for name, told in found.items():
        if name != "this program":
            change = compare(np.array(told), first, labels, clusters=codes)
            differences.append(f"{name}: RMSE {change['rmse']}, R {change['pearson']}")
    return "\n".join([results_table(lines), "", "less this program:", *differences])


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="PDBbind folder with index/cleansplit_train.txt")
    parser.add_argument("--work", type=Path, required=True, help="where runs and graphs are kept")
    parser.add_argument("--split", choices=("cluster", "time", "random"), default="cluster")
    parser.add_argument("--seeds", nargs="+", type=int, default=[1])
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
