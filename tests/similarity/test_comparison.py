"""Identity of sequences, similarity of ligands, the candidates of the aligner and the clusters."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from src.similarity.comparison import Similarity, Thresholds, main_chains, scaffold, sequence_identity
from tests.similarity.relatives import ASPIRIN, CAFFEINE, PARACETAMOL, draw, mutated

THRESHOLDS = Thresholds(identity=0.5, tanimoto=0.9, same_protein=0.9)


def pocket(sequence: str, seed: int, share: float = 0.4) -> str:
    """Runs of residues stay, the others become X, as they do around two ligands of different size."""
    rng = np.random.default_rng(seed)
    keep = np.repeat(rng.random(len(sequence) // 4 + 1) < share, 4)[: len(sequence)]
    return "".join(letter if kept else "X" for letter, kept in zip(sequence, keep, strict=True)).strip("X")


# Identity


@pytest.mark.parametrize(
    ("first", "second", "identity"),
    [
        ("ACDEFGHIKL", "ACDEFGHIKL", 1.0),
        ("ACDEFGHIKL", "ACDEWGHIKL", 0.9),  # 9 of 10
        ("ACDEFGHIKL", "MMMACDEFGHIKLMMM", 1.0),  # a construct with tags
        ("ACDEFGHIKLMNPQRSTVWY", "ACDEXXXIKLMNPQRSTVWY", 1.0),  # what is not known is not compared
        ("WWWWWWWWWWACDEFGHIKL", "ACDEFGHIKLCCCCCCCCCC", 1.0),  # the overhanging halves are not compared
        ("XXX", "ACD", 0.0),
        ("", "ACD", 0.0),
    ],
)
def test_identities_counted_by_hand(first: str, second: str, identity: float) -> None:
    assert sequence_identity(first, second) == pytest.approx(identity)
    assert sequence_identity(second, first) == pytest.approx(identity)


def test_a_few_residues_that_agree_make_no_identity() -> None:
    # 3 of 3 compared residues agree, and 3 of the 20 / 2 that count at least.
    assert sequence_identity("A" * 17 + "WCH", "WCH" + "P" * 17) == pytest.approx(0.3)


def test_unrelated_sequences_and_pockets_stay_far_below_the_thresholds() -> None:
    pairs = [(draw(seed), draw(seed + 1000)) for seed in range(60)]
    assert max(sequence_identity(*pair) for pair in pairs) < 0.5
    assert np.mean([sequence_identity(*pair) for pair in pairs]) < 0.25
    pockets = [sequence_identity(pocket(one, 1), pocket(other, 2)) for one, other in pairs]
    assert np.percentile(pockets, 95) < 0.5


def test_two_pockets_of_one_protein_are_that_protein() -> None:
    identities = [sequence_identity(pocket(draw(n, 200), n, 0.5), pocket(draw(n, 200), n + 50, 0.5)) for n in range(20)]
    assert np.median(identities) == 1.0
    assert min(identities) > 0.5


def test_short_chains_beside_a_long_one_are_not_compared() -> None:
    protein, peptide = draw(0, 100), "GGGGG"
    assert main_chains([protein, peptide, protein[:60]]) == sorted([protein, protein[:60]])
    assert main_chains([peptide]) == [peptide]
    assert main_chains([]) == main_chains(["", "XX"]) == []


# Candidates


def test_the_prefilter_loses_no_pair_that_brute_force_finds() -> None:
    chains = [
        [mutated(draw(family), share, seed=n)] for family in range(5) for n, share in enumerate(np.arange(0, 0.6, 0.04))
    ]
    similarity = Similarity(chains, [""] * len(chains))
    numbers = range(len(similarity.sequences))
    for limit in (0.9, 0.7, 0.5):
        alike = {pair for pair in combinations(numbers, 2) if similarity.chain_identity(*pair) > limit}
        candidates = set(similarity._candidates(limit))
        assert alike <= candidates
        assert len(candidates) < 0.35 * len(list(combinations(numbers, 2)))
    assert len(alike) > 200


def test_chains_of_a_few_residues_are_compared_with_all() -> None:
    fragments = ["DAXXXXXXXG", "DAXXXXXXXGW", "MKXXXXXXXHI", "ACDEFXXDAXXXXXXXG"]
    similarity = Similarity([[one] for one in fragments], [""] * 4)
    assert set(similarity._candidates(0.9)) | {pair[::-1] for pair in similarity._candidates(0.9)} >= {(0, 1), (0, 2)}
    assert similarity.has_identity_above(0, [1], 0.9)
    assert similarity.clusters(THRESHOLDS).tolist() == [0, 0, 1, 0]


def test_the_nearest_is_alike_in_protein_and_ligand() -> None:
    one = draw(1)
    chains = [[one], [draw(2)], [mutated(one, 0.05)], [mutated(one, 0.05, seed=3)], []]
    similarity = Similarity(chains, [ASPIRIN, ASPIRIN, CAFFEINE, ASPIRIN, ""])
    nearest = similarity.nearest(0, [1, 2, 3, 4])
    assert (nearest.number, nearest.tanimoto) == (3, 1.0)
    assert nearest.identity == pytest.approx(0.95, abs=0.02)
    assert similarity.nearest(4, [1, 2]).identity == 0.0
    assert similarity.has_identity_above(0, [1, 2], 0.9)
    assert not similarity.has_identity_above(0, [1], 0.9)
    assert not similarity.has_identity_above(0, [], 0.0)


# Ligands


def test_tanimoto_of_equal_other_and_unreadable_ligands() -> None:
    similarity = Similarity([[]] * 5, [ASPIRIN, "O=C(O)c1ccccc1OC(C)=O", CAFFEINE, "", "not a molecule"])
    table = similarity.tanimoto(0, range(5))
    assert table[:2].tolist() == [1.0, 1.0]
    assert 0 < table[2] < 0.3
    assert table[3:].tolist() == [0.0, 0.0]
    assert similarity.tanimoto(3, range(5)).tolist() == [0.0] * 5


def test_scaffolds() -> None:
    assert scaffold(ASPIRIN) == scaffold(PARACETAMOL) == "c1ccccc1"
    assert scaffold(CAFFEINE) != "c1ccccc1"
    assert scaffold("CCO") == scaffold("") == scaffold("not a molecule") == ""


# Clusters


def brute_force_clusters(similarity: Similarity, thresholds: Thresholds) -> list[int]:
    """Labels spread along links until nothing changes."""
    count = len(similarity)
    label = list(range(count))
    links = []
    for one, other in combinations(range(count), 2):
        pairs = [(a, b) for a in similarity.chains_of[one] for b in similarity.chains_of[other]]
        identity = max((1.0 if a == b else similarity.chain_identity(a, b) for a, b in pairs), default=0.0)
        tanimoto = similarity.tanimoto(one, [other])[0]
        if identity > thresholds.same_protein or (identity > thresholds.identity and tanimoto > thresholds.tanimoto):
            links.append((one, other))
    for _ in range(count):
        for one, other in links:
            label[one] = label[other] = min(label[one], label[other])
    order = {root: place for place, root in enumerate(dict.fromkeys(label))}
    return [order[one] for one in label]


def test_what_links_two_complexes() -> None:
    one = draw(1)
    homolog, same = mutated(one, 0.3), mutated(one, 0.05)
    chains = [[one], [same], [homolog], [homolog[:-1]], [draw(2)], [], []]
    smiles = [ASPIRIN, CAFFEINE, ASPIRIN, PARACETAMOL, ASPIRIN, ASPIRIN, ""]
    labels = Similarity(chains, smiles).clusters(THRESHOLDS).tolist()
    assert labels[0] == labels[1]  # nearly the same protein, whatever the ligand
    assert labels[0] == labels[2]  # a homolog with the same ligand
    assert labels[2] == labels[3]  # and what is linked to it
    assert len({labels[0], *labels[4:]}) == 4  # the same ligand alone links nothing, nor does nothing at all
    alone = Similarity([[one], [homolog]], [ASPIRIN, CAFFEINE]).clusters(THRESHOLDS)
    assert alone.tolist() == [0, 1]  # a homolog with another ligand


def test_a_shared_chain_of_two_links() -> None:
    light, heavy, other = draw(1), draw(2), draw(3)
    assert Similarity([[light, heavy], [heavy, other], [other]], [""] * 3).clusters(THRESHOLDS).tolist() == [0, 0, 0]


def test_targets_are_named_after_the_first_complex_of_the_same_protein() -> None:
    one, other = draw(1), draw(2)
    chains = [[one], [other], [mutated(one, 0.05)], [], [mutated(one, 0.3)], [other]]
    similarity = Similarity(chains, [ASPIRIN] * len(chains))
    assert similarity.targets([5, 2, 0, 3, 4, 1], 0.9) == [5, 2, 2, 3, 4, 5]  # the same ligand everywhere joins nothing
    assert similarity.targets([], 0.9) == []


@pytest.mark.parametrize("seed", range(3))
def test_clusters_are_those_of_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    ligands = [ASPIRIN, PARACETAMOL, CAFFEINE, "CCO", ""]
    chains = [
        [mutated(draw(int(rng.integers(6))), rng.choice([0.0, 0.04, 0.12, 0.3, 0.45]), seed=n)] for n in range(50)
    ]
    similarity = Similarity(chains, [ligands[rng.integers(5)] for _ in chains])
    labels = similarity.clusters(THRESHOLDS).tolist()
    assert labels == brute_force_clusters(similarity, THRESHOLDS)
    assert 6 < len(set(labels)) < 50


def test_what_is_connected_already_is_not_aligned_again(monkeypatch: pytest.MonkeyPatch) -> None:
    one = draw(1, 200)
    chains = [[mutated(one, 0.02, seed=n)] for n in range(60)]
    similarity = Similarity([*chains, *chains], [ASPIRIN] * 120)
    assert similarity.clusters(THRESHOLDS).tolist() == [0] * 120
    assert similarity.num_alignments < 150  # of 1,770 pairs of different sequences
