"""Small HTTP clients that do exactly one thing at a time: for memory at rest and for counting instructions."""

import socket
import struct

from measure import trusting

HEADERS, SETTINGS, WINDOW_UPDATE, DATA = 1, 4, 8, 0
END_STREAM, END_HEADERS, ACK = 1, 4, 1


def connect(port, tls=False, *alpn, session=None):
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return trusting(*alpn).wrap_socket(connection, session=session) if tls else connection


class Http1:
    def __init__(self, port, tls=False, session=None):
        self.socket = connect(port, tls, session=session)

    def exchange(self, request):
        """Sends a request, reads a response with a Content-Length to its end."""
        self.socket.sendall(request)
        got = bytearray()
        while (end := got.find(b"\r\n\r\n")) < 0:
            got += self._read()
        head = bytes(got[:end]).lower()
        assert head.split(b"\r\n")[0].split()[1] == b"200", head
        length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
        while len(got) < end + 4 + length:
            got += self._read()

    def _read(self):
        part = self.socket.recv(1 << 18)
        assert part, "closed within a response"
        return part

    def close(self):
        self.socket.close()


class Http2:
    """One stream after the other."""

    def __init__(self, port, path="/1k"):
        self.socket = connect(port, True, "h2")
        assert self.socket.selected_alpn_protocol() == "h2"
        self.stream = -1
        self.read = bytearray()
        # :method GET and :scheme https of the static table, :path and :authority written out.
        named = [(4, path.encode()), (1, b"localhost")]
        self.block = b"\x82\x87" + b"".join(bytes([index, len(text)]) + text for index, text in named)
        # The largest windows for a start: only long runs need more.
        window = frame(SETTINGS, 0, 0, struct.pack(">HI", 4, (1 << 31) - 1))
        more = frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", (1 << 31) - 1 - 65535))
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + window + more)

    def exchange(self):
        self.stream += 2
        self.socket.sendall(frame(HEADERS, END_STREAM | END_HEADERS, self.stream, self.block))
        while True:
            kind, flags, stream = self._frame()
            if kind == SETTINGS and not flags & ACK:
                self.socket.sendall(frame(SETTINGS, ACK, 0, b""))
            if kind in (HEADERS, DATA) and stream == self.stream and flags & END_STREAM:
                return
            assert kind not in (3, 7), "the server gave up"

    def _frame(self):
        while len(self.read) < 9 or len(self.read) < 9 + int.from_bytes(self.read[:3], "big"):
            part = self.socket.recv(1 << 18)
            assert part, "closed within a response"
            self.read += part
        length, kind, flags = int.from_bytes(self.read[:3], "big"), self.read[3], self.read[4]
        stream = int.from_bytes(self.read[5:9], "big")
        del self.read[: 9 + length]
        return kind, flags, stream

    def close(self):
        self.socket.close()


def frame(kind, flags, stream, payload):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
