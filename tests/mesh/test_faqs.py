"""Curated answers by the command line, over REST and in a turn, through the edge and the real embedding model."""

import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx

from parley.knowledge.v1.faq_service_pb2 import CreateFaqRequest, DeleteFaqRequest
from parley.knowledge.v1.faq_service_pb2_grpc import FaqServiceStub
from parley.knowledge.v1.knowledge_service_pb2 import SearchRequest
from parley.knowledge.v1.knowledge_service_pb2_grpc import KnowledgeServiceStub
from tests.mesh.running import RunningMesh, User

QUESTION = "How do I get a new badge for the observatory?"
ANSWER = "Ask at the gate of the observatory; it takes two days."
ASKED = "How can I get a new observatory badge?"


def test_a_curated_answer_comes_first_and_is_cited_as_such(mesh: Any) -> None:
    added = mesh.parley("faq add", "--also", "Observatory badge lost", QUESTION, ANSWER)
    assert added.returncode == 0, added.stdout + added.stderr
    faq_id, _, _ = added.stdout.partition(":")
    asked = mesh.parley("ask", "--model=echo", ASKED)
    assert asked.returncode == 0, asked.stdout + asked.stderr
    assert f"[1] FAQ: {QUESTION}" in asked.stdout.partition("Sources")[2]
    listed = mesh.parley("faq list").stdout
    assert "Observatory" in listed
    assert faq_id in listed
    assert mesh.parley("faq delete", faq_id).stdout == f"{faq_id}: deleted\n"
    assert "FAQ:" not in mesh.parley("ask", "--model=echo", ASKED).stdout
    gone = mesh.parley("faq delete", faq_id)
    assert (gone.returncode, "FAQ_NOT_FOUND" in gone.stderr) == (1, True)


def test_a_file_of_them_is_imported_with_a_summary(mesh: Any, tmp_path: Path) -> None:
    file = tmp_path / "faqs.csv"
    lines = ("answer,question,more", "At noon.,When does the heron feed?,x", '"Here,\nthere.",Where?,', ",Why?,")
    file.write_text("\n".join(lines), encoding="utf-8-sig")
    imported = mesh.parley("faq import", str(file))
    assert imported.returncode == 1
    assert "2 added, 0 there already, 1 not added." in imported.stdout
    assert re.search(r"line 5: .*\(INVALID_FIELD\)", imported.stdout)
    again = mesh.parley("faq import", str(file))
    assert "0 added, 2 there already, 1 not added." in again.stdout
    file.write_text("frage,antwort\n")
    refused = mesh.parley("faq import", str(file))
    assert (refused.returncode, "no columns named question and answer" in refused.stderr) == (1, True)
    mesh.parley("faq delete", *re.findall(r"[0-9a-f-]{36}", mesh.parley("faq list").stdout))


async def test_curated_answers_over_rest(rest: httpx.AsyncClient, user: Any, stranger: Any) -> None:
    said = {"requestId": str(uuid4()), "question": "Where is the egret?", "answer": "In the pond."}
    faq = (await rest.post("/v1/faqs", json=said, headers=user.headers)).json()["faq"]
    path = f"/v1/faqs/{faq['id']}"
    changed = (await rest.patch(path, json={"answer": "In the reeds."}, headers=user.headers)).json()["faq"]
    assert (changed["question"], changed["answer"]) == ("Where is the egret?", "In the reeds.")
    search = {"query": "where is the egret", "limit": 1}
    [first] = (await rest.post("/v1/documents:search", json=search, headers=user.headers)).json()["passages"]
    assert (first["faqId"], first["text"]) == (faq["id"], "Where is the egret?\nIn the reeds.")
    assert [found["id"] for found in (await rest.get("/v1/faqs", headers=user.headers)).json()["faqs"]] == [faq["id"]]

    foreign = (await rest.post("/v1/documents:search", json=search, headers=stranger.headers)).json()
    assert not foreign.get("passages")
    assert (await rest.get(path, headers=stranger.headers)).status_code == 404
    assert (await rest.patch(path, json={"answer": "Mine."}, headers=stranger.headers)).status_code == 404
    assert (await rest.delete(path, headers=stranger.headers)).status_code == 404

    assert (await rest.delete(path, headers=user.headers)).status_code == 200
    assert (await rest.get(path, headers=user.headers)).status_code == 404


async def test_what_one_replica_took_the_other_finds_at_once(pair: RunningMesh, ada: User) -> None:
    async with pair.replica("knowledge-1") as one, pair.replica("knowledge-2") as two:
        for here, there in ((one, two), (two, one)) * 3:
            made = CreateFaqRequest(request_id=str(uuid4()), question=f"Who feeds heron {uuid4().hex}?", answer="Ada.")
            faq = (await FaqServiceStub(here).CreateFaq(made, metadata=ada.metadata)).faq
            search = SearchRequest(query=made.question, limit=1)
            [found] = (await KnowledgeServiceStub(there).Search(search, metadata=ada.metadata)).passages
            assert found.faq_id == faq.id
            await FaqServiceStub(there).DeleteFaq(DeleteFaqRequest(faq_id=faq.id), metadata=ada.metadata)
            assert not (await KnowledgeServiceStub(here).Search(search, metadata=ada.metadata)).passages
