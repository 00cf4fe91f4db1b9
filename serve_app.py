"""The service: the HTTP API on Ray Serve, in front of the registry.

    serve run serve_app:app                       # settings from the environment (LIMPID_…)
    serve run serve_app:build config=limpid.yaml  # and from a file; service.store=s3://… and the like go too
    serve deploy deploy/serve.yaml                # again with other settings: streams go on

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
import yaml
from ray import serve
from ray.serve import Application
from ray.serve.config import HTTPOptions

from actors.cluster import ray_running
from actors.http.app import make_app
from actors.http.auth import tokens_needed
from actors.lifetime import DRAIN_S, lifespan_of
from actors.service import RayService, end_service
from pipeline.commands.stopping import stop_on_signals
from pipeline.config import Settings, load_settings

_QUIET = {"log_level": "WARNING", "enable_access_log": False}  # paths hold signatures of links
REPLICAS = 1  # of the API; it holds no state, so more may run


def build(args: dict[str, Any]) -> Application:
    """Return the application.

    Args:
        args: `config`, a YAML file of settings; all else are settings by their dotted names (`service.store`).
            `serve run` gives texts only: lists in them are written as in YAML.

    Raises:
        ConfigError: a setting is wrong.
    """
    args = dict(args)
    path = args.pop("config", None)
    for name, value in args.items():
        if isinstance(value, str) and value.startswith("["):
            args[name] = yaml.safe_load(value)
    return application(load_settings(Path(path) if path else None, overrides=args))


def application(settings: Settings) -> Application:
    """Return the application for settings of the service."""
    values = for_service(settings).to_dict()

    def api() -> Any:
        """Build the API in its replica, where Ray is; the registry begins with the first."""
        here = Settings.from_dict(values)
        service = RayService(here)
        lifespan = lifespan_of(service, serve.get_replica_context().app_name)
        return make_app(service, here.service.store, here, lifespan=lifespan)

    deployment: Any = serve.deployment(
        serve.ingress(api)(),
        name="api",
        num_replicas=REPLICAS,
        max_ongoing_requests=1000,  # event streams and live views stay open
        ray_actor_options={"num_cpus": 0.01},
        health_check_period_s=5,
        graceful_shutdown_timeout_s=DRAIN_S,
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
    """End the service: its replica ends streams and registry (actors/lifetime.py); what it could not, this does."""
    serve.shutdown()  # type: ignore[no-untyped-call]  # Ray's
    try:
        end_service()
    except ray.exceptions.RayError:
        print("the registry did not end its streams; the next service takes them up", file=sys.stderr)


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as server:
        port: int = server.getsockname()[1]
    return port


app = build({})
