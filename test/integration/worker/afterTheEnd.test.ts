/** What is left of a prediction once it has ended: its thumbnail, its timeline, the way to run it again, statistics. */
import { mkdtempSync, writeFileSync } from "node:fs";
import { readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Redis } from "ioredis";
import sharp from "sharp";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { RedisServer } from "../../../src/redis/provideRedis.ts";
import { openRedis, send, type Json } from "../../support/api.ts";
import {
  SCRIPTED_LOADER,
  startInfermill,
  submit,
  until,
  upload,
  type TestInfermill,
} from "../../support/infermill.ts";
import { plainPicture } from "../../support/pictures.ts";
import { startTestRedis, whyNoRedis } from "../../support/redis.ts";

const scripted = { loader: "ScriptedModelLoader", model_loader_file: SCRIPTED_LOADER, instances: 1 };

describe.skipIf(whyNoRedis).each(["files", "redis"])(
  "a prediction that has ended, with inputs: %s",
  (inputs) => {
    let infermill: TestInfermill;
    let picture: Buffer;
    const photos = mkdtempSync(join(tmpdir(), "infermill-photos-"));
    let server: RedisServer;
    let redis: Redis;
    beforeAll(async () => {
      server = await startTestRedis();
      redis = openRedis(server.url);
      picture = await sharp(await plainPicture(255, 0, 0, 800))
        .resize(800, 400, { fit: "fill" })
        .jpeg()
        .toBuffer();
      writeFileSync(join(photos, "red.jpg"), picture);
      writeFileSync(join(photos, "broken.onnx"), "no model");
      const settings = {
        inputs,
        bulk_roots: { photos },
        console: { thumbnails: { size: 100 }, keep_inputs: 2 },
        models: {
          Scripted: scripted,
          Broken: {
            loader: "YoloModelLoader",
            model_path: [join(photos, "broken.onnx")],
            class_names: ["coco"],
          },
        },
      };
      infermill = await startInfermill(settings, { REDIS_URL: server.url });
    });
    afterAll(async () => {
      await infermill?.stop();
      redis?.disconnect();
      await server?.close();
      await rm(photos, { recursive: true, force: true });
    });

    const get = async (path: string): Promise<Json> => (await send("GET", infermill.url + path)).body;
    const withThumbnail = async (self: string): Promise<Json> =>
      until(async () => {
        const prediction = await get(self);
        return prediction.links.thumbnail && prediction;
      }, "its thumbnail");

    test("has a thumbnail, also one that failed, and where the picture was named by reference", async () => {
      const ended = [
        await upload(infermill.url, "Scripted", picture),
        await submit(infermill.url, "Scripted", { image: "photos/red.jpg" }),
        await submit(infermill.url, "Scripted", { Base_64: picture.toString("base64"), Do: "throw" }),
      ];
      expect(ended.map(({ status }) => status)).toEqual(["succeeded", "succeeded", "failed"]);
      for (const { links } of ended) {
        const { links: found } = await withThumbnail(links.self);
        const answer = await fetch(infermill.url + found.thumbnail);
        expect([answer.status, answer.headers.get("Content-Type")]).toEqual([200, "image/webp"]);
        const thumbnail = sharp(Buffer.from(await answer.arrayBuffer()));
        expect(await thumbnail.metadata()).toMatchObject({ format: "webp", width: 100, height: 50 });
        const [red, green, blue] = (await thumbnail.stats()).channels.map(({ mean }) => mean);
        expect([red! > 230, green! < 25, blue! < 25]).toEqual([true, true, true]);
      }
      const { predictions } = await get("/v1/predictions?status=succeeded");
      expect(predictions.every(({ links }: Json) => links.thumbnail)).toBe(true);
    });

    test("has no thumbnail where it had no picture, or one that nothing has read", async () => {
      const text = await submit(infermill.url, "Scripted", { Fid: "text" });
      const bytes = await upload(
        infermill.url,
        "Scripted",
        Buffer.alloc(2000, "<svg/>"),
        "application/octet-stream",
      );
      for (const { links } of [text, bytes]) {
        expect((await get(links.self)).links).not.toHaveProperty("thumbnail");
        const answer = await send("GET", `${infermill.url}${links.self}/thumbnail`);
        expect([answer.status, answer.body.code]).toEqual([404, "thumbnail_not_found"]);
      }
    });

    test("tells when it passed what, in order, and where it failed", async () => {
      const { timeline, links } = await submit(infermill.url, "Scripted", { Ms: 30 });
      const times = ["queued_at", "taken_at", "batch_at", "infer_at", "ended_at"].map((key) =>
        Date.parse((timeline as Json)[key]),
      );
      expect(times).toEqual(times.toSorted((a, b) => a - b));
      expect(times.at(-1)! - times[0]!).toBeGreaterThanOrEqual(29);
      expect(await get(links.self)).not.toHaveProperty("stack");
      const failed = await submit(infermill.url, "Scripted", { Do: "throw" });
      const { stack, error } = await get(failed.links.self);
      expect(error.detail).toContain("told to throw");
      expect(stack).toContain("scripted.ts");
    });

    test("can be run again while what was uploaded is there: two are kept", async () => {
      const oldest = await upload(
        infermill.url,
        "Scripted",
        picture,
        "image/jpeg",
        "?Fid=first&priority=high",
      );
      const again = await send("POST", infermill.url + oldest.links.retry, undefined, { Prefer: "wait=30" });
      expect(again.status).toBe(200);
      expect(again.body).toMatchObject({ status: "succeeded", result: { Fs: [{ Lb: "first" }] } });
      expect(again.body.id).not.toBe(oldest.id);
      await withThumbnail(again.body.links.self);

      const key = { Prefer: "wait=30", "Idempotency-Key": `twice-${inputs}` };
      const [one, two] = [
        await send("POST", infermill.url + again.body.links.retry, undefined, key),
        await send("POST", infermill.url + again.body.links.retry, undefined, key),
      ];
      expect(two.body.id).toBe(one.body.id);

      await upload(infermill.url, "Scripted", picture);
      await upload(infermill.url, "Scripted", picture);
      const retryOldest = () => send("POST", infermill.url + oldest.links.retry);
      await until(async () => (await retryOldest()).status === 410, "the removal of its picture");
      expect((await retryOldest()).body).toMatchObject({
        code: "inputs_gone",
        detail: expect.stringContaining("console.keep_inputs"),
      });
    });

    test("can always be run again where nothing was uploaded", async () => {
      for (const request of [{ Fid: "text" }, { image: "photos/red.jpg", Fid: "reference" }]) {
        const { links } = await submit(infermill.url, "Scripted", request);
        for (let count = 0; count < 3; count++) await submit(infermill.url, "Scripted", {});
        const again = await send("POST", infermill.url + links.retry, undefined, { Prefer: "wait=30" });
        expect(again.body.result.Fs).toEqual([expect.objectContaining({ Lb: request.Fid })]);
      }
      const slow = await submit(infermill.url, "Scripted", { Ms: 400 }, 0);
      const early = await send("POST", infermill.url + slow.links.retry);
      expect([early.status, early.body.code]).toEqual([409, "not_ended"]);
      expect((await send("POST", `${infermill.url}/v1/models/Scripted/predictions/none/retry`)).status).toBe(
        404,
      );
    });

    test("counts in its model's statistics, and a model that failed says what to do", async () => {
      const model = await until(async () => {
        const found = await get("/v1/models/Scripted");
        return found.statistics.points.some(({ succeeded }: Json) => succeeded > 0) && found;
      }, "the end of an interval");
      expect(model).toMatchObject({ state: "ready", reason: null, advice: null });
      expect(model.queue.oldest_wait_seconds).toBe(0);
      expect(model.batch.in_use).toBeGreaterThanOrEqual(1);
      const [point] = model.statistics.points;
      expect(Date.parse(point.at) % (model.statistics.interval_seconds * 1000)).toBe(0);
      expect(point.p95_ms).toBeGreaterThanOrEqual(point.p50_ms);
      expect(point.mean_batch_size).toBeGreaterThanOrEqual(1);

      const { models } = await get("/v1/models");
      expect(models.find(({ name }: Json) => name === "Broken")).toMatchObject({
        state: "failed",
        reason: expect.stringContaining("broken.onnx"),
        advice: expect.stringContaining("/v1/models/Broken/load"),
        statistics: { points: [] },
        batch: { in_use: null },
      });
    });

    test("leaves the two uploads that are kept, and no other", async () => {
      const uploads = async () => {
        if (inputs === "redis") return (await redis.keys("*:input:*")).length;
        const entries = await readdir(join(infermill.folder, "data/inputs"), {
          recursive: true,
          withFileTypes: true,
        });
        return entries.filter((entry) => entry.isFile()).length;
      };
      for (let count = 0; count < 3; count++) await upload(infermill.url, "Scripted", picture);
      const { links } = await upload(infermill.url, "Scripted", picture);
      await until(async () => (await uploads()) === 2, "the removal of the others");
      // What has no upload takes the place of none.
      for (let count = 0; count < 3; count++) await submit(infermill.url, "Scripted", {});
      expect((await send("POST", infermill.url + links.retry)).status).toBe(202);
    });
  },
);
