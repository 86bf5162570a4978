"""LangChain's ChatOpenAI: asks, streams, is refused; over TCP and over a socket. Arguments: the base address, the token, the socket."""

import json
import sys
from typing import Any

import httpx2
from langchain_openai import ChatOpenAI

QUESTION = "What is the capital of France? Answer in one short sentence."


def use(address: str, token: str, http: httpx2.Client) -> dict[str, Any]:
    def make(model: str, key: str) -> ChatOpenAI:
        given: dict[str, Any] = {"base_url": address, "api_key": key, "http_client": http}
        return ChatOpenAI(model=model, temperature=0, max_tokens=24, max_retries=0, **given)

    chat = make("smollm2", token)
    refusals = []
    for model, key in (("smollm", token), ("smollm2", "wrong")):
        try:
            make(model, key).invoke(QUESTION)
        except Exception as error:  # its own kinds differ between its versions; all of them carry the daemon's code
            refusals.append(str(getattr(error, "code", error)))
    return {
        "whole": chat.invoke(QUESTION).content,
        "pieces": [str(piece.content) for piece in chat.stream(QUESTION)],
        "refusals": refusals,
    }


base, key, socket = sys.argv[1:]
local = httpx2.Client(transport=httpx2.HTTPTransport(uds=socket))
print(json.dumps({"tcp": use(base, key, httpx2.Client()), "socket": use("http://jand/v1", "unused", local)}))
