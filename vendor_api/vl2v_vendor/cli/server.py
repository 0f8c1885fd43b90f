"""The server in the foreground: bind, open, serve, and leave in good order."""

import asyncio
import contextlib
import errno
import gc
import logging
import os
import resource
import signal
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Final

import uvicorn
from rich.console import Console
from sqlalchemy import make_url
from starlette.types import ASGIApp

from vl2v_contract.texts import printable
from vl2v_vendor.bootstrap import open_services
from vl2v_vendor.cli.console import installed_version
from vl2v_vendor.domain.errors import VendorError
from vl2v_vendor.host import return_free_memory
from vl2v_vendor.observe.request_trace import set_up_logging
from vl2v_vendor.observe.telemetry import Tracing, open_tracing
from vl2v_vendor.service.services import Services
from vl2v_vendor.settings import Settings
from vl2v_vendor.web.app import create_app
from vl2v_vendor.web.connections import ConnectionLimits
from vl2v_vendor.web.starting import StartingApp
from vl2v_vendor.web.transport import LimitedListener, limited_protocol

_log = logging.getLogger(__name__)

_REFUSALS: Final = {
    errno.EADDRINUSE: "another program uses it; stop that one, or choose another port with --port",
    errno.EACCES: "this user may not; ports below 1024 need privileges, choose another with --port",
    errno.EADDRNOTAVAIL: "this machine has no such address; use --host 127.0.0.1, or 0.0.0.0 for all",
}


class CannotListen(VendorError):
    """The address cannot be listened on."""


def run_server(settings: Settings, *, database_option: str | None = None) -> None:
    """Serve until SIGINT or SIGTERM, then finish what was begun and return.

    The address is bound first, so that a port in use is refused at once. The server listens once the ledger is open;
    until the model is warm it is not ready, and sells nothing. The command for a first key, which is printed, repeats
    the `database_option`.

    Raises:
        VendorError: The server cannot start; the message names the remedy.
    """
    limits = ConnectionLimits(
        min(settings.max_connections, connections_for(raise_file_limit())),
        max_per_address=settings.max_connections_per_address,
        head_seconds=settings.head_seconds,
        trusted_proxies=settings.trusted_proxies,
    )
    with bind(settings.host, settings.port, limits) as listener:
        set_up_logging(settings.log_level, settings.log_format)
        tracing = open_tracing(os.environ, version=installed_version())
        try:
            asyncio.run(_Foreground(settings, listener, limits, database_option, tracing).run())
        finally:
            if tracing is not None:
                tracing.close()


def bind(host: str, port: int, limits: ConnectionLimits) -> LimitedListener:
    """Bind a socket that does not listen yet; port 0 takes a free one.

    Raises:
        CannotListen: Names the address and the remedy.
    """
    listener = LimitedListener(socket.AF_INET6 if ":" in host else socket.AF_INET, limits)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise _cannot_listen(host, port, error) from error
    return listener


def _cannot_listen(host: str, port: int, error: OSError) -> CannotListen:
    reason = _REFUSALS.get(error.errno or 0, error.strerror or str(error))
    return CannotListen(f"cannot listen on {host}:{port}: {reason}")


def server_config(app: ASGIApp, limits: ConnectionLimits, *, shutdown_seconds: int = 30) -> uvicorn.Config:
    """Configure uvicorn to serve `app` on a socket of `bind` with the same limits."""
    return uvicorn.Config(
        app,
        http=limited_protocol(limits),
        ws="none",
        log_config=None,
        access_log=False,
        lifespan="off",
        server_header=False,
        proxy_headers=bool(limits.trusted_proxies),
        forwarded_allow_ips=[str(network) for network in limits.trusted_proxies],
        timeout_graceful_shutdown=shutdown_seconds,
    )


class Server(uvicorn.Server):
    """uvicorn without its signal handling, which ends the process by the signal instead of with code 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to whoever runs the server."""
        yield


