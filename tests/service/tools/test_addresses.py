"""Which addresses the fetch tool connects to: public ones only, however a URL or an answer of DNS writes them."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.tools.addresses import blocked
from service.tools.base import ToolContext, ToolError
from service.tools.fetch import Fetcher, create

pytestmark = pytest.mark.in_image

PUBLIC = "93.184.216.34"


class TestAddresses:
    @pytest.mark.parametrize(
        "address",
        [
            *("127.0.0.1", "127.255.0.9", "0.0.0.0", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1"),
            *("169.254.169.254", "100.64.0.1", "100.100.100.200", "168.63.129.16", "192.0.0.1", "192.0.2.5"),
            *("198.18.0.1", "198.51.100.1", "203.0.113.9", "224.0.0.1", "240.0.0.1", "255.255.255.255"),
            *("::", "::1", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1", "2001:db8::1", "100::1"),
            "::ffff:127.0.0.1",
            "::ffff:a00:1",
            "::127.0.0.1",
            "2002:7f00:1::",
            "2002:5db8:d822::",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a00:1",
            "2001:0:4136:e378:8000:63bf:3fff:fdd2",
            "2a00:1450:4001::200:5efe:7f00:1",
            "2a00:1450:4001::5efe:a9fe:a9fe",
            "fe80::1%eth0",
        ],
    )
    def test_inner_addresses_are_blocked_in_every_writing(self, address: str) -> None:
        """Private, local, reserved, shared and metadata addresses, also inside IPv6 transition forms."""
        assert blocked(address)

    @pytest.mark.parametrize(
        "address", [PUBLIC, "1.1.1.1", "172.32.0.1", "2606:4700:4700::1111", "2a00:1450:4001:81b::200e"]
    )
    def test_public_addresses_are_not(self, address: str) -> None:
        """The web stays reachable."""
        assert blocked(address) is None

    @settings(deadline=None)
    @given(st.ip_addresses(v=4))
    def test_it_never_allows_what_the_registry_calls_private(self, address: ipaddress.IPv4Address) -> None:
        """Python's own copy of the IANA registry agrees, alone and inside four IPv6 forms."""
        if not address.is_global or address.is_multicast:
            number = int(address)
            for inside in (
                address,
                ipaddress.IPv6Address((0xFFFF << 32) | number),
                ipaddress.IPv6Address((0x2002 << 112) | (number << 80)),
                ipaddress.IPv6Address((0x64FF9B << 96) | number),
                ipaddress.IPv6Address((0x2A001450 << 96) | (0x5EFE << 32) | number),
            ):
                assert blocked(inside), inside

    @settings(deadline=None)
    @given(st.ip_addresses(v=6))
    def test_ipv6_agrees_with_the_registry(self, address: ipaddress.IPv6Address) -> None:
        """Nothing that is not globally routable is allowed."""
        if not address.is_global:
            assert blocked(address)


urls = st.one_of(
    st.builds(
        "{}://{}{}{}".format,
        st.sampled_from(["http", "https", "HTTP", "ftp", "file", "gopher"]),
        st.sampled_from(
            [
                "a.test",
                "A.TEST.",
                "user@a.test",
                "a.test@b.test",
                "127.0.0.1",
                "2130706433",
                "0x7f.1",
                "[::1]",
                "0",
                "[::ffff:127.0.0.1]",
                "①②⑦.0.0.1",
                "localhost",
                "",
                "a.test#@b.test",
                "a.test\\@b.test",
                "a.test%2f",
            ]
        ),
        st.sampled_from(["", ":80", ":443", ":22", ":0", ":99999", ":x"]),
        st.sampled_from(["", "/", "/x?y=1", "/\u2028", "/%0d%0aHost:x", "//b.test/"]),
    ),
    st.text(max_size=40),
)
addresses = st.one_of(
    st.ip_addresses().map(str),
    st.sampled_from(["127.0.0.1", "::1", "169.254.169.254", PUBLIC, "junk", "::ffff:10.0.0.1"]),
)


class TestRule:
    @settings(max_examples=250, deadline=None)
    @given(urls, st.lists(addresses, max_size=4))
    def test_what_is_connected_to_was_checked(self, url: str, answer: list[str]) -> None:
        """For any URL and any DNS answer: either a ToolError, or an address of that answer, all of which are public."""

        async def resolver(_host: str, _port: int) -> Sequence[str]:
            return answer

        async def check() -> Any:
            return await Fetcher(resolver=resolver).check(url)

        try:
            target = anyio.run(check)
        except ToolError:
            return
        assert target.address in answer
        assert all(blocked(address) is None for address in answer)
        assert target.port in (80, 443)
        connects_to = target.url.partition("://")[2].rpartition(":" + str(target.port))[0].strip("[]")
        assert connects_to == target.address

    @pytest.mark.parametrize(
        "url",
        [
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://localhost/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[64:ff9b::7f00:1]/",
            "http://①②⑦.⓪.⓪.①/",
            "http://169.254.169.254/latest/meta-data/",
        ],
    )
    def test_other_ways_to_say_localhost_fail_with_the_real_resolver(self, url: str) -> None:
        """The system's resolver understands old number forms; the rule sees what they mean."""
        with pytest.raises(ToolError, match=r"Only public addresses|no such host|no host name"):
            anyio.run(Fetcher().fetch, url)

    def test_the_tool_itself_uses_the_rule(self) -> None:
        """`create` makes the guarded one, and an allow-list of hosts narrows it."""
        with pytest.raises(ToolError, match="public"):
            anyio.run(create(), {"url": "http://127.0.0.1/"}, ToolContext("r", "c", "k"))
        with pytest.raises(ToolError, match=r"Not one of the hosts allowed here: b\.test"):
            anyio.run(create(["a.test"]), {"url": "http://b.test/"}, ToolContext("r", "c", "k"))
