"""Every figure that the README promises, with machine and conditions."""

import asyncio

from bench import first_token, startup, streamed_tokens, unary
from bench.mesh import machine, running_mesh

if __name__ == "__main__":  # the clients' processes import this module too
    print(machine())
    startup.main()
    with running_mesh("--chat-models=echo") as mesh:
        asyncio.run(first_token.measure(mesh))
        streamed_tokens.measure(mesh)
        asyncio.run(unary.measure(mesh))
