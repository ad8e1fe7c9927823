"""A publisher of events over AMQP 0-9-1, with as much of the protocol as that needs."""

import socket
import struct


class Publisher:
    """A connection to a broker on this host that publishes as h does."""

    EXCHANGE = b"realtime"

    def __init__(self, port, vhost, user=b"guest", password=b"guest"):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(b"AMQP\0\0\x09\x01")
        self.expect(10, 10)
        plain = b"\0" + user + b"\0" + password
        self.method(0, 10, 11, empty_table() + short(b"PLAIN") + long(plain) + short(b"en_US"))
        channels, self.frame_max, _ = struct.unpack(">HIH", self.expect(10, 30)[:8])
        self.method(0, 10, 31, struct.pack(">HIH", channels, self.frame_max, 0))
        self.method(0, 10, 40, short(vhost.encode()) + short(b"") + b"\0")
        self.expect(10, 41)
        self.method(1, 20, 10, short(b""))
        self.expect(20, 11)
        # The same declaration as h's: the first client creates the exchange.
        self.method(1, 40, 10, b"\0\0" + short(self.EXCHANGE) + short(b"direct") + b"\0" + empty_table())
        self.expect(40, 11)
        self.method(1, 85, 10, b"\0")
        self.expect(85, 11)

    def publish(self, key, body):
        """Publishes an event and waits until the broker has enqueued it."""
        self.method(1, 60, 40, b"\0\0" + short(self.EXCHANGE) + short(key.encode()) + b"\0")
        # Content type, content encoding, and delivery mode.
        properties = struct.pack(">H", 0x8000 | 0x4000 | 0x1000) + short(b"application/json") + short(b"utf-8") + b"\x01"
        frames = [frame(2, 1, struct.pack(">HHQ", 60, 0, len(body)) + properties)]
        size = self.frame_max - 8
        frames += [frame(3, 1, body[at : at + size]) for at in range(0, len(body), size)]
        self.socket.sendall(b"".join(frames))
        self.expect(60, 80)

    def method(self, channel, kind, number, arguments):
        self.socket.sendall(frame(1, channel, struct.pack(">HH", kind, number) + arguments))

    def expect(self, kind, number):
        """Reads the next method, and returns its arguments."""
        while True:
            type_, _, length = struct.unpack(">BHI", self.read(7))
            payload = self.read(length + 1)[:-1]
            if type_ == 8:
                continue
            found = struct.unpack(">HH", payload[:4])
            if found != (kind, number):
                raise SystemExit(f"the broker sent method {found}, not {(kind, number)}: {payload[4:200]}")
            return payload[4:]

    def read(self, length):
        data = bytearray()
        while len(data) < length:
            more = self.socket.recv(length - len(data))
            if not more:
                raise SystemExit("the broker ended the connection")
            data += more
        return bytes(data)


def frame(kind, channel, payload):
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + b"\xce"


def short(text):
    return bytes([len(text)]) + text


def long(text):
    return struct.pack(">I", len(text)) + text


def empty_table():
    return long(b"")
