/** One model that can't be loaded leaves the others alone, and is loaded again once it can be. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { send } from "../../support/api.ts";
import { runInfermill, startInfermill, submit, until, type TestInfermill } from "../../support/infermill.ts";
import { whyNoRedis } from "../../support/redis.ts";

const loader = (body: string) => `
import { BaseModelLoader } from "infermill";
export class GoodModelLoader extends BaseModelLoader {
  ${body}
  async predictRequest(request) { return { echo: request.Fid }; }
}`;
const BROKEN = loader('async load() { throw new Error("the weights are cut short"); }');
const WORKING = loader("");
const CRASHING = loader("async load() { process.kill(process.pid, 'SIGKILL'); }");

describe.skipIf(whyNoRedis)("a model that can't be loaded", () => {
  let folder: string;
  let infermill: TestInfermill;
  const file = (name: string, text: string) => {
    writeFileSync(join(folder, `${name}.ts`), text);
    return { loader: "GoodModelLoader", model_loader_file: join(folder, `${name}.ts`), instances: 1 };
  };

  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), "infermill-broken-"));
    infermill = await startInfermill({
      models: {
        Broken: file("broken", BROKEN),
        Good: file("good", WORKING),
        Crashing: file("crashing", CRASHING),
      },
    });
  });
  afterAll(async () => {
    await infermill?.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  test("leaves the others alone, and the banner, readiness and its description name it and why", async () => {
    expect((await submit(infermill.url, "Good", { Fid: "1" })).result).toEqual({ echo: "1" });
    expect(infermill.output()).toMatch(
      /Broken \(GoodModelLoader\) is not served: .*the weights are cut short/,
    );
    expect(infermill.output()).toMatch(
      /Crashing \(GoodModelLoader\) is not served: .*while it loaded the model/,
    );
    const { status, body } = await send("GET", `${infermill.url}/health/ready`);
    expect(status).toBe(503);
    expect(body.models.Good.ready).toBe(true);
    expect(body.problems.join("\n")).toContain("the weights are cut short");
    const described = await send("GET", `${infermill.url}/v1/models/Broken`);
    expect(described.body).toMatchObject({ ready: false, engines: [{ state: "failed" }] });
  });

  test("keeps what was accepted for it, and serves it once its file is fixed", async () => {
    const accepted = await submit(infermill.url, "Broken", { Fid: "2" }, 0);
    expect(accepted.status).toBe("queued");
    file("broken", WORKING);
    const url = `${infermill.url}${accepted.links.self}`;
    const done = await until(async () => {
      const { body } = await send("GET", url);
      return body.status === "succeeded" && body;
    }, "the prediction of the model that was fixed");
    expect(done.result).toEqual({ echo: "2" });
  });

  test("is loaded again on request", async () => {
    file("crashing", WORKING);
    const asked = await send("POST", `${infermill.url}/v1/models/Crashing/load`);
    expect(asked.status).toBe(202);
    await until(
      async () => (await send("GET", infermill.url + asked.headers.get("Location")!)).status === 200,
      "the model that was loaded on request",
    );
    expect((await submit(infermill.url, "Crashing", { Fid: "3" })).result).toEqual({ echo: "3" });
  });

  test.each([
    ["with --strict", ["--strict"], ["Broken", "Good"]],
    ["where no model is left", [], ["Broken"]],
  ])("ends infermill start %s", async (_when, options, names) => {
    const all: Record<string, object> = { Broken: file("broken2", BROKEN), Good: file("good2", WORKING) };
    const config = join(folder, `${names.join("-")}.json`);
    const models = Object.fromEntries(names.map((name) => [name, all[name]]));
    writeFileSync(config, JSON.stringify({ port: 0, data_dir: join(folder, names.join("-")), models }));
    const run = runInfermill(["start", "--config", config, ...options]);
    expect((await run.exited).code).toBe(1);
    expect(run.output()).toContain("the weights are cut short");
  });
});
