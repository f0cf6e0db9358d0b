"""Live traffic: services that are healthy at first and begin to fail one after the other."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaProducer

from streams.bench.load import TELEMETRY_PARTITIONS
from streams.bench.shop import Shop

INSTANCES = 2
_TICK = 0.005


@dataclass(slots=True)
class LiveTraffic:
    """`rate` requests a second of every service, as JSON records without a key, for as long as `run` runs.

    `services` gives the flag of each service. `fails_at` is when all requests of a service begin to fail, in seconds
    after the start. `failed` holds the times at which each service's failed requests were sent, in Unix seconds.
    """

    topic: str
    services: dict[str, str]
    rate: float
    fails_at: dict[str, float]
    failed: dict[str, list[float]] = field(default_factory=dict)

    async def run(self, client: dict[str, Any], stop: asyncio.Event) -> None:
        """Send until `stop`."""
        names = list(self.services)
        gap = 1 / (self.rate * len(names))
        async with AIOKafkaProducer(**client, acks="all", linger_ms=0) as producer:
            begin = time.time()
            sent = 0
            last = []
            while not stop.is_set():
                due = int((time.time() - begin) / gap)
                while sent < due:
                    name = names[sent % len(names)]
                    last = [await producer.send(self.topic, self._request(name, sent, begin))]
                    sent += 1
                await asyncio.sleep(_TICK)
            await asyncio.gather(*last)

    def _request(self, service: str, number: int, begin: float) -> bytes:
        now = time.time()
        fails = now - begin >= self.fails_at[service]
        if fails:
            self.failed.setdefault(service, []).append(now)
        status, outcome = (500, "error") if fails else (200, "ok")
        instance = number // len(self.services) % INSTANCES
        return (
            f'{{"ts":{now:.6f},"service":"{service}","environment":"production","route":"/api/v1/items",'
            f'"instance":"{service}-{instance}","status":{status},"outcome":"{outcome}","latency_ms":31.4,'
            f'"cache":"hit","flags":{{"{self.services[service]}":"on"}},"n":1}}'
        ).encode()


async def columnar_traffic(shop: Shop, topic: str, client: dict[str, Any], stop: asyncio.Event) -> None:
    """Send the shop's requests until `stop`: at the end of each second, one columnar record to each partition."""
    templates = shop.templates(16, int(shop.rate / TELEMETRY_PARTITIONS))
    async with AIOKafkaProducer(**client, acks="all") as producer:
        second = int(time.time())
        while not stop.is_set():
            await asyncio.sleep(max(0.0, second + 1 - time.time()))
            for partition in range(TELEMETRY_PARTITIONS):
                template = templates[(second + partition) % len(templates)]
                await producer.send(topic, shop.at(template, second, 1.0).value, partition=partition)
            second += 1
