"""What Prometheus scrapes is as its own linter wants it, and has all that the dashboard shows."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import Any, Final

import pytest
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from perdure.actors.testing import World
from perdure.tracing import Tracing
from prometheus_client import REGISTRY, Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from .metered import Fragile, Parcel, Till, make_busy

# As `promtool check metrics` has them: github.com/prometheus/prometheus, util/promlint.
NOT_BASE: Final = re.compile("_(minute|hour|day|week|bit|kb|mb|celsius|kelvin|percent)s?(_|$)|_(milli|micro|nano|kilo|mega|giga)")
ABBREVIATED: Final = {"s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d"}
TYPES: Final = {"counter", "gauge", "histogram", "summary", "untyped"}

PROGRAM: Final = """
import asyncio, urllib.request
from perdure.actors import Runtime, durable_actor, on_event
from perdure.tracing import serve_metrics

@durable_actor
class Till:
    total: int = 0

    @on_event
    def add(self, amount: int) -> int:
        self.total += amount
        return self.total

async def main():
    async with Runtime("memory:", actors=[Till]) as runtime:
        await runtime.ref(Till, "one").ask(Till.add, 1)
    with urllib.request.urlopen(metrics.url) as page:
        print([line for line in page.read().decode().splitlines() if line.startswith("perdure_turns_total")])

with serve_metrics(port=0) as metrics:
    asyncio.run(main())
with serve_metrics(port=0) as again:
    print(again.url != metrics.url or "the same")
"""


async def scraped() -> str:
    reader = PrometheusMetricReader()
    meters = MeterProvider(metric_readers=[reader], shutdown_on_exit=False)
    async with World([Till, Parcel, Fragile], tracing=Tracing(meter_provider=meters)) as world:
        await make_busy(world)
        page = generate_latest(REGISTRY).decode()
    meters.shutdown()
    return page


@pytest.fixture(scope="module")
def scrape() -> str:
    """What a scrape of a busy world says."""
    return asyncio.run(scraped())


@pytest.fixture(scope="module")
def families(scrape: str) -> Mapping[str, Metric]:
    """Our metrics of it, by name."""
    return {family.name: family for family in text_string_to_metric_families(scrape) if family.name.startswith("perdure_")}


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(files("perdure.tracing").joinpath("grafana/perdure.json").read_text())
    return found


def expressions(dashboard: Mapping[str, Any]) -> Iterator[str]:
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield target["expr"]
    for variable in dashboard["templating"]["list"]:
        yield variable.get("definition", "")


def test_promtool_accepts_the_scrape(scrape: str) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: the rules are held by the test below")

    checked = subprocess.run([promtool, "check", "metrics"], input=scrape, capture_output=True, text=True, check=False)

    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_names_units_and_help_follow_the_rules_of_prometheus(families: Mapping[str, Metric]) -> None:
    words = {name: set(name.split("_")) for name in families}

    assert [name for name, family in families.items() if not family.documentation] == []
    assert [name for name in families if not re.fullmatch("[a-z][a-z_]*[a-z]", name)] == []
    assert [name for name in families if NOT_BASE.search(name) or words[name] & (ABBREVIATED | TYPES)] == []
    assert [name for name, family in families.items() if name.endswith(("_total", "_count", "_sum", "_bucket", "_info"))] == []
    totals = {sample.name for family in families.values() for sample in family.samples if sample.name.endswith("_total")}
    assert totals == {f"{name}_total" for name, family in families.items() if family.type == "counter"}


def test_no_label_names_an_actor(families: Mapping[str, Metric]) -> None:
    labels = {label for family in families.values() for sample in family.samples for label in sample.labels}

    ours = {label for label in labels if not label.startswith("otel_scope_")}
    assert ours == {"perdure_actor_type", "perdure_handler", "perdure_outcome", "perdure_step", "error_type", "le"}


def test_the_dashboard_asks_only_for_what_a_scrape_has(dashboard: Mapping[str, Any], families: Mapping[str, Metric]) -> None:
    samples = {sample.name for family in families.values() for sample in family.samples}
    labels = {label for family in families.values() for sample in family.samples for label in sample.labels}

    named = {name for expression in expressions(dashboard) for name in re.findall(r"\bperdure_\w+", expression)}

    assert named - samples - labels == set()
    shown = {re.sub("_(bucket|sum|count|total)$", "", name) for name in named & samples}
    assert {family.removesuffix("_total") for family in families} - shown == set()


def test_the_dashboard_is_one_that_grafana_takes(dashboard: Mapping[str, Any]) -> None:
    panels, variables = dashboard["panels"], {variable["name"] for variable in dashboard["templating"]["list"]}

    assert dashboard["schemaVersion"] >= 38
    assert len({panel["id"] for panel in panels}) == len(panels)
    targets = [target for panel in panels for target in panel.get("targets", [])]
    sources = {shown["datasource"]["uid"] for shown in (*panels, *targets) if "datasource" in shown}
    assert sources == {"${datasource}"}
    used = {name for expression in expressions(dashboard) for name in re.findall(r"\$(\w+)", expression)}
    assert used - variables - {"__rate_interval", "__range"} == set()
    places = [tuple(panel["gridPos"].values()) for panel in panels]
    assert len(set(places)) == len(places)
    assert all(x + w <= 24 for _, w, x, _ in places)


def run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=50, check=False)


def test_a_page_is_served_to_prometheus_until_it_is_closed() -> None:
    done = run(PROGRAM)

    assert done.returncode == 0, done.stderr
    assert 'perdure_actor_type="Till"' in done.stdout
    assert 'perdure_handler="add"' in done.stdout
    assert done.stdout.splitlines()[1] in {"True", "the same"}


def test_without_the_extra_serving_says_what_to_install() -> None:
    done = run("import sys; sys.modules['prometheus_client'] = None\nfrom perdure.tracing import serve_metrics\nserve_metrics(port=0)")

    assert 'pip install "perdure[prometheus]"' in done.stderr
    assert "MetricsUnavailable: prometheus_client is missing" in done.stderr


def test_a_provider_that_prometheus_cannot_read_is_refused() -> None:
    done = run(
        "from opentelemetry import metrics\nfrom opentelemetry.sdk.metrics import MeterProvider\n"
        "metrics.set_meter_provider(MeterProvider())\n"
        "from perdure.tracing import serve_metrics\nserve_metrics(port=0)"
    )

    assert "MetricsUnavailable: the program has set a meter provider that Prometheus cannot read. Give it a reader" in done.stderr


def test_a_port_that_is_taken_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = run(f"from perdure.tracing import serve_metrics\nserve_metrics(port={taken.getsockname()[1]})")

    assert "Address already in use. Choose another port" in done.stderr
