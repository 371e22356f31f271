#!/usr/bin/env python3
"""Steady load on one address: `load.py PORT CONNECTIONS SEED`, then lines on standard input.

`run N GAP_MS POSTS`: N requests (or with `2.5s` for so long) over all connections, each connection pausing at random for up
to twice GAP_MS between two of them; POSTS of a hundred are POST. Says one line of JSON: by method how many were asked,
failed and how, and latencies.
"""

import asyncio
import collections
import json
import random
import sys
import time

GET = b"GET /get HTTP/1.1\r\nHost: origin.test\r\n\r\n"
POST = b"POST /post HTTP/1.1\r\nHost: origin.test\r\nContent-Length: 32\r\n\r\n" + b"y" * 32
PATIENCE = 30.0


class Answers(asyncio.Protocol):
    def __init__(self):
        self.buffer, self.answered = b"", None

    def data_received(self, data):
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.buffer[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if len(self.buffer) >= end + 4 + length:
            self.tell(int(head[9:12]), b"connection: close" in head)
            self.buffer = self.buffer[end + 4 + length :]

    def connection_lost(self, _):
        self.tell(0, True)

    def tell(self, status, ends):
        if self.answered and not self.answered.done():
            self.answered.set_result((status, ends))


class Run:
    def __init__(self, port, wanted, gap, posts, chance):
        timed = wanted.endswith("s")
        self.left = float("inf") if timed else int(wanted)
        self.until = time.monotonic() + float(wanted[:-1]) if timed else float("inf")
        self.port, self.gap, self.posts, self.chance = port, gap, posts, chance
        self.asked, self.failed, self.took = collections.Counter(), collections.Counter(), []

    async def connection(self):
        loop, transport, answers = asyncio.get_running_loop(), None, None
        await asyncio.sleep(self.chance.uniform(0, 2 * self.gap))
        while self.left > 0 and time.monotonic() < self.until:
            self.left -= 1
            method, request = ("POST", POST) if self.chance.uniform(0, 100) < self.posts else ("GET", GET)
            self.asked[method] += 1
            began = time.monotonic()
            try:
                async with asyncio.timeout(PATIENCE):
                    if transport is None or transport.is_closing():
                        transport, answers = await loop.create_connection(Answers, "127.0.0.1", self.port)
                    answers.answered = loop.create_future()
                    transport.write(request)
                    status, ends = await answers.answered
            except TimeoutError:
                status, ends = "no answer", True
            except OSError:
                status, ends = "refused", True
            self.took.append(time.monotonic() - began)
            if status != 200:
                self.failed[f"{method} {status or 'closed'}"] += 1
            if ends and transport:
                transport.abort()
                transport = None
            await asyncio.sleep(self.chance.uniform(0, 2 * self.gap))
        if transport:
            transport.abort()

    def result(self):
        took = sorted(self.took)
        at = lambda q: took[min(len(took) - 1, int(q * len(took)))] * 1000 if took else 0
        return {
            "asked": self.asked,
            "failed": self.failed,
            "p50": at(0.5),
            "p99": at(0.99),
            "p999": at(0.999),
            "most": at(1),
        }


async def main():
    port, connections, chance = int(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        _, count, gap, posts = line.split()
        run = Run(port, count, float(gap) / 1000, float(posts), chance)
        await asyncio.gather(*(run.connection() for _ in range(connections)))
        print(json.dumps(run.result()), flush=True)


asyncio.run(main())
