"""One nginx in front of a stable service and a canary: streams, stickiness, shares, what passes and what does not."""

from __future__ import annotations

import json
import re
import secrets
import time
from pathlib import Path

import pytest

from observability.nginx.render import Proxy, Split, write_split
from tests.fakes.programs import Programs
from tests.observability.nginx.proxies import (
    CHUNKS,
    HTTP,
    Upstream,
    reload,
    served_by,
    shares,
    start,
)

pytestmark = pytest.mark.in_image


@pytest.fixture(scope="module")
def url(programs: Programs, plain: Proxy) -> str:
    """The address of the plain proxy, with half of the new sessions for the canary."""
    return start(programs, plain, Split(50))


class TestProxy:
    """One nginx in front of both upstreams, half of the new sessions for the canary."""

    @pytest.mark.parametrize("path", ["/stream", "/stream-until-closed"])
    def test_gaps_between_events_survive(self, path: str, url: str, upstreams: tuple[Upstream, Upstream]) -> None:
        """Each event reaches the client before the service sends the next: nothing is held back."""
        events: list[str] = []
        with HTTP.stream("GET", url + path, headers={"X-Session-Id": "sess_stable_0a"}, timeout=60) as reply:
            for line in reply.iter_lines():
                if line.startswith("data:"):
                    events.append(line)
                    upstreams[0].seen.release()
        assert events == [f"data: {number}" for number in range(CHUNKS)]
        assert not upstreams[0].gave_up

    def test_a_session_keeps_its_variant(self, url: str) -> None:
        """The same id, issued by us or made by a client, always lands on the same side; different ids on both."""
        for _ in range(5):
            assert served_by(url, "sess_canary_0a1b2c") == "canary"
            assert served_by(url, "sess_stable_0a1b2c") == "stable"
        ids = [secrets.token_hex(8) for _ in range(40)]
        first = {each: served_by(url, each) for each in ids}
        assert set(first.values()) == {"stable", "canary"}
        assert {each: served_by(url, each) for each in ids} == first

    def test_the_session_in_path_or_query_counts_too(self, url: str) -> None:
        """A request about a session goes to its variant without the header."""
        for variant in ("stable", "canary"):
            for _ in range(4):
                for path in (f"/v1/sessions/sess_{variant}_0a", f"/v1/runs?session_id=sess_{variant}_0a"):
                    assert HTTP.get(url + path).json()["name"] == variant

    def test_a_key_without_session_stays_on_one_side(self, url: str) -> None:
        """Calls that name no session are held together by their key."""
        sides: set[str] = set()
        for number in range(20):
            headers = {"Authorization": f"Bearer key-{number}"}
            names = {HTTP.post(f"{url}/v1/chat/completions", headers=headers).json()["name"] for _ in range(3)}
            assert len(names) == 1
            sides |= names
        assert sides == {"stable", "canary"}

    def test_x_variant_is_not_heard_from_strangers(self, url: str) -> None:
        """The header neither chooses the variant nor reaches the service."""
        for variant in ("stable", "canary"):
            headers = {"X-Session-Id": "sess_stable_0a", "X-Variant": variant}
            reply = HTTP.get(f"{url}/v1/runs", headers=headers).json()
            assert reply["name"] == "stable"
            assert "x-variant" not in reply["headers"]

    def test_forwarded_headers_cannot_be_forged(self, url: str) -> None:
        """The service sees the real address and scheme, and a request id."""
        reply = HTTP.get(f"{url}/x", headers={"X-Forwarded-For": "6.6.6.6", "X-Forwarded-Proto": "https"}).json()
        assert reply["headers"]["x-forwarded-for"] == "127.0.0.1"
        assert reply["headers"]["x-forwarded-proto"] == "http"
        assert re.fullmatch(r"[0-9a-f]{32}", reply["headers"]["x-request-id"])

    def test_metrics_stay_inside(self, url: str) -> None:
        """/metrics does not exist for visitors; what only begins like it goes through."""
        assert HTTP.get(f"{url}/metrics").status_code == 404
        assert HTTP.get(f"{url}/metrics-of-mine").status_code == 200

    def test_a_body_beyond_the_limit_is_refused(self, url: str) -> None:
        """1 MB is the limit here: a little less arrives whole, more gets 413."""
        assert HTTP.post(f"{url}/v1/runs", content=b"x" * 1_000_000).json()["size"] == 1_000_000
        assert HTTP.post(f"{url}/v1/runs", content=b"x" * 1_100_000).status_code == 413

    def test_shares_follow_the_percentage(self, url: str, plain: Proxy) -> None:
        """New sessions are divided as asked, within five standard deviations; a reload moves no live session."""
        assert abs(shares(url)["canary"] - 300) < 5 * 12.3
        write_split(Split(10), Path(plain.folder))
        reload(plain, url, "canary")
        assert abs(shares(url)["canary"] - 60) < 5 * 7.4
        write_split(Split(0, deployed=True), Path(plain.folder))
        reload(plain, url, "canary")
        assert shares(url, 300)["canary"] == 0
        assert served_by(url, "sess_canary_0a1b2c") == "canary"

    def test_without_a_canary_its_sessions_go_to_stable(self, url: str, plain: Proxy) -> None:
        """After a roll-back nothing is sent to a container that is gone."""
        write_split(Split(), Path(plain.folder))
        reload(plain, url, "stable")
        assert served_by(url, "sess_canary_0a1b2c") == "stable"

    def test_the_log_holds_no_key_and_no_query(self, url: str, programs: Programs) -> None:
        """One JSON object a request, without what should not be kept."""
        HTTP.get(f"{url}/v1/runs?secret=query-secret", headers={"Authorization": "Bearer header-secret"})
        time.sleep(0.3)
        texts = [path.read_text() for path in programs.folder.glob("nginx-*.log")]
        assert not any("header-secret" in text or "query-secret" in text for text in texts)
        lines = [json.loads(line) for text in texts for line in text.splitlines() if line.startswith("{")]
        assert any(line["path"] == "/v1/runs" and line["status"] == 200 and line["variant"] for line in lines)
