"""Figures that anyone can measure, one file per question: `python -m bench` runs all, `python -m bench.<name>` one."""

import services  # noqa: F401  sets gRPC up, so that the clients measured with run as the services do
