/** The receivers of docs/webhooks.md, run as they stand there, take what infermill sends and nothing else. */
import { spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { createEgress } from "../../../src/egress/egress.ts";
import { attemptDelivery } from "../../../src/webhooks/attempt.ts";
import { signatureHeaders } from "../../../src/webhooks/signature.ts";
import { freePort } from "../../support/freePort.ts";
import { until } from "../../support/infermill.ts";
import { SECRET } from "../../support/receiver.ts";
import { isOnPath } from "../../support/redis.ts";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const guide = readFileSync(join(ROOT, "docs/webhooks.md"), "utf8");

function blockOf(heading: string): string {
  const block = new RegExp(`^\`\`\`${heading}\n([^]*?)^\`\`\``, "m").exec(guide);
  if (!block) throw new Error(`docs/webhooks.md has no block "${heading}"`);
  return block[1]!;
}

describe.each([
  ["js receiver.mjs", "receiver.mjs", process.execPath],
  ["python", "receiver.py", "python3"],
])("the receiver in %s", (heading, file, program) => {
  const isMissing = !existsSync(program) && !isOnPath(program);
  let folder: string;
  let url: string;
  let output = "";
  let stop: () => void;

  beforeAll(async () => {
    if (isMissing) return;
    folder = mkdtempSync(join(tmpdir(), "infermill-receiver-"));
    symlinkSync(join(ROOT, "node_modules"), join(folder, "node_modules"));
    const port = await freePort();
    url = `http://127.0.0.1:${port}/hook`;
    writeFileSync(join(folder, file), blockOf(heading).replace("9000", String(port)));
    const child = spawn(program, [join(folder, file)], {
      env: { ...process.env, WEBHOOK_SECRET: SECRET },
      stdio: ["ignore", "pipe", "pipe"],
    });
    child.stdout.on("data", (chunk) => (output += chunk));
    child.stderr.on("data", (chunk) => (output += chunk));
    stop = () => void child.kill();
    await until(
      async () => (await fetch(url, { method: "PUT" }).catch(() => undefined)) !== undefined,
      "it listens",
    );
  });
  afterAll(async () => {
    stop?.();
    if (folder) await rm(folder, { recursive: true, force: true });
  });

  const event = {
    type: "prediction.succeeded" as const,
    timestamp: new Date().toISOString(),
    data: { id: "pred_ü", links: {} },
  };
  const deliver = (secret: string) =>
    attemptDelivery({
      egress: createEgress({ allow: ["127.0.0.1"], allowKey: "webhooks.allow" }),
      url,
      id: "msg_1",
      event,
      secrets: [secret],
      timeoutMs: 5000,
      userAgent: "infermill",
      attempts: 0,
      trace: {},
    });

  test.skipIf(isMissing)("takes a delivery", async () => {
    expect(await deliver(SECRET)).toEqual({ outcome: "delivered", status: 204, error: null });
    await until(() => output.includes("prediction.succeeded pred_ü"), "its output");
  });

  test.skipIf(isMissing)(
    "refuses what is signed with another secret, forged, stale or not signed",
    async () => {
      const before = output.split("prediction.succeeded").length;
      const other = `whsec_${Buffer.alloc(32, "b").toString("base64")}`;
      expect(await deliver(other)).toMatchObject({ outcome: "failed", status: 400 });
      const body = JSON.stringify(event);
      const now = signatureHeaders([SECRET], "msg_1", new Date(), body);
      const stale = signatureHeaders([SECRET], "msg_1", new Date(Date.now() - 600_000), body);
      for (const [headers, sent] of [
        [now, `${body} `],
        [{ ...now, "webhook-id": "msg_2" }, body],
        [stale, body],
        [{}, body],
      ] as const) {
        const answer = await fetch(url, { method: "POST", headers, body: sent });
        expect(answer.status).toBe(400);
      }
      expect(output.split("prediction.succeeded")).toHaveLength(before);
    },
  );
});
