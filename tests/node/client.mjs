// OpenAI's own client for Node, unchanged, against the server at argv[2]; every check that fails ends the program.
import assert from "node:assert/strict";
import OpenAI from "openai";

const [baseURL, model] = process.argv.slice(2);
const options = { baseURL, apiKey: "any", maxRetries: 0, timeout: 30_000 };
const client = new OpenAI(options);
const messages = [{ role: "user", content: "Où est « le phare » ? 🦉" }];

async function gathered(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

const checks = {
  async models() {
    const ids = [];
    for await (const one of client.models.list()) ids.push(one.id);
    assert(ids.includes(model));
    assert.equal((await client.models.retrieve(model)).object, "model");
  },

  async "a chat, whole and as a stream"() {
    const asked = { model, messages, temperature: 1, seed: 3, max_completion_tokens: 12 };
    const { data: whole, request_id } = await client.chat.completions.create(asked).withResponse();
    assert.match(request_id, /^req_/);
    assert.equal(whole.usage.total_tokens, whole.usage.prompt_tokens + whole.usage.completion_tokens);
    const chunks = await gathered(
      await client.chat.completions.create({ ...asked, stream: true, stream_options: { include_usage: true } }),
    );
    assert.equal(chunks[0].choices[0].delta.role, "assistant");
    const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
    assert.equal(text, whole.choices[0].message.content);
    assert.deepEqual(chunks.at(-1).usage, whole.usage);
    assert.equal(chunks.at(-2).choices[0].finish_reason, whole.choices[0].finish_reason);
    const helped = client.chat.completions.stream({ ...asked });
    assert.equal((await helped.finalChatCompletion()).choices[0].message.content, text);
  },

  async "JSON under a schema"() {
    const schema = {
      type: "object",
      properties: { place: { type: "string", enum: ["port", "île"] }, lit: { type: "boolean" } },
      required: ["place", "lit"],
      additionalProperties: false,
    };
    const answer = await client.chat.completions.parse({
      model,
      messages,
      response_format: { type: "json_schema", json_schema: { name: "light", schema, strict: true } },
    });
    assert.equal(answer.choices[0].finish_reason, "stop");
    const said = JSON.parse(answer.choices[0].message.content);
    assert(["port", "île"].includes(said.place) && typeof said.lit === "boolean");
  },

  async "a call that must come"() {
    const parameters = {
      type: "object",
      properties: { what: { type: "string", enum: ["boat", "bell"] } },
      required: ["what"],
      additionalProperties: false,
    };
    const runner = client.chat.completions.stream({
      model,
      messages,
      tools: [{ type: "function", function: { name: "find", parameters } }],
      tool_choice: "required",
    });
    const [call] = (await runner.finalChatCompletion()).choices[0].message.tool_calls;
    assert.equal(call.function.name, "find");
    assert(["boat", "bell"].includes(JSON.parse(call.function.arguments).what));
  },

  async completions() {
    const asked = { model, prompt: "Le phare", max_tokens: 6, temperature: 0 };
    const whole = await client.completions.create({ ...asked, echo: true, logprobs: 1 });
    assert(whole.choices[0].text.startsWith("Le phare"));
    const { token_logprobs, tokens } = whole.choices[0].logprobs;
    assert.equal(token_logprobs[0], null);
    assert.equal(token_logprobs.length, tokens.length);
    const chunks = await gathered(await client.completions.create({ ...asked, stream: true }));
    const text = chunks.map((chunk) => chunk.choices[0]?.text ?? "").join("");
    assert.equal("Le phare" + text, whole.choices[0].text);
  },

  async errors() {
    const cases = [
      [OpenAI.NotFoundError, "model_not_found", "model", { model: "nobody", messages }],
      [OpenAI.BadRequestError, "unsupported_parameter", "verbosity", { model, messages, verbosity: "low" }],
      [OpenAI.BadRequestError, "invalid_value", "messages", { model, messages: [] }],
      [OpenAI.NotFoundError, "model_not_found", "model", { model: "nobody", messages, stream: true }],
    ];
    for (const [kind, code, param, body] of cases) {
      await assert.rejects(client.chat.completions.create(body), (error) => {
        assert(error instanceof kind);
        assert.deepEqual([error.code, error.param], [code, param]);
        assert.match(error.requestID, /^req_/);
        return true;
      });
    }
  },

  async "a stream that is left"() {
    const stream = await client.chat.completions.create({ model, messages, stream: true, max_tokens: 1500 });
    for await (const _ of stream) break;
    assert.equal((await client.models.retrieve(model)).id, model);
  },
};

for (const [name, check] of Object.entries(checks)) {
  await check();
  console.log(name);
}
