"""Mutual TLS 1.3 of the mesh: credentials for servers and channels from the three files that a service is given.

gRPC has no setting for the lowest TLS version. It does let us name the TLS 1.2 suites: naming only one that needs a
pre-shared key, which nobody here has, leaves TLS 1.3 as the single version that can be agreed on. gRPC reads that
name when it is imported, so services/__init__.py sets it.
"""

import ssl

import grpc

from services.shared.serving.settings import TlsSettings


def server_credentials(settings: TlsSettings) -> grpc.ServerCredentials | None:
    """Credentials that demand a client certificate of the mesh; None where a sidecar does it."""
    if (files := _files(settings)) is None:
        return None
    ca, cert, key = files
    return grpc.ssl_server_credentials([(key, cert)], root_certificates=ca, require_client_auth=True)


def channel_credentials(settings: TlsSettings) -> grpc.ChannelCredentials | None:
    """Credentials that show this service's certificate; None where a sidecar does it."""
    if (files := _files(settings)) is None:
        return None
    ca, cert, key = files
    return grpc.ssl_channel_credentials(root_certificates=ca, private_key=key, certificate_chain=cert)


def ssl_context(settings: TlsSettings) -> ssl.SSLContext | None:
    """The same for clients that use Python's own TLS, such as NATS."""
    if settings.tls_cert_file is None:
        return None
    context = ssl.create_default_context(cafile=settings.tls_ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file)
    return context


def _files(settings: TlsSettings) -> tuple[bytes, bytes, bytes] | None:
    paths = (settings.tls_ca_file, settings.tls_cert_file, settings.tls_key_file)
    if not all(paths):
        return None
    ca, cert, key = (path.read_bytes() for path in paths if path)
    return ca, cert, key
