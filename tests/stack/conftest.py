"""Triton alone with its models, for each module that asks for it."""

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from stack import catalog, triton
from stack.mesh import Mesh
from stack.part import Part
from tests.stack.kserve import Models, open_channel

CHAT_MODELS = ("chat", "echo")


@pytest.fixture(scope="module")
async def triton_mesh(tmp_path_factory) -> AsyncIterator[Mesh]:
    """In the loop of the tests, so that the supervisor lives meanwhile."""

    def part(mesh: Mesh) -> Part:
        return triton.part(replace(mesh, options=replace(mesh.options, chat_models=CHAT_MODELS)))

    async with catalog.running(tmp_path_factory.mktemp("mesh"), part) as mesh:
        yield mesh


@pytest.fixture(scope="module")
async def models(triton_mesh) -> AsyncIterator[Models]:
    async with open_channel(triton_mesh, "chat") as channel:
        yield Models(channel)
