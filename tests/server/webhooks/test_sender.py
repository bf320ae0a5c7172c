"""One attempt to deliver, to a real receiver on the loopback: what is sent, and what comes of each kind of answer."""

from __future__ import annotations

import time
from typing import Any

import httpcore
import pytest
import trio
from standardwebhooks import Webhook

from server.settings.webhooks import USER_ERASED, WebhookConfig
from server.webhooks import limits, sender
from server.webhooks.connecting import AddressRefused, GuardedBackend, Resolver
from server.webhooks.sender import Sender
from tests.server.webhooks.receiver import OTHER_SECRET, SECRET, Reply, receiving

BODY = b'{"type":"user.erased","timestamp":"2025-12-15T12:34:56.000Z","data":{"userId":"z\xc3\xb6e"}}'


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def sender_to(
    url: str, resolve: Any = None, *, allow_private: bool = True, secrets: tuple[str, ...] = (SECRET,)
) -> Sender:
    config = WebhookConfig("shop", url, (USER_ERASED,), secrets, allow_private=allow_private)
    return Sender(config, resolve=resolve or Resolver(), clock_ms=now_ms)


async def test_a_delivery_is_signed_as_receivers_expect() -> None:
    """The package itself verifies it, with either secret, and the body is the bytes that were signed."""
    async with receiving() as receiver:
        sends = sender_to(receiver.url, secrets=(SECRET, OTHER_SECRET))
        for number in range(2):
            attempt = await sends.send(f"1-{number}-user_erased", BODY)
            assert attempt.is_acknowledged
        await sends.close()
        for number, delivery in enumerate(await receiver.take(2)):
            assert delivery.body == BODY
            assert delivery.id == f"1-{number}-user_erased"
            assert delivery.headers["content-type"] == "application/json"
            assert delivery.headers["host"] == f"127.0.0.1:{receiver.port}"
            for secret in (SECRET, OTHER_SECRET):
                Webhook(secret).verify(delivery.body, dict(delivery.headers))
            with pytest.raises(Exception, match="No matching signature"):
                Webhook("whsec_" + "QUJD" * 8).verify(delivery.body, dict(delivery.headers))


@pytest.mark.parametrize(
    ("reply", "status", "told"),
    [
        (Reply(400), 400, "answered 400"),
        (Reply(500, body=b"x" * 100), 500, "answered 500"),
        (Reply(410), 410, "answered 410"),
        (Reply(302, (("location", "http://127.0.0.1:1/elsewhere"),)), 302, "not followed"),
        (Reply(raw=b"nonsense\r\n\r\n"), None, "ProtocolError"),
        (Reply(raw=b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab"), None, "Protocol"),
    ],
)
async def test_other_answers_are_failures_with_a_reason(reply: Reply, status: int | None, told: str) -> None:
    """And the next delivery goes out as if nothing had been."""
    async with receiving() as receiver:
        sends = sender_to(receiver.url)
        receiver.answers.append(reply)
        attempt = await sends.send("1-1-user_erased", BODY)
        assert (attempt.status, attempt.is_acknowledged) == (status, False)
        assert told in attempt.error
        assert (await sends.send("1-1-user_erased", BODY)).is_acknowledged
        await sends.close()
        assert len(receiver.got) == 2


async def test_a_redirect_reaches_nobody() -> None:
    """Its target would be asked without a look at its address by whoever follows."""
    async with receiving() as receiver, receiving() as target:
        receiver.answers.append(Reply(307, (("location", target.url),)))
        sends = sender_to(receiver.url)
        assert not (await sends.send("1-1-user_erased", BODY)).is_acknowledged
        await sends.close()
        assert target.got == []


async def test_a_receiver_that_hangs_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time for an attempt, with a reason."""
    monkeypatch.setattr(sender, "ATTEMPT_SECONDS", 0.05)
    async with receiving() as receiver:
        receiver.answers.append(Reply(hang=True))
        sends = sender_to(receiver.url)
        attempt = await sends.send("1-1-user_erased", BODY)
        assert attempt.status is None
        assert "no answer within" in attempt.error
        monkeypatch.setattr(sender, "ATTEMPT_SECONDS", 60.0)
        assert (await sends.send("1-1-user_erased", BODY)).is_acknowledged
        await sends.close()


async def test_a_long_answer_is_not_read_to_its_end() -> None:
    """It counts by its status; the connection is given up."""
    async with receiving() as receiver:
        receiver.answers.append(Reply(200, body=b"x" * (limits.ANSWER_BYTES_MAX * 20)))
        sends = sender_to(receiver.url)
        assert (await sends.send("1-1-user_erased", BODY)).is_acknowledged
        assert (await sends.send("1-2-user_erased", BODY)).is_acknowledged
        await sends.close()


@pytest.mark.parametrize(("value", "seconds"), [("7", 7.0), ("soon", 0.0), ("", 0.0), ("9" * 30, 0.0)])
async def test_a_receiver_may_ask_for_time(value: str, seconds: float) -> None:
    """In seconds; anything else counts as nothing."""
    async with receiving() as receiver:
        receiver.answers.append(Reply(429, (("retry-after", value),)))
        sends = sender_to(receiver.url)
        assert (await sends.send("1-1-user_erased", BODY)).retry_after_s == seconds
        await sends.close()


async def test_nobody_there_is_a_failure() -> None:
    """A port that nobody listens on, and a name that nobody knows."""
    async with receiving() as receiver:
        url = receiver.url
    sends = sender_to(url)
    assert "ConnectError" in (await sends.send("1-1-user_erased", BODY)).error
    await sends.close()

    async def unknown(_host: str, _port: int) -> list[str]:
        raise OSError("no such name")

    sends = sender_to("http://nowhere.example/", unknown)
    assert "is not known" in (await sends.send("1-1-user_erased", BODY)).error
    await sends.close()


class Names:
    """A resolver whose answers change with each look-up."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)

    async def __call__(self, _host: str, _port: int) -> list[str]:
        """Give the next answer."""
        return self.answers.pop(0)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "::ffff:127.0.0.1"])
