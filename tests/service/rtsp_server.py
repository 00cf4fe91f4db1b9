"""An RTSP server for the tests, run by the system's Python (it has GStreamer's bindings): PORT and launch line.

With --pem (a key and a certificate) it speaks TLS; with --user NAME:PASSWORD it asks for them.
"""

import argparse

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gio, GLib, Gst, GstRtspServer  # noqa: E402


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("port")
    parser.add_argument("launch")
    parser.add_argument("--address", default="127.0.0.1")
    parser.add_argument("--pem")
    parser.add_argument("--user")
    args = parser.parse_args()
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address(args.address)
    server.set_service(args.port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(args.launch)
    factory.set_shared(True)
    if args.pem or args.user:
        server.set_auth(guarding(factory, args.pem, args.user))
    server.get_mount_points().add_factory("/a", factory)
    server.attach(None)
    GLib.MainLoop().run()


def guarding(factory: GstRtspServer.RTSPMediaFactory, pem: str | None, user: str | None) -> GstRtspServer.RTSPAuth:
    """What lets users in, over TLS where there is a certificate; without a user everybody."""
    auth = GstRtspServer.RTSPAuth()
    if pem:
        auth.set_tls_certificate(Gio.TlsCertificate.new_from_file(pem))
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    if user:
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(*user.split(":")), token)
    else:
        auth.set_default_token(token)
    permissions = GstRtspServer.RTSPPermissions()
    permissions.add_permission_for_role("viewer", "media.factory.access", True)
    permissions.add_permission_for_role("viewer", "media.factory.construct", True)
    factory.set_permissions(permissions)
    return auth


main()
