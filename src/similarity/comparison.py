"""Sequences and ligands -> how alike complexes are, the clusters they form, and the nearest ones.

Identity of two chains: they are aligned with BLOSUM62, a gap costs 11 + 1 for each place, overhanging ends nothing. It
is the share of equal residues among the places where both are known, X being unknown; but at least MIN_COVERAGE of
the shorter chain counts as compared, so that a few residues that agree make no identity. Of two complexes it is that
of the two chains most alike. Ligands are compared by the Tanimoto similarity of ECFP4 (Morgan, radius 2, 2048 bits).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
from Bio.Align import PairwiseAligner, substitution_matrices
from rdkit import Chem, DataStructs, rdBase
from rdkit.Chem import rdFingerprintGenerator
from rdkit.Chem.Scaffolds import MurckoScaffold
from scipy import sparse
from scipy.cluster.hierarchy import DisjointSet

UNKNOWN = "X"
LETTERS = "ACDEFGHIKLMNPQRSTVWY"
MIN_COVERAGE = 0.5  # fraction of the known residues of the shorter chain
MAIN_CHAIN = 0.5  # fraction of the longest chain of a complex; shorter chains, such as a peptide, are not compared
WORD = 3  # residues; chains with identity t share about t ** WORD of their words
WORD_MARGIN = 2.0  # a candidate has at least t ** WORD / WORD_MARGIN: 0.36 for 0.9, the least of 827 pairs was 0.5
FEW_WORDS = 5  # words; a chain with fewer is compared with all chains
BLOCK = 512  # rows of the table of shared words that are in memory at once
NUM_NEAREST = 8  # likeliest chains that are aligned to find the nearest complex


@dataclass(frozen=True)
class Thresholds:
    """Two complexes belong together above these; each is exclusive."""

    identity: float  # identity of proteins whose ligands are alike too
    tanimoto: float  # similarity of ligands whose proteins are alike too
    same_protein: float  # identity from which the proteins alone are enough


@dataclass(frozen=True)
class Neighbour:
    number: int  # number of the complex
    identity: float
    tanimoto: float


class Similarity:
    """Compares n complexes by their numbers; equal chains and ligands are compared once, alignments are kept."""

    def __init__(self, chains: Sequence[Sequence[str]], smiles: Sequence[str]):
        """
        Args:
            chains: [n] sequences of each complex in one-letter code; none is alike to nothing.
            smiles: [n] of the ligands; empty or unreadable is alike to nothing.
        """
        chosen = [main_chains(one) for one in chains]
        self.sequences = sorted({sequence for one in chosen for sequence in one})
        number = {sequence: place for place, sequence in enumerate(self.sequences)}
        self.chains_of = [[number[sequence] for sequence in one] for one in chosen]
        self.ligands = sorted(set(smiles))
        place_of = {text: place for place, text in enumerate(self.ligands)}
        self.ligand_of = np.array([place_of[text] for text in smiles], dtype=int)
        self._identities: dict[tuple[int, int], float] = {}

    def __len__(self) -> int:
        return len(self.chains_of)

    # Made at the first use: a run that goes on with a random split needs none of them.

    @cached_property
    def _words(self) -> tuple[sparse.csr_matrix, np.ndarray]:
        return _word_table(self.sequences)

    @cached_property
    def _fingerprints(self) -> list[DataStructs.ExplicitBitVect | None]:
        return fingerprints(self.ligands)

    @cached_property
    def _bits(self) -> np.ndarray:
        return np.array([0 if one is None else one.GetNumOnBits() for one in self._fingerprints], dtype=int)

    def digest(self, *parts: Sequence[int]) -> str:
        """Hexadecimal digits that change with the chains and ligands of each part's complexes, and their number."""
        digest = hashlib.blake2b(digest_size=16)
        for part in parts:
            for one in part:
                chains = "/".join(self.sequences[chain] for chain in self.chains_of[one])
                digest.update(f"{chains} {self.ligands[self.ligand_of[one]]}\n".encode())
            digest.update(b"\n")
        return digest.hexdigest()

    def nearest(self, one: int, pool: Sequence[int]) -> Neighbour:
        """The complex of the pool (not empty) with the highest sum of identity and Tanimoto similarity.

        Proteins that share few words count as identity 0, and only the NUM_NEAREST likeliest chains are aligned.
        """
        tanimoto = self.tanimoto(one, pool)
        chains = sorted({chain for other in pool for chain in self.chains_of[other]})
        found: dict[int, float] = {}
        for chain, identity in islice(self.nearest_chains(one, chains, 0.5), NUM_NEAREST):
            found[chain] = max(identity, found.get(chain, 0.0))
        identity = np.array([max((found.get(chain, 0.0) for chain in self.chains_of[n]), default=0.0) for n in pool])
        best = int(np.argmax(identity + tanimoto))
        return Neighbour(int(pool[best]), float(identity[best]), float(tanimoto[best]))

    @property
    def num_alignments(self) -> int:
        """Alignments made so far, which is where the time goes."""
        return len(self._identities)

    def chain_identity(self, first: int, second: int) -> float:
        """Identity of two chains by their numbers in `sequences`."""
        pair = (min(first, second), max(first, second))
        if pair not in self._identities:
            self._identities[pair] = sequence_identity(self.sequences[first], self.sequences[second])
        return self._identities[pair]

    def tanimoto(self, one: int, others: Sequence[int]) -> np.ndarray:
        """Similarity of the ligand of one complex to those of others, [len(others)]."""
        kinds, place = np.unique(self.ligand_of[np.asarray(others, dtype=int)], return_inverse=True)
        return self._ligand_tanimoto(self.ligand_of[one], kinds)[place]

    def has_identity_above(self, one: int, others: Iterable[int], limit: float) -> bool:
        """Whether any of the other complexes has a protein with a higher identity."""
        chains = sorted({chain for other in others for chain in self.chains_of[other]})
        return any(identity > limit for _, identity in self.nearest_chains(one, chains, limit))

    def nearest_chains(self, one: int, chains: Sequence[int], limit: float) -> Iterator[tuple[int, float]]:
        """(chain, its identity to a chain of the complex) of all that may lie above limit, the likeliest first."""
        pool = np.asarray(chains, dtype=int)
        for mine in self.chains_of[one]:
            share = self._shared_words(mine, pool)
            kept = np.flatnonzero(share >= least_share(limit))
            for place in kept[np.argsort(-share[kept], kind="stable")]:
                yield int(pool[place]), self.chain_identity(mine, int(pool[place]))

    def clusters(self, thresholds: Thresholds) -> np.ndarray:
        """Number of the cluster of each complex, [n]; clusters are connected and numbered by their first member.

        Two complexes are linked when their identity is above same_protein, or when identity and Tanimoto
        similarity are both above their thresholds. What is connected already is not compared again.
        """
        linked = DisjointSet(range(len(self) + len(self.sequences)))
        for number, own in enumerate(self.chains_of):
            for chain in own:
                linked.merge(number, len(self) + chain)
        for first, second in self._candidates(thresholds.same_protein):
            one, other = len(self) + first, len(self) + second
            if not linked.connected(one, other) and self.chain_identity(first, second) > thresholds.same_protein:
                linked.merge(one, other)
        for one, other in self._pairs_with_like_ligands(thresholds.tanimoto):
            if not linked.connected(one, other) and self.has_identity_above(one, [other], thresholds.identity):
                linked.merge(one, other)
        roots = [linked[number] for number in range(len(self))]
        order = {root: place for place, root in enumerate(dict.fromkeys(roots))}
        return np.array([order[root] for root in roots], dtype=int)

    def targets(self, numbers: Sequence[int], limit: float) -> list[int]:
        """For each of these complexes the first of them that has its protein: identity above limit, also by links."""
        chains = [[self.sequences[chain] for chain in self.chains_of[number]] for number in numbers]
        proteins = Similarity(chains, [""] * len(chains))
        labels = proteins.clusters(Thresholds(identity=1.0, tanimoto=1.0, same_protein=limit))
        first = dict(zip(labels[::-1].tolist(), list(numbers)[::-1], strict=True))
        return [first[label] for label in labels.tolist()]

    def _candidates(self, limit: float) -> Iterator[tuple[int, int]]:
        """Pairs of chains that share enough words for an identity above limit, in each block the likeliest first."""
        words, num_words = self._words
        transposed = words.T.tocsr()
        for start in range(0, len(self.sequences), BLOCK):
            shared = (words[start : start + BLOCK] @ transposed).tocoo()
            first, second = shared.row + start, shared.col
            fewer = np.minimum(num_words[first], num_words[second])
            share = shared.data / fewer
            kept = np.flatnonzero((first < second) & (share >= least_share(limit)) & (fewer >= FEW_WORDS))
            for place in kept[np.argsort(-share[kept], kind="stable")]:
                yield int(first[place]), int(second[place])
        few = num_words < FEW_WORDS
        for chain in np.flatnonzero(few):
            yield from ((int(chain), other) for other in range(len(few)) if not few[other] or other > chain)

    def _pairs_with_like_ligands(self, limit: float) -> Iterator[tuple[int, int]]:
        members: list[list[int]] = [[] for _ in self._fingerprints]
        for number, ligand in enumerate(self.ligand_of):
            members[ligand].append(number)
        # The similarity is at most the ratio of the numbers of bits, so only ligands of like size are compared.
        order = np.argsort(self._bits, kind="stable")
        sizes = self._bits[order]
        for place, ligand in enumerate(order):
            if not sizes[place]:
                continue
            if limit < 1:
                yield from ((one, other) for n, one in enumerate(members[ligand]) for other in members[ligand][:n])
            end = np.searchsorted(sizes, sizes[place] / max(limit, 1e-9), side="right")
            others = order[place + 1 : end]
            for other in others[self._ligand_tanimoto(ligand, others) > limit]:
                yield from ((one, two) for one in members[ligand] for two in members[other])

    def _ligand_tanimoto(self, one: int, others: np.ndarray) -> np.ndarray:
        table = np.zeros(len(others))
        usable = np.flatnonzero(self._bits[others] > 0)
        if self._bits[one] and len(usable):
            compared = [self._fingerprints[others[place]] for place in usable]
            table[usable] = DataStructs.BulkTanimotoSimilarity(self._fingerprints[one], compared)
        return table

    def _shared_words(self, chain: int, pool: np.ndarray) -> np.ndarray:
        """Share of the words of the shorter chain that both have, 1 where it has too few, [len(pool)]."""
        words, num_words = self._words
        shared = (words[pool] @ words[chain].T).toarray().ravel()
        fewer = np.minimum(num_words[chain], num_words[pool])
        return np.where(fewer < FEW_WORDS, 1.0, shared / np.maximum(fewer, 1))


