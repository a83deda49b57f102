"""What is computed once for metrics.json, the tables and the pages."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from src.evaluation.findings import (
    ComparisonError,
    LeakageRow,
    coverage_text,
    metrics_json,
    predictions_table,
    read_predictions,
    split_json,
)
from src.evaluation.metrics import metrics
from src.evaluation.report import report_page
from src.system.storage import write_csv
from tests.findings import findings, judged


def test_every_table_has_the_model_first_and_the_same_numbers() -> None:
    one = judged(60, targets=("kinase",) * 30 + ("protease",) * 30)
    found = findings(one)
    assert list(found.table) == ["this model", "predict the mean"]
    assert {name: interval.value for name, interval in found.ours.items()} == metrics(one.predicted, one.measured)
    assert sum(group.count for group in found.by_kind) == 60
    assert [(group.name, group.count) for group in found.by_target] == [("kinase", 30), ("protease", 30)]
    assert findings().by_target == []


def test_the_model_is_set_against_the_best_baseline() -> None:
    one = judged()
    found = findings(one, baselines={"bad": one.measured + 9, "good": one.measured + 0.5, "fair": one.measured + 3})
    assert found.against_baseline.source == "good"
    assert found.against_baseline.metrics["rmse"].value == pytest.approx(found.ours["rmse"].value - 0.5)
    assert findings(one, baselines={}).against_baseline is None


def test_another_table_is_compared_on_the_codes_that_both_have() -> None:
    one = judged(codes=[f"1A{number:02}" for number in range(40)])
    other = {code.lower(): value + 1 for code, value in zip(one.codes[:30], one.measured, strict=False)}
    comparison = findings(one, other=("other.csv", {**other, "9zzz": 5.0})).comparison
    assert (comparison.source, comparison.count, comparison.num_left_out) == ("other.csv", 30, 10)
    ours = metrics(one.predicted[:30], one.measured[:30])["rmse"]
    assert comparison.metrics["rmse"].value == pytest.approx(ours - 1.0)


def test_a_table_of_this_model_is_no_other_model(tmp_path: Path) -> None:
    """Its four decimals differ from the predictions by rounding, in one direction or the other."""
    found = findings()
    write_csv(tmp_path / "own.csv", *predictions_table(found))
    comparison = findings(other=("own.csv", read_predictions(tmp_path / "own.csv"))).comparison
    assert {(row.value, row.p) for row in comparison.metrics.values()} == {(0.0, 1.0)}


def test_a_table_without_a_common_code_is_refused_with_codes_of_both() -> None:
    with pytest.raises(
        ComparisonError, match=r"other.csv: has none .* are 8zzz, 9zzz \(2\), .* 1a00, 1a01, 1a02 \(40\)"
    ):
        findings(other=("other.csv", {"9zzz": 5.0, "8zzz": 5.0}))
    with pytest.raises(ComparisonError, match=r"with a prediction are none \(0\)"):
        findings(other=("other.csv", {}))


def test_complexes_of_one_cluster_are_drawn_together() -> None:
    """40 complexes whose error is that of their cluster: as much evidence as five complexes."""
    clusters = tuple(np.repeat(np.arange(5), 8).tolist())
    alone = judged()
    one = judged(predicted=alone.measured + np.repeat([-2.0, -1.0, 0.0, 1.0, 2.0], 8))
    other = ("other.csv", dict.fromkeys(one.codes, 5.0))
    apart, together = (findings(labels, other=other) for labels in (one, dataclasses.replace(one, clusters=clusters)))
    narrow, wide = (found.ours["rmse"].high - found.ours["rmse"].low for found in (apart, together))
    assert wide > 1.5 * narrow
    assert together.given_size != apart.given_size
    assert together.by_kind[0].metrics["rmse"] != apart.by_kind[0].metrics["rmse"]
    assert together.against_baseline.metrics["rmse"] != apart.against_baseline.metrics["rmse"]
    assert together.comparison.metrics["rmse"] != apart.comparison.metrics["rmse"]
    assert metrics_json(together)["resampled"] == "5 whole clusters"
    assert metrics_json(apart)["resampled"] == "complexes"


def test_one_cluster_has_no_interval() -> None:
    found = findings(judged(clusters=(7,) * 40), other=("other.csv", {"1a00": 5.0, "1a01": 6.0}))
    values = metrics_json(found)
    assert values["this model"]["rmse"]["value"] > 0
    assert (values["this model"]["rmse"]["low"], values["against the best baseline"]["rmse"]["p"]) == (None, None)
    assert "one cluster has no interval" in report_page(found)
    json.dumps(values, allow_nan=False)


def test_json_holds_no_nan_however_little_there_is() -> None:
    for count in (0, 1, 2, 40):
        one = judged(count)
        values = metrics_json(findings(one, other=("other.csv", {"1a00": 5.0}), baselines={"flat": np.zeros(count)}))
        text = json.dumps(values, allow_nan=False)
        assert json.loads(text)["complexes"] == count
    assert values["compared with"]["rmse"].keys() == {"value", "low", "high", "p"}


def test_the_split_is_written_with_its_leakage() -> None:
    split = findings().part.split
    leak = type(split)(split.method, split.codes, [LeakageRow("identity above 0.9", 3, 40)])
    assert split_json(leak)["leakage"] == [{"label": "identity above 0.9", "count": 3, "total": 40}]
    assert split_json(leak)["parts"]["validation"] == ["y"]


# Tables of predictions


def test_a_table_holds_what_is_known_of_each_complex() -> None:
    header, rows = predictions_table(findings(judged(3, targets=("a", "b", "c"))))
    assert header == ["code", "measured_pK", "predicted_pK", "kind", "heavy_atoms", "target"]
    assert [row[0] for row in rows] == ["1a00", "1a01", "1a02"]
    assert predictions_table(findings())[0] == header[:5]


def test_tables_of_both_programs_are_read(tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text("code,measured_pK,predicted_pK\n1ABC,5,6.5\n'-x1,5,7\n2def,5,\n")
    assert read_predictions(path) == {"1abc": 6.5, "-x1": 7.0}
    path.write_bytes(b"\xef\xbb\xbfligand,pK,status\n1abc,6.5,ok\n2def,,failed: x\n")
    assert read_predictions(path) == {"1abc": 6.5}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"name,score\na,1\n", "has the columns name, score"),
        (b"code,pK\na,high\n", "'high' is not a number"),
        (b"code,pK\n1ABC,5\n2def,6\n1abc,5\n", "1 codes have more than one prediction, such as '1abc'"),
        (b"code,pK\n\xff\xfe,1\n", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_a_table_that_cannot_be_used_says_why(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "table.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ComparisonError, match=message):
        read_predictions(path)


def test_the_interval_is_judged_by_how_often_it_holds() -> None:
    one = judged(200)
    found = findings(one, half_width=1.0)
    expected = float(np.mean(np.abs(one.predicted - one.measured) <= 1.0))
    interval = metrics_json(found)["interval"]
    assert (interval["share"], interval["count"], interval["half_width"]) == (expected, 200, 1.0)
    assert interval["low"] < expected < interval["high"]
    text = f"should hold 90% of the measured values; it holds {expected:.0%} of these 200"
    assert text in coverage_text(found.coverage)
    assert interval["by_width"] is None  # all are as wide
    assert "RMSE of the third" not in coverage_text(found.coverage)
    assert metrics_json(findings(one))["interval"] is None


def test_an_interval_of_its_own_for_each_complex_is_in_the_table_and_says_what_its_width_is_worth() -> None:
    one = judged(90)
    errors = np.abs(one.predicted - one.measured)
    found = findings(dataclasses.replace(one, half_widths=2 * errors))
    interval = metrics_json(found)["interval"]
    assert (interval["share"], interval["by_width"]) == (1.0, pytest.approx(1.0))
    narrow, wide = (float(np.sqrt(np.mean(part**2))) for part in np.split(np.sort(errors), 3)[::2])
    assert interval["thirds"] == pytest.approx((narrow, wide))
    assert f"narrowest intervals {narrow:.2f}, with the widest {wide:.2f}." in coverage_text(found.coverage)
    names, rows = predictions_table(found)
    table = dict(zip(names, zip(*rows, strict=True), strict=True))
    assert table["pK_low"] == pytest.approx(one.predicted - 2 * errors, abs=1e-4)
    assert table["pK_high"] == pytest.approx(one.predicted + 2 * errors, abs=1e-4)
    assert "pK_low" not in predictions_table(findings(one))[0]


def test_errors_are_told_by_likeness_to_the_training() -> None:
    count = 40
    one = judged(count, likeness=np.repeat([0.05, 0.2, 0.9, 1.0], count // 4))
    found = findings(one)
    assert [(group.name, group.count) for group in found.by_likeness] == [
        ("0 to 0.1", 10),
        ("0.1 to 0.3", 10),
        ("0.6 to 1", 20),
    ]
    error = (one.predicted - one.measured)[:10]
    assert found.by_likeness[0].metrics["rmse"].value == pytest.approx(np.sqrt(np.mean(error**2)))
    assert set(metrics_json(found)["by likeness"]) == {"0 to 0.1", "0.1 to 0.3", "0.6 to 1"}
    assert "Likeness to the nearest training complex" in report_page(found)
    assert findings(judged(count)).by_likeness == []
