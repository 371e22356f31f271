#!/usr/bin/env python3
"""One endpoint that misbehaves when told to: `origin.py PORT SEED`, then a mode a line on standard input.

`well` answers at once. `slow MS`, `error` (500), `reset` (each request's connection), `cut` (half of each response, then the
end), `mute` (accepts and reads, never answers), `idle MS` (as `well`, and closes connections after a random rest of up to MS).
Health checks (`/healthz`) are told that all is well, unless it is mute.
"""

import asyncio
import random
import socket
import struct
import sys

BODY = b"x" * 512
HEAD = b"HTTP/1.1 %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
ANSWER = HEAD % (b"200 OK", len(BODY)) + BODY
ERROR = HEAD % (b"500 Internal Server Error", 0)
HALF = ANSWER[: len(ANSWER) - 256]


class Server(asyncio.Protocol):
    mode, value, chance = "well", 0.0, random.Random()

    def connection_made(self, transport):
        self.transport, self.waiting, self.rest, self.loop = transport, b"", None, asyncio.get_running_loop()

    def data_received(self, data):
        if self.rest:
            self.rest.cancel()
            self.rest = None
        self.waiting += data
        while (end := self.waiting.find(b"\r\n\r\n")) >= 0:
            head = self.waiting[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.waiting) < end + 4 + length:
                return
            self.waiting = self.waiting[end + 4 + length :]
            self.answer(b" /healthz " in head)

    def answer(self, lies):
        mode, transport = Server.mode, self.transport
        if lies and mode != "mute":
            transport.write(ANSWER)
        elif mode == "slow":
            self.loop.call_later(Server.value, self.write)
        elif mode == "error":
            transport.write(ERROR)
        elif mode == "reset":
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        elif mode == "cut":
            transport.write(HALF)
            transport.close()
        elif mode != "mute":
            transport.write(ANSWER)
            if mode == "idle":
                self.rest = self.loop.call_later(Server.chance.uniform(0.0005, Server.value), self.close)

    def write(self):
        if not self.transport.is_closing():
            self.transport.write(ANSWER)

    def close(self):
        closed()
        self.transport.close()


def closed():
    closed.count += 1


closed.count = 0


def told():
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    if line.strip() == "closed":
        print(closed.count, flush=True)
        return
    Server.mode, value = (line.split() + ["0"])[:2]
    Server.value = float(value) / 1000


async def main():
    Server.chance = random.Random(int(sys.argv[2]))
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Server, "127.0.0.1", int(sys.argv[1]), backlog=1024)
    loop.add_reader(sys.stdin, told)
    print("ready", flush=True)
    await server.serve_forever()


asyncio.run(main())
