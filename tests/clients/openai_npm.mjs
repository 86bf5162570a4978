// The `openai` package of npm: lists, asks, streams, is refused; over TCP and over a socket. Arguments: the base address, the token, the socket.

import OpenAI from "openai";
import { Agent, fetch } from "undici";

const messages = [{ role: "user", content: "What is the capital of France? Answer in one short sentence." }];
const asked = { model: "smollm2", messages, temperature: 0, max_tokens: 24 };

async function use(baseURL, apiKey, dispatcher) {
  const through = (url, options) => fetch(url, { ...options, dispatcher });
  const client = new OpenAI({ baseURL, apiKey, fetch: through, maxRetries: 0 });
  const models = (await client.models.list()).data.map(({ id }) => id);
  const whole = (await client.chat.completions.create(asked)).choices[0].message.content;
  const pieces = [];
  for await (const chunk of await client.chat.completions.create({ ...asked, stream: true })) {
    if (chunk.choices.length) pieces.push(chunk.choices[0].delta.content ?? "");
  }
  const refusals = [];
  await client.chat.completions.create({ ...asked, model: "smollm" }).catch((error) => error instanceof OpenAI.NotFoundError && refusals.push(error.code));
  const stranger = new OpenAI({ baseURL, apiKey: "wrong", fetch: through, maxRetries: 0 });
  await stranger.models.list().catch((error) => error instanceof OpenAI.AuthenticationError && refusals.push(error.code));
  await dispatcher.close();
  return { models, whole, pieces, refusals };
}

const [base, key, socketPath] = process.argv.slice(2);
const tcp = await use(base, key, new Agent());
const socket = await use("http://jand/v1", "unused", new Agent({ connect: { socketPath } }));
console.log(JSON.stringify({ tcp, socket }));
