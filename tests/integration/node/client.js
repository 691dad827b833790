// A client of the collector in another language, made of the repository's .proto files alone.
//
//   node client.js ADDRESS PROTO_DIR GOOGLEAPIS_DIR [--ca FILE] [--token FILE] [--experiment ID --stop COUNT]
//
// Goes through what a foreign sender and reader need, and prints what it was answered as one JSON object. With
// --experiment it only sends an experiment's first COUNT events, from where the collector stands.
"use strict";

const fs = require("node:fs");
const { randomUUID } = require("node:crypto");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const [address, protos, googleapis, ...options] = process.argv.slice(2);
const option = (name) => (options.includes(name) ? options[options.indexOf(name) + 1] : null);
const file = (name) => (option(name) ? fs.readFileSync(option(name)) : null);
const definition = loader.loadSync(
  ["qlog/v1/collector.proto", "google/rpc/status.proto", "google/rpc/error_details.proto"],
  { keepCase: true, longs: String, enums: String, defaults: false, oneofs: true, includeDirs: [protos, googleapis] },
);
const { qlog } = grpc.loadPackageDefinition(definition);

const ca = file("--ca");
const token = file("--token");
const client = new qlog.v1.CollectorService(
  address,
  ca ? grpc.credentials.createSsl(ca) : grpc.credentials.createInsecure(),
);

function metadata() {
  const sent = new grpc.Metadata();
  if (token) sent.set("authorization", `Bearer ${token.toString().trim()}`);
  return sent;
}

const deadline = () => ({ deadline: Date.now() + 20000 });

function unary(method, request) {
  return new Promise((resolve, reject) => {
    client[method](request, metadata(), deadline(), (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

// Batches at consecutive offsets in one stream; every answer.
function append(experiment_id, offset, batches) {
  return new Promise((resolve, reject) => {
    const answers = [];
    const call = client.AppendExperiment(metadata(), deadline());
    call.on("data", (answer) => answers.push(answer));
    call.on("error", reject);
    call.on("end", () => resolve(answers));
    for (const events of batches) {
      call.write({ experiment_id, offset, events });
      offset += events.length;
    }
    call.end();
  });
}

// google.rpc details of a refusal, by the names of their messages.
function details(error) {
  const [packed] = error.metadata.get("grpc-status-details-bin");
  const found = { code: grpc.status[error.code], message: error.details };
  for (const any of packed ? definition["google.rpc.Status"].deserialize(packed).details : []) {
    const name = any.type_url.split("/").pop();
    found[name] = definition[name].deserialize(any.value);
  }
  return found;
}

async function refused(promise) {
  try {
    return { answered: await promise };
  } catch (error) {
    if (error.code === undefined) throw error;
    return details(error);
  }
}

function watch(experiment_id, wanted) {
  return new Promise((resolve, reject) => {
    const told = [];
    const call = client.WatchExperiments({ experiment_id }, metadata(), deadline());
    call.on("data", (answer) => {
      told.push(...(answer.events || []).map((event) => event.event));
      if (answer.ended) told.push(`ended ${answer.ended.number}`);
      if (told.length >= 1) wanted();
    });
    call.on("error", reject);
    call.on("end", () => resolve(told));
  });
}

const range = (min, max) => ({ min, max, range: max - min });
const begin = (model) => ({
  begin: {
    timestamp: "2026-11-05 15:30:00",
    command: `node client.js ${model}`,
    config: { model, w_bits: 4, a_bits: 8, percentile_alpha: 0.9995 },
  },
});
const stats = (layer) => ({
  layer_stats: {
    name: `layer_${layer}.x_proj:input`,
    before_percentile: range(-2 - layer, 3),
    after_percentile: range(-1.5, 1.5),
    percentile_alpha: 0.9995,
    clipped_ratio: 0.0005,
    range_reduction: 0.4,
    count: "9007199254740993", // Beyond what a double holds.
  },
});
const result = { evaluation_result: { results: { accuracy: 0.5205, perplexity: 9.621 } } };
const finish = { finish: { status: "EXPERIMENT_STATUS_COMPLETED", duration_s: 1.5 } };

async function resume(id, stop) {
  const events = [begin("node-model"), stats(0), stats(1), stats(2), result, finish];
  const { committed_offset } = await unary("GetAppendStatus", { experiment_id: id });
  const from = Number(committed_offset || 0);
  return { from, answers: await append(id, from, [events.slice(from, stop)]) };
}

async function everything() {
  const id = randomUUID();
  const told = { id };
  told.unknown = await unary("GetAppendStatus", { experiment_id: id });
  told.first = await append(id, 0, [[begin("node-model")], [stats(0), stats(1)]]);
  told.gap = await refused(append(id, 7, [[stats(7)]]));
  told.status = await unary("GetAppendStatus", { experiment_id: id });
  // A watcher sees what was sent before, what is sent from now on, and the end.
  let seen;
  const watching = new Promise((resolve) => (seen = resolve));
  const watched = watch(id, seen);
  await watching;
  // One event too early: it is acknowledged, and stored once.
  told.rest = await append(id, 2, [[stats(1), stats(2)], [result, finish]]);
  told.watched = await watched;
  told.repeated = await append(id, 0, [[begin("node-model"), stats(0)]]);
  told.ended = await refused(append(id, 6, [[stats(9)]]));
  const other = randomUUID();
  await append(other, 0, [[begin("other-model"), finish]]);
  told.listed = await unary("ListExperiments", { filter: 'model = "node-*" AND results.accuracy > 0.5' });
  told.page = await unary("ListExperiments", { page_size: 1, order_by: "number desc" });
  told.wrong_filter = await refused(unary("ListExperiments", { filter: "results.acuracy > 0.5" }));
  told.got = (await unary("GetExperiment", { ref: id })).experiment;
  told.compared = await unary("CompareExperiments", { refs: ["0", "1"] });
  told.nobody = await refused(unary("GetExperiment", { ref: "99" }));
  return told;
}

(option("--experiment") ? resume(option("--experiment"), Number(option("--stop"))) : everything())
  .then((told) => console.log(JSON.stringify(told)))
  .catch((error) => {
    console.error(error.code === undefined ? error : JSON.stringify(details(error)));
    process.exitCode = 1;
  })
  .finally(() => client.close());
