"""`/metrics` as Prometheus reads it."""

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from inf_stream.server.running import RunningServer


class Scrape(dict[str, float]):
    """Samples by name and labels, `name{key="value"}`; `kinds` has the type of each family."""

    kinds: dict[str, str]

    @classmethod
    def of(cls, text: str) -> "Scrape":
        families = list(text_string_to_metric_families(text))
        scrape = cls()
        scrape.kinds = {family.name: family.type for family in families}
        for family in families:
            for sample in family.samples:
                labels = ",".join(f'{key}="{value}"' for key, value in sorted(sample.labels.items()))
                key = f"{sample.name}{{{labels}}}" if labels else sample.name
                assert key not in scrape, "one value for each series"
                scrape[key] = sample.value
        return scrape

    @property
    def names(self) -> set[str]:
        """Of all samples, as queries call them."""
        return {key.partition("{")[0] for key in self}

    def counted(self) -> dict[str, float]:
        """The samples that may only grow."""
        ends = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum")}
        names = {name + end for name, kind in self.kinds.items() for end in ends.get(kind, ())}
        return {key: value for key, value in self.items() if key.partition("{")[0] in names}


async def scraped(server: RunningServer) -> Scrape:
    """What the server shows now."""
    async with aiohttp.ClientSession() as http, http.get(f"{server.address}/metrics") as response:
        assert (response.status, response.content_type) == (200, "text/plain")
        return Scrape.of(await response.text())