@dataclass(eq=False)
class _Foreground:
    """One run of the server, which a signal may end at any point."""

    settings: Settings
    listener: LimitedListener
    limits: ConnectionLimits
    database_option: str | None
    tracing: Tracing | None
    console: Console = field(init=False, default_factory=partial(Console, stderr=True, highlight=False, soft_wrap=True))
    app: StartingApp = field(init=False, default_factory=StartingApp)
    serving: asyncio.Task[None] | None = field(init=False, default=None)

    @cached_property
    def server(self) -> Server:
        """The web server of this run."""
        return Server(server_config(self.app, self.limits, shutdown_seconds=self.settings.shutdown_seconds))

    async def run(self) -> None:
        """Open, serve, close."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()

        def stop(number: signal.Signals) -> None:
            if self.app.loaded is not None:
                self.server.handle_exit(number, None)
            elif task is not None:
                task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)
        try:
            async with open_services(self.settings, self._report, before_model=self._listen) as services:
                await self._sell(services)
        except asyncio.CancelledError:
            if task is not None:
                task.uncancel()
        finally:
            self.server.should_exit = True
            if self.serving is not None:
                await self.serving
        self._report("stopped", "")

    def _listen(self) -> None:
        """Answer from now on.

        Raises:
            CannotListen: Another program, which had bound the address too, was the first to listen.
        """
        try:
            self.listener.listen(self.server.config.backlog)
        except OSError as error:
            raise _cannot_listen(self.settings.host, self.settings.port, error) from error
        self.serving = asyncio.create_task(self._serve(), name="serving")

    async def _serve(self) -> None:
        beside = [asyncio.create_task(self.limits.watch()), asyncio.create_task(_return_memory())]
        try:
            await self.server.serve(sockets=[self.listener])
        finally:
            for task in beside:
                task.cancel()

    async def _sell(self, services: Services) -> None:
        """Serve until a signal comes and all requests are answered."""
        token = self.settings.metrics_token
        app = create_app(
            services,
            version=installed_version(),
            tracing=self.tracing,
            connections=self.limits,
            allowed_hosts=self.settings.allowed_hosts,
            metrics_token=None if token is None else token.get_secret_value(),
        )
        # What is loaded by now stays: to walk it for garbage would stop every request for a tenth of a second.
        gc.collect()
        gc.freeze()
        self.app.loaded = app
        self._announce()
        if self.serving is not None:
            await self.serving

    def _announce(self) -> None:
        if self.limits.max_connections < self.settings.max_connections:
            told = f"{self.limits.max_connections:,} at most: the process may not open more files (`ulimit -n`)"
            self._report("sockets", told)
        port = self.listener.getsockname()[1]
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        self._report("ready", f"http://{host}:{port}  (a page for customers; API description at /docs, Ctrl-C stops)")
        command = "vl2v-vendor keys create --account demo --budget 1000"
        if self.database_option is not None:
            command += f" --database {make_url(self.database_option).render_as_string(hide_password=True)}"
        self._report("api key", command)

    def _report(self, label: str, text: str) -> None:
        """Report a step of the start: aligned for people, or as one more line of a JSON log."""
        if self.settings.log_format == "json":
            level = logging.WARNING if label == "warning" else logging.INFO
            _log.log(level, "%s", f"{label} {text}".strip(), extra={"fields": {"step": label}})
            return
        self.console.print(f"{label:>8}", style="bold", end="  ")
        self.console.print(printable(text), markup=False, emoji=False)


_MEMORY_SECONDS: Final = 30.0


async def _return_memory() -> None:
    """Give free memory back from time to time, until cancelled."""
    while True:
        await asyncio.sleep(_MEMORY_SECONDS)
        await asyncio.to_thread(return_free_memory)


_MOST_FILES: Final = 65_536
_OTHER_FILES: Final = 256


def raise_file_limit() -> int:
    """Raise the soft limit of open files to the hard one, or to 65,536 if that is less; return the limit in force."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = (_MOST_FILES if limit == resource.RLIM_INFINITY else limit for limit in limits)
    wanted = min(hard, _MOST_FILES)
    if soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, limits[1]))
            soft = wanted
    return soft


def connections_for(files: int) -> int:
    """Return how many of `files` may be connections: all but 256 for database, model and logs, or the half."""
    return files - min(_OTHER_FILES, files // 2)
