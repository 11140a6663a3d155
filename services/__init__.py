"""The services of the mesh."""

import os

# Only TLS 1.3, see shared/serving/tls.py. It stands here because it must come before the first import of gRPC.
os.environ["GRPC_SSL_CIPHER_SUITES"] = "ECDHE-PSK-AES128-CBC-SHA"
# Its own lines would stand between the JSON lines of the log.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
