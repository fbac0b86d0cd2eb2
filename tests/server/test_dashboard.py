"""The dashboard and the page of metrics in `configs/deploy/` know what the server measures, and nothing else."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.durable import durable
from support.metrics import Scrape, scraped
from support.plain_requests import get
from support.serving import ListMaker, picture, run_clean
from support.sockets import streaming

from inf_stream.models.weights.placement import CudaFacts
from inf_stream.server.web.metrics import Metrics

DEPLOY = Path(__file__).parents[2] / "configs" / "deploy"
PAGE = (DEPLOY / "README.md").read_text(encoding="utf-8")
DASHBOARD = json.loads((DEPLOY / "grafana.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Scrape:
    """A scrape in which every metric has a value."""
    found: list[Scrape] = []

    async def run() -> None:
        maker = ListMaker(gpu_now=CudaFacts("gpu", 2, 1, (9, 0)))
        async with durable(tmp_path_factory.mktemp("state"), maker, sessions=1, grace_s=0.0) as server:
            async with streaming(server) as client:
                await client.frame(picture())
                await client.outcomes(1)
                await client.say("ask", id="a", text="?")
                await client.until("answer.finished")
                await get(server, "/nothing")
            while server.hub.sessions:
                await asyncio.sleep(0.002)
            found.append(await scraped(server))

    run_clean(run())
    metrics = Metrics()
    metrics.timed("encode", 1.0)
    return Scrape(found[0] | Scrape.of(metrics.text().decode()))


def asked_for(text: str) -> set[str]:
    return set(re.findall(r"\b(?:inf_stream|process)_\w+", text))


def targets() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))


def test_the_dashboard_asks_for_what_there_is(measured: Scrape) -> None:
    asked = set().union(*(asked_for(expression) for expression in targets()))
    assert len(asked) > 20
    assert asked <= measured.names
    variables = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
    assert asked_for(json.dumps(DASHBOARD["templating"])) <= measured.names
    assert variables["datasource"]["type"] == "datasource"
    for panel in DASHBOARD["panels"]:
        assert panel["type"] == "row" or panel["datasource"]["uid"] == "${datasource}"


def test_everything_measured_is_on_the_dashboard_and_explained(measured: Scrape) -> None:
    for text in (" ".join(targets()), PAGE):
        shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked_for(text)}
        ours = {re.sub(r"_(bucket|sum|count)$", "", name) for name in measured.names if name.startswith("inf_stream_")}
        assert ours <= shown
        assert {name for name in shown if name.startswith("inf_stream_")} <= ours


def test_queries_name_labels_that_the_metrics_have(measured: Scrape) -> None:
    added = {"job", "instance", "le"}
    for expression in targets():
        labels = {label.strip() for group in re.findall(r" by \(([^)]*)\)", expression) for label in group.split(",")}
        labels |= set(re.findall(r"(\w+)=~?\"", expression))
        series = " ".join(key for key in measured if key.partition("{")[0] in asked_for(expression))
        assert labels - added <= set(re.findall(r'(\w+)="', series)), expression
        assert expression.count("(") == expression.count(")")


def test_panels_lie_beside_each_other() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
