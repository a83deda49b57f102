"""Atom types and names of a MOL2 file -> elements, by the tables of the common programs, for a whole molecule at once.

A type such as `ca` is calcium to Sybyl and aromatic carbon to GAFF, so that no atom can be read alone: one table must
know every type of the molecule. Where several do and differ, the bond lengths decide, then the names of the atoms.

Sources: Tripos Mol2 File Format (2005); gaff.dat, gaff2.dat, parm10.dat and lipid17.dat of AmberTools; par_all36 and
CGenFF of CHARMM; OPLS-AA of BOSS; MMFFSYMB.PAR; types.txt and UFF.prm of Open Babel; AutoDock 4; 54A7 of GROMOS.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
from rdkit import Chem

from src.chemistry.residues import ATOMIC_NUMBER, SYMBOLS
from src.system.errors import UserError

LONE_PAIR = -1  # in place of an atomic number: no atom at all
MIN_BOND_RATIO = 0.75  # of a bond length to the sum of covalent radii; Ca for C in benzene gives 0.56
_NOT_BONDED = frozenset(ATOMIC_NUMBER[symbol] for symbol in ("HE", "NE", "AR", "KR", "RN"))
_ORGANIC = frozenset((LONE_PAIR, 0, 1, 5, 6, 7, 8, 9, 14, 15, 16, 17, 33, 34, 35, 53))

# Sybyl's own stand-ins, and what other programs write for an atom that is none.
_DUMMIES = frozenset(("DU", "ANY", "HAL", "HET", "HEV", "X", "XX", "ZZ", "R", "R#", "*"))
_LONE_PAIRS = frozenset(("LP", "EP"))

_TYPES = {  # an element is the first letter of its type, or stands behind a colon
    "GAFF": """
        c c1 c2 c3 c5 c6 ca cp cq cc cd ce cf cg ch cs cu cv cx cy cz n n1 n2 n3 n4 n5 n6 n7 n8 n9 na nb nc nd ne nf nh
        no ns nt nu nv nx ny nz n+ ni nj nk nl nm nn np nq o oh os ow op oq s s2 s4 s6 sh ss sp sq sx sy p2 p3 p4 p5 pb
        pc pd pe pf px py ha hc hn ho hs hp h1 h2 h3 h4 h5 hw hx f cl:Cl br:Br i EP:LP LP:LP lp:LP""",
    "AMBER": """
        C CA CB CC CD CE CF CG CI CJ CK CM CN CP CQ CR CS CT CU CV CW CX CY CZ CO C* 2C 3C C1 C2 C3 C4 C5 C6 C7 C8 C9 Cg
        Cj Ck Cp cA cB cC cD N NA NB NC ND NL NT NP NQ NX NY NZ N* N2 N3 Ng nA nN O O2 O3 OA OB OC OD OE OH OP OR OS OV
        OW OX OY OZ Oh Os Ow Oy oC oH oO oP oR oS oT S SH Sm P pA H H0 H1 H2 H3 H4 H5 HA HB HC HO HP HS HW HZ Ha Hc Ho
        Hp Hw hA hB hE hL hN hO hR hS hX F Cl:Cl CL:Cl IM:Cl Br:Br BR:Br I IP:Na C0:Ca EP:LP LP:LP""",
    "CHARMM": """
        C CA CAI CB CC CCN CD CE1 CE2 CK CM CMK CN CN1 CN1T CN2 CN3 CN3A CN3B CN3C CN3D CN3T CN4 CN5 CN5G CN7 CN7B CN8
        CN8B CN9 CNA CNA2 CP1 CP2 CP3 CPA CPB CPH1 CPH2 CPM CPT CR CS CST CT CT1 CT2 CT2A CT3 CTL1 CTL2 CTL3 CTL5 CEL1
        CEL2 CY CCL CCL1 CF1 CF2 CF3 C3 N NB NC NC2 NH1 NH2 NH3 NH3L NN1 NN2 NN2B NN2G NN2U NN3 NN3A NN3G NN4 NN5 NN6 NP
        NPH NR1 NR2 NR3 NTL NY NS1 NS2 O OB OBL OC OCL OH1 OHL OM ON1 ON1C ON2 ON2B ON3 ON4 ON5 ON6 ON6B OS OSL OSLP OST
        OT O2L OX S SM SS SL P P2 P3 PL H HA HA1 HA2 HA3 HAL1 HAL2 HAL3 HB HB1 HB2 HBL HC HCL HE1 HE2 HEL1 HEL2 HF1 HF2
        HL HN1 HN2 HN3 HN3B HN3C HN4 HN5 HN6 HN7 HN8 HN9 HOL HP HR1 HR2 HR3 HS HT HEP FN1 FA F1 F2 F3 SOD:Na POT:K
        CLA:Cl CAL:Ca MG:Mg FE:Fe ZN:Zn CES:Cs LP:LP LPH:LP""",
    "OPLS": """
        C CA CB CD CG CK CM CN CO CP CQ CR CS CT CU CV CW CX CY CZ CZA CZN C! C* C= C# C+ C$ C(O) C2 C3 C4 C5 C6 C7 C8
        C9 CF CH CT_2 CT1 CTF CTD CTE CTS C_2 C_3 C_R CRA C3M C3T CO3 CO4 CTM CYO N NA NB NC ND NE NG NI NM NN NO NP NS
        NT NX NY NZ N* N$ N= N2 N3 NCX NEO O O$ O2 OA OD OH OL ON OS OSE OY OYE OYN OWT3 OW OHP OAS OHX S S= SA SH SX
        SXC SY SY2 SZ SK SD P P+ H H1 H2 H3 H4 H5 HA HC HE HG HO HP HS HT HW HCT HY HX F FX F- CL:Cl Cl:Cl CLX:Cl Cl-:Cl
        BR:Br Br:Br BRX:Br I IX SI:Si Si:Si B LP:LP""",
    "MMFF94": """
        CR C=C CSP2 C=O C=N CGD C=OR C=ON CONN COO COON COOO C=OS C=S C=SN CSO2 CS=O CSS C=P CSP =C= CR4R CR3R CE4R CB
        CO2M CNN+ CNN C% CS2M CGD+ C5A C5B C5 CIM+ C=C= CR4E CR3E NR N=C N=N NC=O NC=S NN=C NN=N NR+ NPYD NPYL NC=C NC=N
        NC=P NC%C NSP NSO2 NSO3 NPO2 NPO3 NC%N NO2 NO3 N=O NAZT NSO =N= N+=C N+=N NCN+ NGD+ NPD+ NR% NM N5A N5B N2OX
        N3OX NPOX N5M N5 N5A+ N5B+ N5+ N5AX N5BX N5OX NIM+ =N+= N1 OR OC=O OC=C OC=N OC=S ONO2 ON=O OSO3 OSO2 OSO OS=O
        -OS OPO3 OPO2 OPO -OP -O- O=C O=CN O=CR O=CO O=N O=S O=S= O2CM OM OM2 O+ O=+ OFUR OH2 OXN O2N O2NO O3N O-S O2S
        O3S O4S OSMS OP O2P O3P O4P O4CL S S=C S=O >S=N SO2 SO2N SO3 SO4 =SO2 SNO STHI S2CM S-P SM SSMO SO2M SSOM =S=O
        PO4 PO3 PO2 PO PTET P -P=C HC HSI HOR HO HOM HNR H3N HPYL HNOX HNM HN HOCO HOP HN=N HN=C HNCO HNCS HNCC HNCN
        HNNC HNNN HNSO HNPO HNC% HSP2 HOCC HOCN HOH HNR+ HIM+ HPD+ HNN+ HNC+ HGD+ HN5+ HO+ HO=+ HS HS=N HP HOS F CL:Cl
        CLO4:Cl BR:Br I SI:Si SIR:Si""",
    "Open Babel": """
        C C1 C2 C3 C+ C- C1- Car Cac Cx CO2 N N1 N1+ N2 N2+ N3 N3+ Nam Nar Ng+ Nox Npl Ntr NC N4 O O1 O2 O3 O- Oco2 OB
        Ow Ox S S1 S2 S3 S3+ Sar Sac Sox So So2 SO SO2 S- Sx P P3 P3+ Pac Pox Px H HC HO HN H- Hx F Cl:Cl Br:Br I LP:LP
        Lp:LP""",
    "AutoDock": """
        C A:C CG0 CG1 G0:C G1:C N NA NS O OA OS S SA P H HD HS F CL:Cl Cl:Cl BR:Br Br:Br I""",
    "GROMOS": """
        C CH0 CH1 CH2 CH3 CH4 CH2r CH1r CR1 CAro CPos N NT NL NR NZ NE NPri NOpt NTer O OM OA OE OW OEOpt OAlc S SDmso P
        PDiol H HC HS14 F CL:Cl CL-:Cl BR:Br I SI:Si""",
}
_PATTERNS = {
    "CGenFF": re.compile(r"(CL|BR|AL|[CHNOSPFI]|LP)(?:G[A-Z0-9]*|H)", re.ASCII),
    "UFF or Dreiding": re.compile(r"([A-Z][a-z]|[A-Z](?=_))(?:_(?:[0-9R][0-9+]{0,2}|b|_HB|_A)?)?", re.ASCII),
}
_NAME = re.compile(r"(CL|BR|[CHNOPSFIB])\d*[A-Z]?'{0,2}", re.ASCII)
_NUMBERED = re.compile(r"(?:opls_|OPLS_)?\d+[A-Z]?", re.ASCII)  # types that say nothing without their own force field


class AtomTypeError(UserError):
    """The elements of a molecule cannot be told from its atom types; the message names one."""


def _entry(word: str) -> tuple[str, int]:
    kind, _, symbol = word.partition(":")
    symbol = symbol or next(filter(str.isalpha, kind))
    return kind, LONE_PAIR if symbol == "LP" else ATOMIC_NUMBER[symbol.upper()]


_TABLES = {program: {"DU": 0, "Du": 0} | dict(map(_entry, text.split())) for program, text in _TYPES.items()}


def elements(
    types: Sequence[str], names: Sequence[str], pairs: Sequence[tuple[int, int]], pos: np.ndarray
) -> tuple[list[int], str]:
    """Atomic numbers, 0 for an unknown element and LONE_PAIR for no atom, and a note where they are not Sybyl's.

    Args:
        types: of the atoms, as the file has them.
        names: of the atoms.
        pairs: of bonded atoms.
        pos: [n, 3], Å.

    Raises:
        AtomTypeError: no table knows all types, or several do and neither names nor bond lengths decide.
    """
    readings: dict[tuple[int, ...], str] = {}
    for program, found in _readings(types, names):
        readings.setdefault(found, program)
    for fits in (lambda found: _has_possible_bonds(found, pairs, pos), lambda found: _is_named(found, names)):
        if len(readings) > 1:
            readings = {found: program for found, program in readings.items() if fits(found)}
    # Of organic elements a short bond is a bad pose; of calcium it is a carbon that another program calls so.
    readings = {
        f: program for f, program in readings.items() if set(f) <= _ORGANIC or _has_possible_bonds(f, pairs, pos)
    }
    if len(readings) == 1:
        ((found, program),) = readings.items()
        return list(found), "" if program == "Sybyl" else f"elements by {program}, since the atom types are not Sybyl's"
    unknown = [text for text in types if _sybyl(text) is None]
    cause = f"atom type {(unknown or list(types))[0]!r} is no Sybyl type"
    if not unknown:
        cause = f"atom types such as {types[0]!r} can be Sybyl's and another program's"
    raise AtomTypeError(f"{cause}, and no other table fits the whole molecule; expected types such as C.ar and H")


def _readings(types: Sequence[str], names: Sequence[str]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """(program, elements) of every table that knows all types; the names alone where types are numbers."""
    sybyl = [_sybyl(text) for text in types]
    if None not in sybyl:
        yield "Sybyl", tuple(sybyl)
    if any("." in text for text in types):
        return  # no other program's types have a dot
    for program, table in _TABLES.items():
        if all(text in table for text in types):
            yield f"the atom types of {program}", tuple(table[text] for text in types)
    for program, pattern in _PATTERNS.items():
        matches = [pattern.fullmatch(text) for text in types]
        if all(match and (match[1] == "LP" or match[1].upper() in ATOMIC_NUMBER) for match in matches):
            yield f"the atom types of {program}", tuple(ATOMIC_NUMBER.get(m[1].upper(), LONE_PAIR) for m in matches)
    matches = [_NAME.fullmatch(name.replace(" ", "").upper()) for name in names]
    if all(matches) and all(map(_NUMBERED.fullmatch, types)):
        yield "the atom names", tuple(ATOMIC_NUMBER[match[1]] for match in matches)


def _sybyl(text: str) -> int | None:
    symbol = text.upper().partition(".")[0]
    if symbol in _LONE_PAIRS:
        return LONE_PAIR
    if symbol in ATOMIC_NUMBER:
        return ATOMIC_NUMBER[symbol]
    return 0 if symbol in _DUMMIES else None


def _has_possible_bonds(found: Sequence[int], pairs: Sequence[tuple[int, int]], pos: np.ndarray) -> bool:
    """No bond is far too short for the atoms at its ends."""
    radius = Chem.GetPeriodicTable().GetRcovalent
    for i, j in pairs:
        if found[i] > 0 and found[j] > 0:
            shortest = MIN_BOND_RATIO * (radius(found[i]) + radius(found[j]))
            if np.linalg.norm(pos[i] - pos[j]) < shortest or {found[i], found[j]} & _NOT_BONDED:
                return False
    return True


def _is_named(found: Sequence[int], names: Sequence[str]) -> bool:
    """Every name begins with the symbol of its element."""
    letters = (name.lstrip("0123456789 '\"*").upper() for name in names)
    pairs = zip(found, letters, strict=True)
    return all(number <= 0 or name.startswith(SYMBOLS[number].upper()) for number, name in pairs)