async def test_an_address_that_is_not_public_is_refused_before_anything_is_sent(address: str) -> None:
    """Whatever the URL says: the address counts that its name leads to."""
    async with receiving() as receiver:
        url = receiver.url.replace("127.0.0.1", "shop.example")
        sends = sender_to(url, Names([address]), allow_private=False)
        attempt = await sends.send("1-1-user_erased", BODY)
        assert attempt.status is None
        assert "not public" in attempt.error
        await sends.close()
        plain = sender_to(receiver.url, allow_private=False)
        assert "not public" in (await plain.send("1-1-user_erased", BODY)).error
        await plain.close()
        assert receiver.got == []


async def test_what_was_judged_is_what_is_connected_to() -> None:
    """A name that leads elsewhere the second time gains nothing: there is one look-up for a connection."""
    names = Names(["10.0.0.1", "93.184.216.34", "93.184.216.35"], ["127.0.0.1"])
    backend = GuardedBackend(allow_private=False, resolve=names)
    tried: list[str] = []

    class Recorder:
        async def connect_tcp(self, host: str, *_args: Any) -> None:
            tried.append(host)
            raise httpcore.ConnectError("not now")

    backend._inner = Recorder()  # type: ignore[assignment]
    with pytest.raises(httpcore.ConnectError):
        await backend.connect_tcp("shop.example", 443)
    assert tried == ["93.184.216.34", "93.184.216.35"], "the private one is passed over"
    with pytest.raises(AddressRefused):
        await backend.connect_tcp("shop.example", 443)
    with pytest.raises(AddressRefused):
        await backend.connect_unix_socket("/run/docker.sock")
    assert len(tried) == 2


async def test_the_environment_has_no_proxy_for_us(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy would connect where we do not look."""
    async with receiving() as receiver:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9/")
        sends = sender_to(receiver.url)
        assert (await sends.send("1-1-user_erased", BODY)).is_acknowledged
        await sends.close()


async def test_a_look_up_that_hangs_takes_no_thread_of_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is left after the time for an attempt; its thread is one of few of its own."""
    release = trio.Event()
    before = trio.to_thread.current_default_thread_limiter().borrowed_tokens

    async def hang(_host: str, _port: int) -> list[str]:
        await release.wait()
        return ["93.184.216.34"]

    monkeypatch.setattr(sender, "ATTEMPT_SECONDS", 0.05)
    sends = sender_to("http://slow.example/", hang)
    assert "no answer within" in (await sends.send("1-1-user_erased", BODY)).error
    assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == before
    await sends.close()
    assert await Resolver()("127.0.0.1", 80) == ["127.0.0.1"]
