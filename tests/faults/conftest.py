"""The Ray of the session."""

from tests.ray_cluster import clip, ray_session, reference

__all__ = ["clip", "ray_session", "reference"]