def sequence_identity(first: str, second: str) -> float:
    """Share of equal residues, 0 to 1, as the head of this file says; of two equal sequences 1."""
    known = min(len(first) - first.count(UNKNOWN), len(second) - second.count(UNKNOWN))
    if not known:
        return 0.0
    if first == second:
        return 1.0
    alignment = _ALIGNER.align(first, second)[0]
    one, other = (np.frombuffer(text.encode(), dtype=np.uint8) for text in (alignment[0], alignment[1]))
    inside = slice(*_overlap(one, other))
    one, other = one[inside], other[inside]
    compared = int(((one != ord(UNKNOWN)) & (other != ord(UNKNOWN))).sum())
    equal = int(((one == other) & (one != ord(UNKNOWN))).sum())
    return equal / max(compared, MIN_COVERAGE * known)


def main_chains(chains: Iterable[str]) -> list[str]:
    """The chains worth comparing: those with at least MAIN_CHAIN of the known residues of the longest."""
    lengths = {chain: len(chain) - chain.count(UNKNOWN) for chain in chains}
    longest = max(lengths.values(), default=0)
    return sorted(chain for chain, length in lengths.items() if length and length >= MAIN_CHAIN * longest)


def least_share(identity: float) -> float:
    """Share of common words below which two chains are taken to have no higher identity."""
    return max(identity**WORD / WORD_MARGIN, 1e-9)


