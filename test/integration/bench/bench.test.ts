import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { expect, test } from "vitest";
import { testRedisEnv, whyNoRedis } from "../../support/redis.ts";

interface Report {
  rows: { figure: string; value: number; met: boolean }[];
}

test.skipIf(whyNoRedis)(
  "the bench measures every row that it is asked for",
  { timeout: 240_000 },
  async () => {
    const args = ["--import", "tsx", "bench/bench.ts", "--json", "--quick"];
    const { stdout } = await promisify(execFile)(
      process.execPath,
      [...args, "--rows", "tensors,noop,latency,memory,flat", "--built"],
      { env: { ...process.env, ...testRedisEnv }, timeout: 230_000 },
    );
    const { rows } = JSON.parse(stdout) as Report;
    expect(rows).toHaveLength(13);
    for (const { figure, value } of rows) {
      expect(value, figure).toSatisfy(Number.isFinite);
      // What one took less the other can be anything in a few requests beside other tests.
      if (!/^added | less /.test(figure)) expect(value, figure).toBeGreaterThan(0);
    }
  },
);
