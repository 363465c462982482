"""Starts Ryu on current Python and eventlet, and provides the parts of it that `app` uses.

Only this module and `switch/` import ryu, so that a fork could replace it here.
"""

from __future__ import annotations

import _thread
import logging
import os
import signal
import stat
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any, NoReturn, TypeVar

from romana_ovs import _ryu_shim, config

_ryu_shim.install()
# Known (a move to os-ken would end it); users of the controller can do nothing about it.
warnings.filterwarnings("ignore", message=r"\s*Eventlet is deprecated")

# Names are looked up seldom, and not by green threads: without dnspython 200 modules and 7 MiB less are loaded.
os.environ.setdefault("EVENTLET_NO_GREENDNS", "yes")

import eventlet  # noqa: E402
import eventlet.event  # noqa: E402
import eventlet.hubs  # noqa: E402
from eventlet import tpool  # noqa: E402
from oslo_config.cfg import IntOpt  # noqa: E402
from ryu import cfg  # noqa: E402
from ryu.base.app_manager import RyuApp  # noqa: E402
from ryu.controller import controller, ofp_event  # noqa: E402
from ryu.controller.handler import DEAD_DISPATCHER, MAIN_DISPATCHER, set_ev_cls  # noqa: E402
from ryu.lib import hub  # noqa: E402
from ryu.ofproto import ofproto_v1_5  # noqa: E402

from romana_ovs.health import MAX_PORT, HealthServer, NotReady  # noqa: E402
from romana_ovs.model.errors import InputError, RomanaError  # noqa: E402
from romana_ovs.switch.datapath import serve_connection, serve_management  # noqa: E402

LOG = logging.getLogger("romana_ovs")

T = TypeVar("T")

OFP_VERSION = ofproto_v1_5.OFP_VERSION
LISTEN_HOST = "127.0.0.1"
LISTEN_PORT = 6653
ECHO_SECONDS = 5.0
SWITCH_INTERVAL_SECONDS = 0.0005
"""How long a thread may compute while another one could run; Python's default is ten times that.

Green threads make several system calls for each message, and may wait so long after each of them.
"""
MAX_UNANSWERED_ECHOES = 2
"""The connection of a switch that leaves so many echo requests unanswered is closed (docs/hazards.md D5)."""
APP = "romana_ovs.app"
SHUTDOWN_SECONDS = 1.5
HEALTH_PORT = "health_port"
"""Ryu's option (group DEFAULT) for the port of the health endpoints; 0: none."""

CONF = cfg.CONF

__all__ = [
    "APP",
    "CONF",
    "DEAD_DISPATCHER",
    "MAIN_DISPATCHER",
    "OFP_VERSION",
    "RyuApp",
    "StateChange",
    "run_in_thread",
    "fail",
    "on_state_change",
    "exit_with_error",
    "run",
    "serve_health",
    "serve_management",
    "spawn",
    "spawn_essential",
]

StateChange = ofp_event.EventOFPStateChange


_server_loop = controller.OpenFlowController.server_loop


def _listen(self: Any, tcp_port: int, ssl_port: int) -> None:
    """Ryu's listener, but a port that cannot be listened on ends the process instead of one green thread.

    A registry alone has no switches: it does not listen, so that it can run beside a node's own controller.
    """
    if config.controller_options_from(CONF).registry_only:
        LOG.info("the registry alone drives no bridge, and listens for no switch")
        eventlet.event.Event().wait()
    host = CONF.ofp_listen_host
    try:
        if os.path.isdir(os.path.dirname(host)) and stat.S_ISSOCK(os.stat(host).st_mode):
            os.unlink(host)
    except FileNotFoundError:
        LOG.debug("no old socket at %s", host)
    try:
        _server_loop(self, tcp_port, ssl_port)
    except OSError as error:
        LOG.critical("cannot listen for switches on %s port %s: %s", host, tcp_port, error)
        fail()


def prepare() -> None:
    """Make Ryu's listener use our own datapath, and set defaults: it listens on this machine only."""
    controller.datapath_connection_factory = serve_connection
    controller.OpenFlowController.server_loop = _listen
    sys.setswitchinterval(SWITCH_INTERVAL_SECONDS)
    CONF.register_opts([IntOpt(HEALTH_PORT, default=0, min=0, max=MAX_PORT, help="Port of /livez and /readyz.")])
    CONF.set_default("ofp_listen_host", LISTEN_HOST)
    CONF.set_default("ofp_tcp_listen_port", LISTEN_PORT)
    CONF.set_default("echo_request_interval", ECHO_SECONDS)
    CONF.set_default("maximum_unreplied_echo_requests", MAX_UNANSWERED_ECHOES)


