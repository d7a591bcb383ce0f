"""Calls to others: nothing but what is listed and public, one resolution an attempt, and an end to every attempt."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from app.errors import TargetError
from app.privacy.options import CommonOptions, FidesOptions, WebhookOptions
from app.privacy.outgoing import Outgoing, Reply, check_target, is_callable, retry_after
from tests.app.privacy.peers import (
    HERE,
    NAME,
    Names,
    Peer,
    Says,
    client_tls,
    drip_body,
    drip_head,
    hang,
    peer,
    server_tls,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trust(authority: trustme.CA) -> ssl.SSLContext:
    return client_tls(authority)


@pytest.fixture(scope="module")
def identity(authority: trustme.CA) -> ssl.SSLContext:
    return server_tls(authority)


@pytest.fixture
def one(identity: ssl.SSLContext) -> Iterator[Peer]:
    with peer(tls=identity) as started:
        yield started


def options(one: Peer, **more: Any) -> WebhookOptions:
    given: dict[str, Any] = {"url": one.url(), "allowed_networks": ["127.0.0.0/8"], **more}
    return WebhookOptions(**given)


def send(
    outgoing: Outgoing, url: str, options: CommonOptions, *, headers: dict[str, str] | None = None, body: bytes = b"{}"
) -> Reply:
    return asyncio.run(outgoing.send(method="POST", url=url, headers=headers or {}, body=body, options=options))


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.org",
        "https://hooks.example.org:443/path?token=x",
        "https://HOOKS.example.org/",
        "https://other.example.org:8443/",
        "https://[2606:4700::1111]:8443/",
        "https://xn--bcher-kva.example/",
        "https://bücher.example/",
        "https://fides.example.org:9443/api/v1/privacy-request/pri_1/resume",
    ],
)
def test_what_is_listed_may_be_called(url: str) -> None:
    listed = ["hooks.example.org", "other.example.org:8443", "[2606:4700::1111]:8443", "xn--bcher-kva.example"]
    check_target(url, FidesOptions(base_url="https://fides.example.org:9443/base", allowed_hosts=listed))


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://hooks.example.org/", "allow_http"),
        ("ftp://hooks.example.org/", "begins with https"),
        ("file:///etc/passwd", "begins with https"),
        ("//hooks.example.org/", "begins with https"),
        ("hooks.example.org", "begins with https"),
        ("https://", "begins with https"),
        ("https://[::1", "isn't one"),
        ("https://user:secret@hooks.example.org/", "credentials"),
        ("https://hooks.example.org@evil.example/", "credentials"),
        ("https://hooks.example.org\\@evil.example/", "credentials"),
        ("https://hooks.example.org:8443/", "allowed_hosts"),
        ("https://other.example.org/", "allowed_hosts"),
        ("https://sub.hooks.example.org/", "allowed_hosts"),
        ("https://hooks.example.org.evil.example/", "allowed_hosts"),
        ("https://hooks.example.org./", "allowed_hosts"),
        ("https://127.0.0.1/", "allowed_hosts"),
        ("https://evil.example/hooks.example.org", "allowed_hosts"),
        ("https://hooks.example.org/" + "x" * 2_000, "longer"),
    ],
)
def test_what_isnt_listed_is_refused_without_being_repeated(url: str, why: str) -> None:
    with pytest.raises(TargetError, match=why) as refused:
        check_target(url, CommonOptions(allowed_hosts=["hooks.example.org", "other.example.org:8443"]))
    assert "example" not in str(refused.value)
    assert "secret" not in str(refused.value)


def test_a_listed_host_that_is_no_host_lists_nothing() -> None:
    with pytest.raises(TargetError, match="allowed_hosts"):
        check_target("https://hooks.example.org/", CommonOptions(allowed_hosts=["hooks.example.org:99999"]))


def test_http_is_called_where_that_is_allowed() -> None:
    check_target("http://hooks.example.org/", CommonOptions(allowed_hosts=["hooks.example.org"], allow_http=True))


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"])
def test_public_addresses_may_be_called(address: str) -> None:
    assert is_callable(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.255.255.254", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "0.0.0.0", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1", "192.0.0.192",
        "168.63.129.16", "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::808:808", "2002:7f00:1::", "2002:a00:1::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2", "fec0::1",
        "100::1", "5f00::1",
    ],
)  # fmt: skip
def test_other_addresses_may_not(address: str) -> None:
    assert not is_callable(ip_address(address))


@given(st.ip_addresses(v=4))
def test_an_address_within_another_is_called_as_little_as_by_itself(address: IPv4Address) -> None:
    within = [
        IPv6Address(int(IPv6Address("::ffff:0:0")) | int(address)),
        IPv6Address(int(IPv6Address("64:ff9b::")) | int(address)),
        IPv6Address(int(IPv6Address("2002::")) | int(address) << 80 | 1),
    ]
    assert {is_callable(outer) for outer in within} == {is_callable(address)}
    assert is_callable(address, [ip_network(address)])
    assert all(is_callable(outer, [ip_network(address)]) for outer in within)


@given(st.ip_addresses(v=6))
def test_what_python_calls_not_global_is_never_called(address: IPv6Address) -> None:
    assert address.is_global or not is_callable(address) or address.ipv4_mapped is not None


def test_a_private_network_is_called_where_it_is_allowed() -> None:
    networks = [ip_network("10.1.0.0/16")]
    assert is_callable(ip_address("10.1.2.3"), networks)
    assert is_callable(ip_address("::ffff:10.1.2.3"), networks)
    assert not is_callable(ip_address("10.2.0.1"), networks)


def test_a_message_arrives_at_the_address_with_the_name(one: Peer, trust: ssl.SSLContext) -> None:
    names = Names({NAME: [["127.0.0.1"]]})
    reply = send(
        Outgoing(resolver=names, tls=trust), one.url("/a?b=c"), options(one), headers={"X-One": "ä"}, body=b"body"
    )
    assert reply == Reply(status=200)
    [asked] = one.asked
    assert (asked.method, asked.path, asked.body) == ("POST", "/a?b=c", "body")
    assert asked.headers["host"] == f"{NAME}:{one.port}"
    assert asked.headers["user-agent"].startswith("neverseen/")
    assert asked.headers["accept-encoding"] == "identity"
    assert names.asked == [NAME]


def test_how_a_message_travels_isnt_the_peers_to_choose(one: Peer, trust: ssl.SSLContext) -> None:
    chosen = {"Host": "internal", "Content-Length": "9999", "Transfer-Encoding": "chunked", "Connection": "keep-alive"}
    assert send(Outgoing(resolver=HERE, tls=trust), one.url(), options(one), headers=chosen).status == 200
    [asked] = one.asked
    assert asked.headers["host"] == f"{NAME}:{one.port}"
    assert asked.headers["content-length"] == "2"
    assert "transfer-encoding" not in asked.headers


def test_a_header_that_would_begin_another_one_isnt_sent(one: Peer, trust: ssl.SSLContext) -> None:
    for headers in ({"X-One": "a\r\nX-Two: b"}, {"X-One: a\r\nX-Two": "b"}, {"": "b"}):
        with pytest.raises(TargetError, match="header"):
            send(Outgoing(resolver=HERE, tls=trust), one.url(), options(one), headers=headers)
    assert not one.connections


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::1", "10.0.0.7", "::ffff:127.0.0.1", "junk"])
def test_a_name_of_an_address_that_isnt_public_is_refused(one: Peer, trust: ssl.SSLContext, address: str) -> None:
    outgoing = Outgoing(resolver=Names({NAME: [[address]]}), tls=trust)
    with pytest.raises(TargetError, match="isn't public"):
        send(outgoing, one.url(), options(one, allowed_networks=[]))
    assert one.connections == 0


def test_one_such_address_refuses_the_whole_name(one: Peer, trust: ssl.SSLContext) -> None:
    outgoing = Outgoing(resolver=Names({NAME: [["127.0.0.1", "169.254.169.254"]]}), tls=trust)
    with pytest.raises(TargetError, match="isn't public"):
        send(outgoing, one.url(), options(one))
    assert one.connections == 0


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "[::1]", "127.0.0.1", "[::ffff:7f00:1]", "2130706433", "localhost"]
)
def test_an_address_in_place_of_a_name_is_looked_at_too(host: str) -> None:
    """With the resolver of the system, which knows more spellings of addresses than one would think."""
    with pytest.raises(TargetError, match="isn't public"):
        send(Outgoing(), f"https://{host}/latest/meta-data", CommonOptions(allowed_hosts=[host]))


def test_a_name_that_points_elsewhere_meanwhile_is_called_where_it_was_looked_at(
    one: Peer, trust: ssl.SSLContext
) -> None:
    names = Names({NAME: [["127.0.0.1"], ["169.254.169.254"]]})
    outgoing = Outgoing(resolver=names, tls=trust)
    assert send(outgoing, one.url(), options(one)).status == 200
    assert names.asked == [NAME]
    with pytest.raises(TargetError):
        send(outgoing, one.url(), options(one))  # another attempt looks again
    assert len(one.asked) == 1


def test_the_next_address_is_tried_where_one_cant_be_connected_to(one: Peer, trust: ssl.SSLContext) -> None:
    outgoing = Outgoing(resolver=Names({NAME: [["127.0.0.2", "127.0.0.3", "127.0.0.1"]]}), tls=trust)
    assert send(outgoing, one.url(), options(one)).status == 200


def test_where_none_can_that_is_said(trust: ssl.SSLContext) -> None:
    with peer() as gone:
        pass
    outgoing = Outgoing(resolver=Names({NAME: [["127.0.0.1", "127.0.0.2"]]}), tls=trust)
    assert send(outgoing, gone.url(), options(gone)).error == "connect"


@pytest.mark.parametrize("host", ["nobody.invalid", "a..b", f"{'x' * 64}.example"])
def test_a_name_without_an_address_is_said_to_be_one(host: str) -> None:
    reply = send(Outgoing(), f"https://{host}/", CommonOptions(allowed_hosts=[host]))
    assert (reply.status, reply.error) == (None, "dns")


def test_a_certificate_is_verified_for_the_name(authority: trustme.CA, trust: ssl.SSLContext) -> None:
    with peer(tls=server_tls(authority, "other.example.org", "127.0.0.1")) as other:
        reply = send(Outgoing(resolver=HERE, tls=trust), other.url(), options(other))
    assert reply.error == "tls"
    assert "certificate" in reply.why
    assert not other.asked


def test_a_certificate_of_an_unknown_authority_is_refused(one: Peer) -> None:
    reply = send(Outgoing(resolver=HERE), one.url(), options(one))  # trusts those that everybody trusts
    assert (reply.status, reply.error) == (None, "tls")
    assert not one.asked


def test_what_doesnt_speak_tls_is_refused(trust: ssl.SSLContext) -> None:
    with peer() as plain:
        assert send(Outgoing(resolver=HERE, tls=trust), plain.url(), options(plain)).error == "tls"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_isnt_followed(trust: ssl.SSLContext, identity: ssl.SSLContext, status: int) -> None:
    with peer(tls=identity) as target:
        moved = Says(status=status, headers={"Location": target.url()})
        with peer(moved, tls=identity) as one:
            allowed = options(one, allowed_hosts=[f"{NAME}:{target.port}"])
            assert send(Outgoing(resolver=HERE, tls=trust), one.url(), allowed).status == status
    assert not target.connections


def test_no_proxy_of_the_environment_is_used(one: Peer, trust: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    with peer() as proxy:
        for name in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url(name="127.0.0.1", scheme="http"))
        monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
        assert send(Outgoing(resolver=HERE, tls=trust), one.url(), options(one)).status == 200
    assert not proxy.connections


@pytest.mark.parametrize("does", [hang, drip_head])
def test_an_attempt_ends_whatever_the_peer_does(
    trust: ssl.SSLContext, identity: ssl.SSLContext, does: Callable[[BaseHTTPRequestHandler, Peer], None]
) -> None:
    with peer(does, tls=identity) as one:
        started = time.monotonic()
        reply = send(Outgoing(resolver=HERE, tls=trust, seconds=0.5), one.url(), options(one))
        assert time.monotonic() - started < 50
    assert (reply.status, reply.error) == (None, "timeout")
    assert reply.why == "There was no answer within 0.5 seconds."


def test_a_name_that_nobody_answers_for_ends_too(one: Peer, trust: ssl.SSLContext) -> None:
    async def never(host: str, port: int) -> list[str]:
        await asyncio.sleep(60)
        return []

    reply = send(Outgoing(resolver=never, tls=trust, seconds=0.2), one.url(), options(one))
    assert reply.error == "timeout"


def test_a_peer_that_drips_its_body_has_answered(trust: ssl.SSLContext, identity: ssl.SSLContext) -> None:
    for seconds in (60, 0.5):
        with peer(drip_body, tls=identity) as one:
            started = time.monotonic()
            assert send(Outgoing(resolver=HERE, tls=trust, seconds=seconds), one.url(), options(one)).status == 200
            assert time.monotonic() - started < 30


def test_a_body_without_end_is_dropped(trust: ssl.SSLContext, identity: ssl.SSLContext) -> None:
    written = [0]

    def gigabyte(handler: BaseHTTPRequestHandler, _: Peer) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(2**30))
        handler.end_headers()
        with suppress(OSError):
            for _part in range(2**10):
                handler.wfile.write(bytes(2**20))
                written[0] += 2**20

    with peer(gigabyte, tls=identity) as one:
        assert send(Outgoing(resolver=HERE, tls=trust), one.url(), options(one)).status == 200
    assert written[0] < 2**26


def test_a_body_that_would_be_a_thousand_times_larger_isnt_unpacked(
    trust: ssl.SSLContext, identity: ssl.SSLContext
) -> None:
    packed = gzip.compress(bytes(2**24))
    with peer(Says(body=packed, headers={"Content-Encoding": "gzip"}), tls=identity) as one:
        assert send(Outgoing(resolver=HERE, tls=trust), one.url(), options(one)).status == 200


def test_what_isnt_http_is_said_to_be_broken(trust: ssl.SSLContext, identity: ssl.SSLContext) -> None:
    def babble(handler: BaseHTTPRequestHandler, _: Peer) -> None:
        handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n" * 10)

    with peer(babble, tls=identity) as one:
        assert send(Outgoing(resolver=HERE, tls=trust), one.url(), options(one)).error == "broken"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        ("999999999999999", 86_400),
        ("Sun, 01 Mar 2026 12:10:00 GMT", 600),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0),
        ("Sun, 01 Mar 2027 12:00:00 GMT", 86_400),
        ("-5", None),
        ("soon", None),
        ("1.5", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_a_day_at_most(value: str, seconds: int | None) -> None:
    assert retry_after(value, NOW) == (None if seconds is None else timedelta(seconds=seconds))
    assert retry_after(None, NOW) is None


def test_a_peer_may_say_when_to_come_again(trust: ssl.SSLContext, identity: ssl.SSLContext) -> None:
    with peer(Says(status=429, headers={"Retry-After": "90"}), tls=identity) as one:
        reply = send(Outgoing(resolver=HERE, tls=trust), one.url(), options(one))
    assert reply == Reply(status=429, retry_after=timedelta(seconds=90))
