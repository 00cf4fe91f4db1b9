"""An RTSP server for the tests, run by the system's Python (it has GStreamer's bindings): PORT and launch line."""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402


def main() -> None:
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(sys.argv[1])
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(sys.argv[2])
    factory.set_shared(True)
    server.get_mount_points().add_factory("/a", factory)
    server.attach(None)
    GLib.MainLoop().run()


main()
