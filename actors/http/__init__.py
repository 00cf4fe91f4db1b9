"""The HTTP API: a FastAPI application that knows no Ray. One noun a file; what it asks for is in service.py."""
