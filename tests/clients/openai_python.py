"""The `openai` package: lists, asks, streams, is refused; over TCP and over a socket. Arguments: the base address, the token, the socket."""

import json
import sys
from typing import Any

import httpx2
from openai import AuthenticationError, NotFoundError, OpenAI

QUESTION: Any = {"role": "user", "content": "What is the capital of France? Answer in one short sentence."}


def use(address: str, token: str, http: httpx2.Client) -> dict[str, Any]:
    client = OpenAI(base_url=address, api_key=token, http_client=http, max_retries=0)
    asked: Any = {"model": "smollm2", "messages": [QUESTION], "temperature": 0, "max_tokens": 24}
    with client.chat.completions.create(**asked, stream=True) as stream:
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
    refusals = []
    try:
        client.chat.completions.create(**{**asked, "model": "smollm"})
    except NotFoundError as error:
        refusals.append(error.code)
    try:
        OpenAI(base_url=address, api_key="wrong", http_client=http, max_retries=0).models.list()
    except AuthenticationError as error:
        refusals.append(error.code)
    return {
        "models": [model.id for model in client.models.list()],
        "whole": client.chat.completions.create(**asked).choices[0].message.content,
        "pieces": pieces,
        "refusals": refusals,
    }


base, key, socket = sys.argv[1:]
local = httpx2.Client(transport=httpx2.HTTPTransport(uds=socket))
print(json.dumps({"tcp": use(base, key, httpx2.Client()), "socket": use("http://jand/v1", "unused", local)}))
