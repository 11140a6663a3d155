"""The services of the mesh."""

import os

# Only TLS 1.3, see shared/serving/tls.py. It stands here because it must come before the first import of gRPC.
os.environ["GRPC_SSL_CIPHER_SUITES"] = "ECDHE-PSK-AES128-CBC-SHA"
# Its own lines would stand between the JSON lines of the log.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
# Without its event engine gRPC reads its sockets in the thread that wakes the event loop: half as many changes of
# thread for each message, a fifth of chat's processor time (docs/profile.md).
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
