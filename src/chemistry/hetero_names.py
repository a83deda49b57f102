"""Names of chemical components of the PDB that are mostly not the ligand somebody asks about."""

from __future__ import annotations

# What is added to a crystal, or comes with its preparation: buffers, precipitants, cryoprotectants, detergents, gases.
_ADDITIVES = """
    1PE 12P 15P 2PE 7PE ACN ACT ACY ARS AZI B3P BCN BCT BME BO3 BOG BTB C8E CAC CIT CMO CO3 CYN D10 D12 DIO DMF DMS
    DMU DOX DTD DTT DTV EDO EOH EPE ETA FLC FMT FOR GOL HDZ HEX HEZ HTG ICT IMD IPA LDA LMT MES MLA MLI MLT MOH MPD MPO
    MRD NH4 NHE NO NO2 NO3 O2 OH OLA OLB OLC OXY P33 P3G P4G P6G PE3 PE4 PE5 PE8 PEG PEO PER PG0 PG4 PGE PGO PGR PO4 PDO
    POL SCN SGM SIN SO3 SO4 SUC TAM TAR TBU TCE TFA TLA TMA TRS TRT UND UNX VO4 XPE
"""
_GLYCANS = """
    A2G AFL BDP BGC BMA BM3 FCA FUC FUL GAL GCS GCU GLA GLC GXL IDS M6P MAN MAV NAG NDG NGA RAM RIB SGN SIA SLB XYL XYP
    XYS
"""
_COFACTORS = """
    ACO ADP AMP ANP ACP AGS ATP B12 BCL BTN CDP CHL CLA CNC COA COB CTP F3S FAD FDA FES FMN FNR GDP GNP GSH GSP GTP H4B
    HBI HEA HEB HEC HEM HAS HDD HDE HEV ICS LPA MGD MTE NAD NAI NAP NDP PLP PMP PNS PQQ SAH SAM SF4 TDP THG TPP TTP UDP
    UMP UQ1 UTP
"""

ADDITIVES = frozenset(_ADDITIVES.split())
GLYCANS = frozenset(_GLYCANS.split())
# Of a protein's own: one of these is the ligand only where nothing else can be.
COFACTORS = frozenset(_COFACTORS.split())
