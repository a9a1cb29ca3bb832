"""A name server for tests: answers A questions over UDP from a table that a test may change."""

from __future__ import annotations

import ipaddress
import socket
import struct
import threading


class NameServer:
    """Serves `names` (name -> IPv4 addresses) on a free port of localhost; a context manager."""

    def __init__(self, names: dict[str, list[str]]) -> None:
        self.names = names
        self.asked = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.2)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> NameServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while not self._over.is_set():
            try:
                question, sender = self._socket.recvfrom(512)
            except TimeoutError:
                continue
            self._socket.sendto(self._answer(question), sender)

    def _answer(self, question: bytes) -> bytes:
        labels, at = [], 12
        while question[at]:
            labels.append(question[at + 1 : at + 1 + question[at]].decode())
            at += question[at] + 1
        end = at + 5
        addresses = self.names.get(".".join(labels), [])
        self.asked += 1
        # RFC 1035, 4.1.1: a reply with recursion available; NXDOMAIN (3) for a name that is not in the table.
        head = question[:2] + struct.pack(">HHHHH", 0x8180 if addresses else 0x8183, 1, len(addresses), 0, 0)
        records = b"".join(
            b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 1, 4) + ipaddress.IPv4Address(address).packed
            for address in addresses
        )
        return head + question[12:end] + records
