// What a program does that knows OpenAI's JavaScript SDK and nothing of ours. Prints the name of each step that held.
// node openai_javascript.mjs BASE_URL KEY PATHS, with the SDK in ./node_modules; PATHS are those that the server has.

import assert from 'node:assert/strict';
import OpenAI, { toFile } from 'openai';

const [baseURL, apiKey, paths] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const has = new Set(JSON.parse(paths));
const poll = { pollIntervalMs: 50 };

const TEXTS = {
  'returns.md': '# Returns\n\nYou may return a kettle within 30 days. Refunds take one week.\n',
  'shipping.md': '# Shipping\n\nParcels to Norway travel by boat. The boat leaves on Mondays.\n',
  'battery.md': '# Battery\n\nCharge the lamp for two hours. A full battery lasts nine evenings.\n',
};
const ATTRIBUTES = {
  'returns.md': { topic: 'shop', year: 2023 },
  'shipping.md': { topic: 'shop', year: 2024 },
  'battery.md': { topic: 'lamp', year: 2024 },
};
const SHOP_OF_2024 = {
  type: 'and',
  filters: [
    { type: 'eq', key: 'topic', value: 'shop' },
    { type: 'or', filters: [{ type: 'gte', key: 'year', value: 2024 }, { type: 'lt', key: 'year', value: 2000 }] },
  ],
};
const QUESTION = 'How do parcels travel to Norway?';

const upload = async (name) =>
  client.files.create({ file: await toFile(Buffer.from(TEXTS[name]), name), purpose: 'assistants' });
const step = async (name, run) => {
  await run();
  console.log(name);
};

const store = await client.vectorStores.create({ name: 'javascript' });
const chat = {
  model: 'extractive',
  messages: [{ role: 'user', content: QUESTION }],
  vector_store_ids: [store.id],
};
const files = {};

await step('upload and poll', async () => {
  for (const name of Object.keys(TEXTS)) {
    files[name] = await upload(name);
    const added = await client.vectorStores.files.createAndPoll(
      store.id, { file_id: files[name].id, attributes: ATTRIBUTES[name] }, poll);
    assert.equal(added.status, 'completed');
  }
  assert.equal((await client.vectorStores.retrieve(store.id)).file_counts.completed, 3);
  assert.equal(await (await client.files.content(files['returns.md'].id)).text(), TEXTS['returns.md']);
});

await step('list', async () => {
  const seen = [];
  for await (const file of client.vectorStores.files.list(store.id, { limit: 2 })) seen.push(file.id);
  assert.equal(new Set(seen).size, 3);
});

await step('search', async () => {
  const found = await client.vectorStores.search(store.id, { query: 'parcels to Norway', max_num_results: 2 });
  assert.equal(found.data[0].filename, 'shipping.md');
  const filtered = await client.vectorStores.search(store.id, { query: 'kettle lamp boat', filters: SHOP_OF_2024 });
  assert.deepEqual(filtered.data.map((hit) => hit.filename), ['shipping.md']);
});

await step('chat', async () => {
  const whole = await client.chat.completions.create(chat);
  assert.match(whole.choices[0].message.content, /boat/);
  assert.equal(whole.citations[0].filename, 'shipping.md');
  let text = '';
  let citations = [];
  for await (const chunk of await client.chat.completions.create({ ...chat, stream: true })) {
    text += chunk.choices[0]?.delta?.content ?? '';
    citations = chunk.citations ?? citations;
  }
  assert.equal(text, whole.choices[0].message.content);
  assert.deepEqual(citations, whole.citations);
});

await step('models', async () => {
  const seen = [];
  for await (const model of client.models.list()) seen.push(model.id);
  assert.ok(seen.includes('extractive'));
});

await step('errors', async () => {
  await assert.rejects(client.files.retrieve('file-none'), (error) =>
    error instanceof OpenAI.NotFoundError && error.code === 'file_not_found');
  await assert.rejects(client.vectorStores.search(store.id, { query: 'lamp', filters: { type: 'like' } }),
    OpenAI.BadRequestError);
  await assert.rejects(new OpenAI({ baseURL, apiKey: 'wrong', maxRetries: 0 }).models.list(),
    OpenAI.AuthenticationError);
});

if (has.has('/v1/vector_stores/{vector_store_id}/file_batches')) {
  await step('batch', async () => {
    const other = await client.vectorStores.create({ name: 'javascript batch' });
    const uploads = await Promise.all(Object.keys(TEXTS).map((name) => toFile(Buffer.from(TEXTS[name]), name)));
    const batch = await client.vectorStores.fileBatches.uploadAndPoll(other.id, { files: uploads }, poll);
    assert.equal(batch.status, 'completed');
    assert.deepEqual([batch.file_counts.completed, batch.file_counts.total], [3, 3]);
    assert.ok((await client.vectorStores.delete(other.id)).deleted);
  });
}

if (has.has('/v1/responses')) {
  await step('responses', async () => {
    const asked = {
      model: 'extractive',
      input: QUESTION,
      tools: [{ type: 'file_search', vector_store_ids: [store.id], filters: SHOP_OF_2024 }],
    };
    const whole = await client.responses.create({ ...asked, include: ['file_search_call.results'] });
    assert.match(whole.output_text, /boat/);
    const call = whole.output.find((item) => item.type === 'file_search_call');
    assert.deepEqual(call.results.map((result) => result.filename), ['shipping.md']);
    let text = '';
    const kinds = [];
    for await (const event of await client.responses.create({ ...asked, stream: true })) {
      kinds.push(event.type);
      if (event.type === 'response.output_text.delta') text += event.delta;
    }
    assert.equal(text, whole.output_text);
    assert.deepEqual([kinds[0], kinds.at(-1)], ['response.created', 'response.completed']);
  });
}

if (has.has('/v1/embeddings')) {
  await step('embeddings', async () => {
    const made = await client.embeddings.create({ model: 'toy-384', input: ['a kettle', 'a lamp'] });
    assert.deepEqual(made.data.map((item) => item.embedding.length), [384, 384]);
  });
}

await step('delete', async () => {
  assert.ok((await client.vectorStores.files.delete(files['battery.md'].id, { vector_store_id: store.id })).deleted);
  for (const file of Object.values(files)) assert.ok((await client.files.delete(file.id)).deleted);
  assert.ok((await client.vectorStores.delete(store.id)).deleted);
  await assert.rejects(client.vectorStores.retrieve(store.id), OpenAI.NotFoundError);
});
