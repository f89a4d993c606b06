import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { pythonWithPackages, whyNoPackages } from "../../support/python.ts";
import { testRedisEnv, whyNoRedis } from "../../support/redis.ts";

test.skipIf(whyNoRedis || whyNoPackages)(
  "the bench compares a server and a pool over a folder with infermill, and prints the tables of the README",
  { timeout: 240_000 },
  async () => {
    const rows = ["--peers", "bullmq,pool", "--rows", "A,C", "--files", "16"];
    const { stdout } = await promisify(execFile)(
      process.execPath,
      [
        "--import",
        "tsx",
        "bench/bench.ts",
        "--built",
        "--quick",
        "--markdown",
        ...rows,
        "--venv",
        pythonWithPackages!,
      ],
      { env: { ...process.env, ...testRedisEnv }, timeout: 230_000 },
    );
    expect(stdout).toMatch(/^\| {2}\| keeps a queue \| 201 KB JPEG, uploads\/s \|$/m);
    expect(stdout).toMatch(/^\| \*\*infermill\*\* \| yes \| \d[\d.]* \|$/m);
    expect(stdout).toMatch(/^\| BullMQ by hand \| yes \| (\*\*)?\d+\.\d\d×(\*\*)? \|$/m);
    expect(stdout).toMatch(/^\| infermill bulk \| \d[\d.]* \| \d+\.\d \|$/m);
    expect(stdout).toMatch(/^\| pool of processes \| (\*\*)?\d+\.\d\d×(\*\*)? \| \d+\.\d \|$/m);
    expect(stdout).toMatch(/^Versions: .*onnxruntime \d/m);
    expect(stdout).not.toContain("Left out");
  },
);
