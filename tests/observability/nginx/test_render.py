"""The proxy's configuration as text: no value breaks out of it, nginx accepts every step."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from observability.nginx.render import Proxy, ProxyError, Split, render, render_split, write, write_split
from tests.fakes.programs import find, run

pytestmark = pytest.mark.in_image


class TestRendering:
    """The text, without nginx running."""

    def test_no_percent_means_no_line(self) -> None:
        """At 0 % the canary has no line, which nginx would refuse; at 100 % it takes all."""
        assert "canary;" not in render_split(Split(0))
        assert re.findall(r"\S+ (?:canary|stable);", render_split(Split(100)).split("map")[0]) == ["* canary;"]
        assert "12.5% canary;" in render_split(Split(12.5))

    @pytest.mark.parametrize("percent", [-1, 101, float("nan")])
    def test_impossible_percentages_are_refused(self, percent: float) -> None:
        """Only 0 to 100 can be split."""
        with pytest.raises(ProxyError, match="Use 0 to 100"):
            render_split(Split(percent))

    @pytest.mark.parametrize(
        "bad",
        [
            {"stable": "agent:8000; return 200"},
            {"server_name": "a.example; }"},
            {"trusted": ("10.0.0.0/8 1; default",)},
            {"certificate": "/etc/x\n"},
        ],
    )
    def test_values_cannot_break_out(self, bad: dict[str, object]) -> None:
        """A value with a semicolon, brace or newline is refused by name."""
        with pytest.raises(ProxyError, match=next(iter(bad))):
            render(Proxy(**bad))  # type: ignore[arg-type]

    @pytest.mark.parametrize("percent", [0, 0.5, 10, 50, 99.99, 100])
    def test_nginx_accepts_every_step(self, percent: float, tmp_path: Path) -> None:
        """`nginx -t` accepts the configuration at each percentage."""
        write(Proxy(tls=False, folder=str(tmp_path), temp=str(tmp_path)), tmp_path, Split(percent))
        run(find("nginx", "nginx"), "-t", "-e", "stderr", "-c", tmp_path / "nginx.conf", "-g", "user root;")

    def test_rewriting_leaves_no_part_behind(self, tmp_path: Path) -> None:
        """Files are replaced whole."""
        write(Proxy(), tmp_path)
        write_split(Split(25), tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["acme", "nginx.conf", "split.conf"]
        assert "25% canary" in (tmp_path / "split.conf").read_text()
