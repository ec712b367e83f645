"""The agent protocol's messages. velda_pb2* are generated: ``python -m app.proto.generate``."""
