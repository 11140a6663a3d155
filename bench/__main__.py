"""Every figure that the README promises, with machine and conditions."""

import asyncio

from bench import (
    curated,
    extraction,
    first_token,
    hostile,
    idle_readers,
    indexing,
    lone_stream,
    many_streams,
    probes,
    retrieval,
    startup,
    streamed_tokens,
    turns,
    unary,
)
from bench.mesh import machine, running_mesh

if __name__ == "__main__":  # the clients' processes import this module too
    print(machine())
    startup.main()
    extraction.main()
    with running_mesh("--chat-models=echo", environment=turns.MANY_READERS) as mesh:
        asyncio.run(first_token.measure(mesh))
        lone_stream.measure(mesh)
        streamed_tokens.measure(mesh)
        many_streams.measure(mesh)
        idle_readers.measure(mesh)
        asyncio.run(unary.measure(mesh))
    retrieval.main()
    curated.main()
    indexing.main()
    hostile.main()
    probes.main()