prepare()


def on_state_change(handler: Callable[..., None]) -> Callable[..., None]:
    """Marks the application's handler of connections that begin (main) and end (dead)."""
    marked: Callable[..., None] = set_ev_cls(StateChange, [MAIN_DISPATCHER, DEAD_DISPATCHER])(handler)
    return marked


def spawn_essential(function: Callable[[], None]) -> Any:
    """Start a green thread that nothing works without: when it ends, with an error or not, the process ends."""

    def guarded() -> None:
        try:
            function()
            LOG.critical("%s has ended, and nothing works without it: giving up", function.__qualname__)
        except hub.TaskExit:
            return
        except RomanaError as error:
            LOG.critical("%s: giving up", error)
        except Exception:
            LOG.critical("%s failed, and nothing works without it: giving up", function.__qualname__, exc_info=True)
        fail()

    return hub.spawn(guarded)


def spawn(function: Callable[[], None]) -> Any:
    """Start a green thread that may end; an error in it is logged and ends nothing else."""
    return hub.spawn(function)


def serve_health(not_ready: NotReady) -> None:
    """Serve the health endpoints, if they have a port. Raises SetupError."""
    if CONF.health_port:
        server = HealthServer(CONF.health_port, not_ready, spawn)
        server.listen()
        spawn_essential(server.serve)


def run_in_thread(function: Callable[[], T], alongside: Callable[[], None] | None = None) -> T:
    """Run `function` in a native thread while green threads go on; returns or raises what it does.

    For long computations: echo requests of switches are answered meanwhile (docs/hazards.md D10). `alongside` runs at
    the same time in another thread; its error is raised once both have ended.
    """
    companion = eventlet.spawn(tpool.execute, alongside) if alongside is not None else None
    try:
        result: T = tpool.execute(function)
    finally:
        if companion is not None:
            companion.wait()
    return result


def use_native_log_locks() -> None:
    """Give logging and its handlers locks of the system's threads, once the handlers exist.

    Eventlet makes them green. A native thread (`run_in_thread`) that logs at the same time as a green thread would wake
    that one in a hub of its own, where nothing runs: it would wait for ever.
    """
    vars(logging)["_lock"] = _thread.RLock()
    loggers = (logger for logger in logging.root.manager.loggerDict.values() if isinstance(logger, logging.Logger))
    for logger in (logging.root, *loggers):
        for handler in logger.handlers:
            handler.lock = _thread.RLock()


def fail() -> None:
    """End this process at once with status 1: a supervisor starts another (docs/hazards.md D11)."""
    logging.shutdown()
    os._exit(1)


def run(argv: Sequence[str], overrides: Mapping[str, str] | None = None, health_port: int | None = None) -> int:
    """Run the controller with ryu-manager's own options in `argv`; returns the exit status when it has ended.

    `overrides` are settings that take precedence over those of files, and so does `health_port`. Raises InputError for
    invalid settings.
    """
    from oslo_config.cfg import Error
    from ryu.cmd import manager

    config.register(CONF, overrides)
    if health_port is not None:
        CONF.set_override(HEALTH_PORT, health_port)
    end_on_signals()
    try:
        manager.main(args=[*argv, *([] if APP in argv else [APP])], prog="romana-ovs controller")
    except SystemExit as end:
        if isinstance(end.__cause__, RomanaError):
            raise end.__cause__ from None
        if end.code == 0:
            # The interpreter would wait for threads that still compute.
            logging.shutdown()
            sys.stdout.flush()
            os._exit(0)
        return end.code if isinstance(end.code, int) else 1
    except Error as error:
        raise InputError.because(str(error)) from error
    # Ryu's main function returns only when all its threads have ended, which none here should.
    return 1


def exit_with_error(error: RomanaError) -> NoReturn:
    """End the process at its start with one sentence instead of a traceback, under plain ryu-manager too."""
    raise SystemExit(f"romana-ovs: {error}") from error


def end_on_signals() -> None:
    """Have SIGTERM and SIGINT end the process with status 0, within `SHUTDOWN_SECONDS` even if a thread blocks."""
    main = eventlet.getcurrent()

    def shut_down(_number: int, _frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_REAL, SHUTDOWN_SECONDS)
        eventlet.hubs.get_hub().schedule_call_global(0, main.throw, SystemExit(0))

    def exit_at_once(_number: int, _frame: FrameType | None) -> None:
        os._exit(0)

    signal.signal(signal.SIGALRM, exit_at_once)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, shut_down)
