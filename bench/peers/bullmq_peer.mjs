/**
 * What a team writes by hand with BullMQ: a front of Express that stores the picture as a file and adds a job, and a
 * worker process for each core, picture by picture. `bullmq_peer.mjs front | worker`.
 */
import { randomUUID } from "node:crypto";
import { readFile, unlink, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Job, Queue, QueueEvents, Worker } from "bullmq";
import express from "express";
import * as ort from "onnxruntime-node";
import sharp from "sharp";

const QUEUE = "pictures";
const { BENCH_REDIS, BENCH_MODEL, BENCH_FOLDER, PORT } = process.env;
const bullmq = { connection: { path: BENCH_REDIS, maxRetriesPerRequest: null }, prefix: "by-hand" };

if (process.argv[2] === "worker") await work();
else await listen();

async function work() {
  sharp.concurrency(1);
  sharp.cache(false);
  const predict = await openClassifier(JSON.parse(BENCH_MODEL));
  const run = async ({ data: { file } }) => {
    const found = await predict(await readFile(file));
    await unlink(file);
    return { Fs: found };
  };
  // The next picture is decoded while one runs.
  await new Worker(QUEUE, run, { ...bullmq, concurrency: 2 }).waitUntilReady();
}

async function listen() {
  const queue = new Queue(QUEUE, bullmq);
  const events = new QueueEvents(QUEUE, bullmq);
  events.setMaxListeners(0);
  await events.waitUntilReady();
  const submit = async (bytes) => {
    const file = join(BENCH_FOLDER, randomUUID());
    await writeFile(file, bytes);
    return queue.add("predict", { file }, { attempts: 3, removeOnComplete: { age: 600 } });
  };
  const answer = async (job) => job.waitUntilFinished(events, 60_000);
  const app = express();
  const picture = express.raw({ type: "image/*", limit: "20mb" });
  app.post("/predict", picture, async ({ body }, reply) => reply.json(await answer(await submit(body))));
  app.post("/submit", picture, async ({ body }, reply) => {
    const { id } = await submit(body);
    reply.status(202).json({ id });
  });
  app.get("/result/:id", async ({ params }, reply) =>
    reply.json(await answer(await Job.fromId(queue, params.id))),
  );
  app.listen(Number(PORT), "127.0.0.1");
}

/** From an encoded picture to its findings: ImageNet's normalisation, softmax. */
async function openClassifier({ file, side, threshold, labels }) {
  const session = await ort.InferenceSession.create(file, {
    intraOpNumThreads: 1,
    interOpNumThreads: 1,
    logSeverityLevel: 3,
  });
  const [name] = session.inputNames;
  const plane = side * side;
  const normalised = [
    [0.485, 0.229],
    [0.456, 0.224],
    [0.406, 0.225],
  ].map(([mean, std]) => Float32Array.from({ length: 256 }, (_, value) => (value / 255 - mean) / std));
  return async (bytes) => {
    const pixels = await sharp(bytes)
      .resize(side, side, { fit: "fill", kernel: "linear" })
      .removeAlpha()
      .toColourspace("srgb")
      .raw()
      .toBuffer();
    const tensor = new Float32Array(3 * plane);
    for (let index = 0; index < plane; index++)
      for (let channel = 0; channel < 3; channel++)
        tensor[channel * plane + index] = normalised[channel][pixels[3 * index + channel]];
    const outputs = await session.run({ [name]: new ort.Tensor("float32", tensor, [1, 3, side, side]) });
    const logits = [...outputs[session.outputNames[0]].data];
    const highest = Math.max(...logits);
    const powers = logits.map((logit) => Math.exp(logit - highest));
    const sum = powers.reduce((total, power) => total + power, 0);
    return powers
      .map((power, index) => ({ Cs: Math.round((100 * power) / sum) / 100, Lb: labels[index], Dm: {} }))
      .filter(({ Cs }) => Cs >= threshold)
      .sort((a, b) => b.Cs - a.Cs);
  };
}
