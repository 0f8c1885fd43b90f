"""Who may have a connection, and whose is closed: the accounts alone, without a socket."""

from __future__ import annotations

import ipaddress
import logging
import os
import resource
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pytest

from vl2v_vendor.cli.server import bind, connections_for, raise_file_limit
from vl2v_vendor.web.connections import ConnectionLimits, Network, Slot, address_name


class Crowd:
    """Connections by name, of which those that are aborted are lost at once or when it is said."""

    def __init__(self, connections: int, share: int, trusted: Sequence[Network] = ()) -> None:
        self.now = 100.0
        self.limits = ConnectionLimits(
            connections, max_per_address=share, head_seconds=10, trusted_proxies=trusted, clock=lambda: self.now
        )
        self.slots: dict[str, Slot] = {}
        self.closed: list[str] = []

    def arrive(self, name: str, host: str) -> bool:
        if not self.limits.admit(host):
            return False
        self.enter(name, host)
        return True

    def enter(self, name: str, host: str) -> None:
        self.slots[name] = self.limits.enter(host, lambda: self.closed.append(name))
        self.lose_closed()

    def lose_closed(self) -> None:
        for name in self.closed:
            if (slot := self.slots.pop(name, None)) is not None:
                self.limits.leave(slot)

    def work(self, *names: str) -> None:
        for name in names:
            self.limits.work(self.slots[name])

    def recognise(self, name: str) -> None:
        self.limits.recognise(self.slots[name])
        self.wait(name)

    def wait(self, name: str) -> None:
        self.limits.wait(self.slots[name], 10)


def test_the_one_that_waited_longest_makes_room_and_none_that_works() -> None:
    crowd = Crowd(3, 3)
    assert all(crowd.arrive(name, f"10.0.0.{name}") for name in "123")
    crowd.work("1", "2")
    crowd.wait("1")
    assert crowd.arrive("4", "10.0.0.4")
    assert crowd.arrive("5", "10.0.0.5")
    assert crowd.closed == ["3", "1"]
    crowd.work("4", "5")
    assert not crowd.arrive("6", "10.0.0.6")
    assert (crowd.limits.open, crowd.limits.counts) == (3, {"closed_full": 2, "refused_full": 1})
    crowd.limits.leave(crowd.slots.pop("4"))
    assert crowd.arrive("7", "10.0.0.7")


def test_one_address_has_its_share_and_takes_nothing_from_others() -> None:
    crowd = Crowd(8, 2)
    assert crowd.arrive("neighbour", "10.0.0.2")
    assert all(crowd.arrive(f"{number}", "10.0.0.1") for number in range(5))
    assert crowd.closed == ["0", "1", "2"]
    crowd.work("3", "4")
    assert not crowd.arrive("6", "10.0.0.1")
    assert crowd.limits.counts == {"closed_address": 3, "refused_address": 1}


def test_a_customers_connection_makes_room_after_every_strangers() -> None:
    crowd = Crowd(3, 3)
    assert all(crowd.arrive(name, "10.0.0.1") for name in ("customer", "a", "b"))
    crowd.recognise("customer")
    crowd.wait("a")
    assert all(crowd.arrive(f"{number}", "10.0.0.2") for number in range(3))
    assert crowd.closed == ["b", "a", "0"]


def test_a_burst_that_has_not_entered_yet_costs_a_customer_nothing() -> None:
    """All of a burst are accepted before the first of them enters."""
    crowd = Crowd(3, 2)
    assert crowd.arrive("customer", "10.0.0.1")
    crowd.recognise("customer")
    burst = [host for host in ("10.0.0.2", "10.0.0.3") * 8 if crowd.limits.admit(host)]
    for number, host in enumerate(burst):
        crowd.enter(f"{number}", host)
    assert "customer" in crowd.slots
    assert crowd.limits.open == 3
    assert crowd.limits.counts["refused_address"] == 12


def test_a_burst_of_one_address_closes_its_own_and_no_others() -> None:
    crowd = Crowd(3, 2)
    assert crowd.arrive("bystander", "10.0.0.2")
    assert all(crowd.arrive(name, "10.0.0.1") for name in ("1", "2"))
    assert all(crowd.limits.admit("10.0.0.1") for _ in range(2))
    for name in ("3", "4"):
        crowd.enter(name, "10.0.0.1")
    assert crowd.closed == ["1", "2"]


def test_those_that_are_closing_stop_the_listener_only_when_they_are_many() -> None:
    limits = ConnectionLimits(2, max_per_address=200)
    leaving: list[str] = []
    while not limits.is_crowded:
        assert limits.admit("10.0.0.1")
        limits.enter("10.0.0.1", lambda: leaving.append("one"))
    assert limits.open == 2 + len(leaving) == 66


