"""The service: the HTTP API on Ray Serve, in front of the registry.

    serve run serve_app:app                       # settings from the environment (LIMPID_…)
    serve run serve_app:build config=limpid.yaml  # and from a file; service.port=9000 and the like go too
    serve deploy deploy/serve.yaml

Or without knowing Ray: `limpid serve`.
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve import Application
from ray.serve.config import HTTPOptions

from actors.cluster import ray_running
from actors.crew import NAMESPACE
from actors.http.app import make_app
from actors.http.auth import tokens_needed
from actors.registry import NAME
from actors.service import RayService, registry_of
from pipeline.commands.stopping import stop_on_signals
from pipeline.config import Settings, load_settings

_QUIET = {"log_level": "WARNING", "enable_access_log": False}  # paths hold signatures of links
REPLICAS = 1  # of the API; it holds no state, so more may run


def build(args: dict[str, Any]) -> Application:
    """Return the application.

    Args:
        args: `config`, a YAML file of settings; all else are settings by their dotted names (`service.store`).

    Raises:
        ConfigError: a setting is wrong.
    """
    args = dict(args)
    path = args.pop("config", None)
    return application(load_settings(Path(path) if path else None, overrides=args))


def application(settings: Settings) -> Application:
    """Return the application for settings of the service."""
    values = for_service(settings).to_dict()

    def api() -> Any:
        """Build the API in its replica, where Ray is; the registry begins with the first."""
        here = Settings.from_dict(values)
        return make_app(RayService(registry_of(here)), here.service.store, here)

    deployment: Any = serve.deployment(
        serve.ingress(api)(),
        name="api",
        num_replicas=REPLICAS,
        max_ongoing_requests=1000,  # event streams and live views stay open
        ray_actor_options={"num_cpus": 0.01},
        health_check_period_s=5,
        logging_config=_QUIET,
    )
    bound: Application = deployment.bind()
    return bound


def for_service(settings: Settings) -> Settings:
    """Return settings as the service uses them: addresses come from others, and what may be shared is absolute."""
    values = settings.to_dict()
    values["source"] |= {"allow_private": False, "local": False}
    store = settings.service.store
    values["service"]["store"] = store if "://" in store else str(Path(store).absolute())
    values["flow"]["max_hosts"] = settings.flow.max_hosts or max(settings.flow.hosts, os.cpu_count() or 1)
    return Settings.from_dict(values)


def main(argv: Sequence[str]) -> int:
    """`limpid serve`: Ray, the service and its page, until a signal; return the exit code."""
    parser = argparse.ArgumentParser(prog="limpid serve", description="Run the service and its page.")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings (YAML)")
    parser.add_argument("--host", help="address to listen on (127.0.0.1); elsewhere tokens are needed")
    parser.add_argument("--port", type=int, help="port to listen on (8000); 0: any free one")
    parser.add_argument("--store", metavar="DIR", help="where streams, events and tokens lie (limpid-data)")
    args = parser.parse_args(argv)
    given = {"service.host": args.host, "service.port": args.port, "service.store": args.store}
    settings = load_settings(args.config, overrides={k: v for k, v in given.items() if v is not None})
    tokens = tokens_needed(settings)
    host, port = settings.service.host, settings.service.port or _free_port(settings.service.host)
    print("Ray and the service start …", flush=True)
    with ray_running(), stop_on_signals() as stopping:
        serve.start(http_options=HTTPOptions(host=host, port=port), logging_config=_QUIET)
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        try:
            serve.run(application(settings), name="limpid")
            where = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            print(f"Limpid listens on {where} (tokens {'on' if tokens else 'off'}); Ctrl-C ends it.", flush=True)
            stopping.event.wait()
        finally:
            _end()
    return stopping.exit_code


def _end() -> None:
    """End streams so that they can be taken up, then the service."""
    try:
        registry = ray.get_actor(NAME, namespace=NAMESPACE)
        ray.get(registry.ask.remote("end", streams=True), timeout=60)
        ray.kill(registry, no_restart=True)
    except (ValueError, ray.exceptions.RayError):
        print("the registry did not end its streams; the next service takes them up", file=sys.stderr)
    serve.shutdown()  # type: ignore[no-untyped-call]  # Ray's


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as server:
        port: int = server.getsockname()[1]
    return port


app = build({})
