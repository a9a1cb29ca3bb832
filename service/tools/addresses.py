"""Which network addresses a tool may connect to: public ones only, however they are written.

A name can resolve to anything, and IPv6 has many ways to carry an IPv4 address. `blocked` decodes all of those that
lead a packet to the inner address and then judges both.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address

_BLOCKED_4 = tuple(
    IPv4Network(network)
    for network in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24"),
        *("192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
        *("224.0.0.0/4", "240.0.0.0/4"),
        # Addresses of clouds' own services that look public.
        *("168.63.129.16/32", "100.100.100.200/32"),
    )
)
_PUBLIC_6 = IPv6Network("2000::/3")
_BLOCKED_6 = tuple(
    IPv6Network(network)
    for network in (
        *("2001::/23", "2001:db8::/32", "3fff::/20", "2620:4f:8000::/48"),
        "2002::/16",  # 6to4 is dead; whatever still speaks it leads to the address inside
    )
)
_NAT64 = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))


def blocked(address: Address | str) -> str | None:
    """Why `address` may not be connected to, in a few words; None if it may. Raises ValueError for no address."""
    ip = ip_address(address) if isinstance(address, str) else address
    if isinstance(ip, IPv6Address) and ip.scope_id:
        return f"{ip} is tied to a network interface"
    for each in (ip, *_inner(ip)):
        if isinstance(each, IPv4Address):
            if any(each in network for network in _BLOCKED_4):
                return _say(ip, each)
        elif each not in _PUBLIC_6 or any(each in network for network in _BLOCKED_6):
            return _say(ip, each)
    return None


def _say(ip: Address, inner: Address) -> str:
    return f"{ip} is not a public address" if ip == inner else f"{ip} stands for {inner}, not a public address"


def _inner(ip: Address) -> Iterator[IPv4Address]:
    """IPv4 addresses that `ip` may lead to."""
    if isinstance(ip, IPv4Address):
        return
    raw = ip.packed
    if ip.ipv4_mapped is not None:
        yield ip.ipv4_mapped
    if ip.sixtofour is not None:
        yield ip.sixtofour
    if ip.teredo is not None:
        yield from ip.teredo
    if any(ip in network for network in _NAT64):
        yield IPv4Address(raw[12:])
    if raw[8:12] in (b"\x00\x00\x5e\xfe", b"\x02\x00\x5e\xfe"):  # ISATAP (RFC 5214)
        yield IPv4Address(raw[12:])
    if raw[:12] == b"\0" * 12:  # IPv4-compatible, deprecated
        yield IPv4Address(raw[12:])
