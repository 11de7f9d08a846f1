"""Boards are what their script writes, alerts are tested, the overlay mounts what is there."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "deploy" / "monitoring"
RULES = ("alerts", "site-alerts")


def boards():
    """Return the script that writes the boards."""
    spec = importlib.util.spec_from_file_location("boards", MONITORING / "boards.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["boards"] = module
    spec.loader.exec_module(module)
    return module


def overlaid(name: str) -> dict:
    return yaml.safe_load((ROOT / name).read_text())["services"]


@pytest.mark.parametrize("file", ["federation-board.json", "site-board.json"])
def test_a_board_is_what_its_script_writes(file):
    script = boards()
    written = (MONITORING / file).read_text(encoding="utf-8")
    assert written == script.as_json(*script.BOARDS[file]), "python deploy/monitoring/boards.py"


@pytest.mark.parametrize("rules", RULES)
def test_every_alert_has_a_test_that_it_fires(rules):
    text = (MONITORING / f"{rules}.yml").read_text()
    tested = (MONITORING / f"{rules}.test.yml").read_text()
    alerts = set(re.findall(r"alert: (\w+)", text))
    assert alerts
    assert alerts == set(re.findall(r'alertname="(\w+)"\}', tested))


@pytest.mark.parametrize("rules", RULES)
def test_every_alert_says_how_bad_it_is_and_what_to_do(rules):
    (group,) = yaml.safe_load((MONITORING / f"{rules}.yml").read_text())["groups"]
    for rule in group["rules"]:
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert set(rule["annotations"]) == {"summary", "action"}


def test_what_an_alert_tells_people_to_read_is_there():
    text = "".join((MONITORING / f"{rules}.yml").read_text() for rules in RULES)
    pages = re.findall(r"docs/[\w/-]+\.md", text)
    assert pages
    assert [page for page in pages if not (ROOT / page).exists()] == []


def test_the_overlay_mounts_files_that_are_there():
    mounted = [
        volume.partition(":")[0]
        for service in overlaid("deploy/monitoring.yml").values()
        for volume in service.get("volumes", [])
        if volume.startswith("./")
    ]
    assert len(mounted) == 5
    assert all((ROOT / path).is_file() for path in mounted)


def test_the_overlays_services_may_do_no_more_than_the_others():
    overlay = overlaid("deploy/monitoring.yml")
    added = overlay.keys() - overlaid("docker-compose.yml").keys()
    assert added == {"prometheus", "grafana"}
    for name in added:
        service = overlay[name]
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert set(service["deploy"]["resources"]["limits"]) == {"memory", "cpus", "pids"}
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_prometheus_looks_where_the_overlay_has_the_orchestrator_answer():
    config = yaml.safe_load((MONITORING / "prometheus.yml").read_text())
    (target,) = config["scrape_configs"][0]["static_configs"][0]["targets"]
    address = overlaid("deploy/monitoring.yml")["orchestrator"]["environment"]
    assert target == f"orchestrator:{address['FEDGATE__METRICS__ADDRESS'].rpartition(':')[2]}"
