/**
 * The manifests of deploy/kubernetes and the units of deploy/systemd, without a cluster: by the schemas of Kubernetes, built
 * by kubectl where there is one, and against what the processes are.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, describe, expect, test } from "vitest";
import { parseAllDocuments } from "yaml";
import { configSchema } from "../../../src/config/schema.ts";
import { pythonWithPackages, whyNoPackages } from "../../support/python.ts";
import { isOnPath } from "../../support/redis.ts";

const DEPLOY = fileURLToPath(new URL("../../../deploy", import.meta.url));
const BASE = join(DEPLOY, "kubernetes/base");
const folder = mkdtempSync(join(tmpdir(), "infermill-deploy-"));
afterAll(() => rmSync(folder, { recursive: true }));

interface Manifest {
  kind: string;
  metadata: { name: string };
  spec: {
    selector?: { matchLabels?: Record<string, string> };
    template?: {
      metadata: { labels: Record<string, string> };
      spec: {
        terminationGracePeriodSeconds: number;
        containers: { image: string; args: string[]; volumeMounts: { name: string; mountPath: string }[] }[];
        volumes?: { name: string }[];
      };
    };
  };
}

const manifestsOf = (text: string) => parseAllDocuments(text).map((document) => document.toJS() as Manifest);
const files = readdirSync(BASE)
  .filter((name) => name.endsWith(".yaml") && name !== "kustomization.yaml")
  .map((name) => join(BASE, name));
const manifests = files.flatMap((file) => manifestsOf(readFileSync(file, "utf8")));
const deployments = manifests.filter(({ kind }) => kind === "Deployment");
const build = (name: string) =>
  execFileSync("kubectl", ["kustomize", join(DEPLOY, "kubernetes", name)], { encoding: "utf8" });

describe.skipIf(whyNoPackages)("deploy/kubernetes", () => {
  test("follows the schemas of Kubernetes, as it lies there and as kubectl builds it", () => {
    const built = isOnPath("kubectl")
      ? ["base", "gpu"].map((name) => {
          const file = join(folder, `${name}.yaml`);
          writeFileSync(file, build(name));
          return file;
        })
      : [];
    const validate = `${pythonWithPackages}/bin/kubernetes-validate`;
    const report = execFileSync(validate, ["--strict", ...files, ...built], { encoding: "utf8" });
    expect(report.match(/passed for resource/g)!.length).toBeGreaterThanOrEqual(manifests.length);
    if (built.length > 0)
      expect(manifestsOf(build("keda")).map(({ kind }) => kind)).toContain("ScaledObject");
  });
});

describe("deploy/kubernetes/base", () => {
  test("runs the api, a worker and the coordinator with the time that each needs to stop", () => {
    const seconds = { "infermill-api": 15, "infermill-worker": 30, "infermill-coordinator": 20 };
    expect(deployments.map(({ metadata }) => metadata.name).toSorted()).toEqual(
      Object.keys(seconds).toSorted(),
    );
    for (const { metadata, spec } of deployments) {
      const { containers, terminationGracePeriodSeconds, volumes } = spec.template!.spec;
      const [container] = containers;
      expect(container!.args).toEqual([metadata.name.replace("infermill-", "")]);
      expect(terminationGracePeriodSeconds).toBeGreaterThan(seconds[metadata.name as keyof typeof seconds]);
      expect(container!.volumeMounts.map(({ name }) => name)).toEqual(volumes!.map(({ name }) => name));
      expect(spec.template!.metadata.labels).toMatchObject(spec.selector!.matchLabels!);
    }
  });

  test("reads no secret but what the command of docs/operations.md makes", () => {
    const guide = readFileSync(join(DEPLOY, "../docs/operations.md"), "utf8");
    const [, secret, literals] = /create secret generic (\S+) (--from-literal.*)$/m.exec(guide)!;
    const made = [...literals!.matchAll(/--from-literal=(\w+)=/g)].map(([, key]) => `${secret} ${key}`);
    const read = [...files, join(DEPLOY, "kubernetes/monitoring/podmonitor.yaml")].flatMap((file) =>
      [
        ...readFileSync(file, "utf8").matchAll(
          /(?:secretKeyRef|credentials):\n\s+name: (\S+)\n\s+key: (\S+)/g,
        ),
      ].map(([, name, key]) => `${name} ${key}`),
    );
    expect(read.toSorted()).toEqual(made.toSorted());
  });

  test("has a configuration that infermill takes", () => {
    const config = configSchema.parse(JSON.parse(readFileSync(join(BASE, "infermill.json"), "utf8")));
    expect(config.inputs).toBe("redis");
    expect(config.data_dir).toBe("/data");
  });
});

describe("deploy/systemd", () => {
  const units = readdirSync(join(DEPLOY, "systemd")).filter((name) => name.endsWith(".service"));

  test("starts each kind of process by Node, and gives it the time that it needs to stop", () => {
    expect(units.toSorted()).toEqual([
      "infermill-api.service",
      "infermill-coordinator.service",
      "infermill-worker.service",
    ]);
    for (const unit of units) {
      const text = readFileSync(join(DEPLOY, "systemd", unit), "utf8");
      const kind = unit.slice("infermill-".length, -".service".length);
      expect(text).toContain(`node_modules/infermill/dist/cli/main.js ${kind} --config`);
      const [, stop] = /^TimeoutStopSec=(\d+)$/m.exec(text)!;
      expect(Number(stop)).toBeGreaterThan({ api: 10, worker: 30, coordinator: 20 }[kind]!);
    }
    if (!isOnPath("systemd-analyze")) return;
    // It also looks for the program, which need not be on this machine.
    const report = execFileSync(
      "sh",
      [
        "-c",
        `systemd-analyze verify ${units.map((unit) => `"$0/${unit}"`).join(" ")} 2>&1 || true`,
        join(DEPLOY, "systemd"),
      ],
      { encoding: "utf8" },
    );
    expect(
      report.split("\n").filter((line) => /infermill/.test(line) && !/not executable|PLACEHOLDER/.test(line)),
    ).toEqual([]);
  });
});