def test_what_waits_too_long_is_closed_and_what_works_is_not() -> None:
    crowd = Crowd(8, 8)
    assert all(crowd.arrive(name, "10.0.0.1") for name in ("silent", "works", "unread", "later"))
    crowd.work("works", "later")
    crowd.limits.wait(crowd.slots["unread"], 30, "slow_reader")
    crowd.now += 9.9
    crowd.limits.sweep()
    assert crowd.closed == []
    crowd.wait("later")
    crowd.now += 0.1
    crowd.limits.sweep()
    assert crowd.closed == ["silent"]
    crowd.now += 20
    crowd.limits.sweep()
    assert crowd.closed == ["silent", "unread", "later"]
    assert crowd.limits.counts == {"slow_request": 2, "slow_reader": 1}


def test_unread_answers_are_bounded_in_bytes_and_who_holds_most_loses_the_oldest() -> None:
    crowd = Crowd(8, 8)
    crowd.limits.max_unread_bytes = 100
    hosts = {"a": "10.0.0.1", "idle": "10.0.0.2", "b": "10.0.0.2", "c": "10.0.0.2", "d": "10.0.0.2"}
    for name, host in hosts.items():
        assert crowd.arrive(name, host)
        crowd.work(name)

    def leave_unread(name: str, unread_bytes: int) -> None:
        crowd.limits.wait(crowd.slots[name], 10, "slow_reader", unread_bytes=unread_bytes)
        crowd.lose_closed()

    crowd.wait("idle")
    leave_unread("a", 40)
    leave_unread("b", 30)
    leave_unread("c", 30)
    assert crowd.closed == []
    leave_unread("d", 1)
    assert crowd.closed == ["b"]
    crowd.work("a")  # its answer was read
    leave_unread("d", 70)
    assert crowd.closed == ["b"]
    leave_unread("a", 1)
    assert crowd.closed == ["b", "c"]
    assert crowd.limits.counts == {"slow_reader": 2}
    leave_unread("a", 31)
    assert crowd.closed == ["b", "c", "d"]


def test_what_is_being_closed_changes_nothing_any_more() -> None:
    crowd = Crowd(8, 2)
    assert crowd.arrive("neighbour", "10.0.0.1")
    crowd.work("neighbour")
    assert crowd.limits.admit("10.0.0.1")
    slot = crowd.limits.enter("10.0.0.1", lambda: None)
    crowd.now += 10
    crowd.limits.sweep()
    crowd.limits.wait(slot, 1)
    crowd.limits.work(slot)
    crowd.now += 10
    crowd.limits.sweep()
    crowd.limits.leave(slot)
    assert (crowd.limits.open, crowd.limits.counts) == (1, {"slow_request": 1})
    assert crowd.arrive("another", "10.0.0.1")


def test_a_trusted_proxy_is_under_the_total_alone() -> None:
    crowd = Crowd(6, 2, trusted=[ipaddress.ip_network("10.0.0.0/24")])
    assert all(crowd.arrive(f"{number}", "10.0.0.7") for number in range(4))
    assert all(crowd.arrive(f"mapped {number}", "::ffff:10.0.0.8") for number in range(2))
    assert crowd.closed == []
    assert crowd.arrive("stranger", "10.0.1.7")
    assert crowd.closed == ["0"]


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("unknown", "unknown"),
        ("::ffff:nonsense", "::ffff:nonsense"),
    ],
)
def test_an_address_is_what_one_client_has(host: str, name: str) -> None:
    assert address_name(host) == name


def test_refusals_are_a_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    crowd = Crowd(1, 1)
    assert crowd.arrive("1", "10.0.0.1")
    crowd.work("1")
    for _ in range(120):
        assert not crowd.arrive("2", "10.0.0.2")
        assert not crowd.arrive("3", "10.0.0.1")
        crowd.limits.sweep()
        crowd.now += 1
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(lines) == 2
    assert "60 refused_full, 60 refused_address" in lines[1]
    assert "1 open, 1 of them from 10.0.0.1" in lines[1]


@contextmanager
def no_files_left() -> Iterator[None]:
    """A process that can open nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        highest = os.open(os.devnull, os.O_RDONLY)
        stack.callback(os.close, highest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))
        try:
            while True:
                stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        except OSError:
            yield


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files as Linux tells them")
def test_a_connection_without_a_file_for_it_is_closed() -> None:
    limits = ConnectionLimits(8)
    with bind("127.0.0.1", 0, limits) as listener:
        listener.listen()
        listener.setblocking(False)
        with socket.create_connection(listener.getsockname(), timeout=5) as client:
            with no_files_left(), pytest.raises(BlockingIOError):
                listener.accept()
            assert client.recv(1) == b""
        assert (limits.open, limits.counts) == (0, {"refused_files": 1})
        with socket.create_connection(listener.getsockname(), timeout=5), listener.accept()[0]:
            assert limits.open == 1


@pytest.fixture
def files() -> Iterator[Callable[[int, int], None]]:
    """Sets the limits of open files, soft and hard, as far as this process may, and takes the change back."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield lambda soft, hard: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_limit_of_files_is_raised_as_far_as_may_be(files: Callable[[int, int], None]) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    files(512, hard)
    raised = raise_file_limit()
    assert raised == resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert raised == (65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536))
    assert raise_file_limit() == raised


def test_some_files_are_left_for_what_is_no_connection() -> None:
    assert [connections_for(files) for files in (100, 256, 1024, 65_536)] == [50, 128, 768, 65_280]