def fingerprints(smiles: Iterable[str]) -> list[DataStructs.ExplicitBitVect | None]:
    """ECFP4 of each SMILES; None for an empty or unreadable one."""
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    with rdBase.BlockLogs():
        molecules = [Chem.MolFromSmiles(text) if text else None for text in smiles]
    return [None if molecule is None else generator.GetFingerprint(molecule) for molecule in molecules]


def scaffold(smiles: str) -> str:
    """Bemis-Murcko scaffold (doi 10.1021/jm9602928) as SMILES without stereochemistry; '' without a ring."""
    with rdBase.BlockLogs():
        molecule = Chem.MolFromSmiles(smiles)
        if molecule is None:
            return ""
        return MurckoScaffold.MurckoScaffoldSmiles(mol=molecule, includeChirality=False)


_BLOSUM62 = substitution_matrices.load("BLOSUM62").copy()
_BLOSUM62[UNKNOWN, :] = _BLOSUM62[:, UNKNOWN] = 0.0
_ALIGNER = PairwiseAligner(substitution_matrix=_BLOSUM62, open_gap_score=-12.0, extend_gap_score=-1.0)
_ALIGNER.end_gap_score = 0.0


def _overlap(one: np.ndarray, other: np.ndarray) -> tuple[int, int]:
    """First and last column, one past it, between the overhanging ends of two aligned rows."""
    filled = np.flatnonzero(one != ord("-")), np.flatnonzero(other != ord("-"))
    return max(row[0] for row in filled), min(row[-1] for row in filled) + 1


def _word_table(sequences: Sequence[str]) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Which words each chain has, [chains, 20 ** WORD] of 0 and 1, and how many they are, [chains]."""
    code = np.full(256, -1)
    code[[ord(letter) for letter in LETTERS]] = range(len(LETTERS))
    rows = []
    for sequence in sequences:
        residues = code[np.frombuffer(sequence.encode(), dtype=np.uint8)]
        windows = np.lib.stride_tricks.sliding_window_view(residues, WORD) if len(residues) >= WORD else residues[:0]
        windows = windows.reshape(-1, WORD)
        windows = windows[(windows >= 0).all(1)]
        rows.append(np.unique(windows @ len(LETTERS) ** np.arange(WORD)))
    counts = np.array([len(row) for row in rows], dtype=int)
    columns = np.concatenate([np.zeros(0, dtype=int), *rows])
    starts = np.concatenate([[0], np.cumsum(counts)])
    shape = (len(sequences), len(LETTERS) ** WORD)
    return sparse.csr_matrix((np.ones(len(columns), dtype=np.float32), columns, starts), shape=shape), counts
