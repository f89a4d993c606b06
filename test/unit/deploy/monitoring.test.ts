/** Alert rules, the dashboard and the scaling of deploy/: expressions that parse, and metrics and labels that there are. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parser } from "@prometheus-io/lezer-promql";
import { describe, expect, test } from "vitest";
import { parse, parseAllDocuments } from "yaml";

const ROOT = fileURLToPath(new URL("../../..", import.meta.url));
const textOf = (file: string) => readFileSync(join(ROOT, file), "utf8");

/** Labels by metric, from the table of docs/operations.md, which is compared with a real scrape elsewhere. */
const metrics = new Map<string, Set<string>>();
for (const [, name, type, labels] of textOf("docs/operations.md").matchAll(
  /^\| `(infermill_\w+)` \| (\w+) \| (.*?) \|/gm,
)) {
  const known = new Set([...labels!.matchAll(/`(\w+)`/g)].map(([, label]) => label!));
  metrics.set(name!, known);
  if (type !== "histogram") continue;
  for (const suffix of ["count", "sum"]) metrics.set(`${name}_${suffix}`, known);
  metrics.set(`${name}_bucket`, new Set([...known, "le"]));
}

interface Rule {
  alert: string;
  expr: string;
  annotations: Record<string, string>;
}
interface Panel {
  title: string;
  targets: { expr: string }[];
}

const { groups } = parse(textOf("deploy/prometheus/alerts.yml")) as { groups: { rules: Rule[] }[] };
const rules = groups.flatMap((group) => group.rules);
const { panels } = JSON.parse(textOf("deploy/grafana/infermill.json")) as { panels: Panel[] };
const scaled = parse(textOf("deploy/kubernetes/keda/scaledobject.yaml")) as {
  spec: { triggers: { metadata: { query: string } }[]; scaleTargetRef: { name: string } };
};

const expressions: [string, string][] = [
  ...rules.map(({ alert, expr }): [string, string] => [alert, expr]),
  ...panels.flatMap(({ title, targets }) =>
    // Grafana fills its variables in before Prometheus sees them.
    targets.map(({ expr }): [string, string] => [title, expr.replaceAll("$model", ".*")]),
  ),
  ...scaled.spec.triggers.map(({ metadata }): [string, string] => ["KEDA", metadata.query]),
];

/** The nodes of these names, as text. */
function nodesOf(expression: string, ...names: string[]): string[] {
  const found: string[] = [];
  parser.parse(expression).iterate({
    enter(node) {
      if (names.includes(node.name)) found.push(expression.slice(node.from, node.to));
    },
  });
  return found;
}

describe("deploy/", () => {
  test.each(expressions)("%s is a query that Prometheus can read: %s", (_name, expression) => {
    expect(nodesOf(expression, "⚠")).toEqual([]);
    const selectors = nodesOf(expression, "VectorSelector");
    expect(selectors.length).toBeGreaterThan(0);
    for (const selector of selectors) {
      const [name] = nodesOf(selector, "Identifier");
      expect([...metrics.keys()]).toContain(name);
      for (const label of nodesOf(selector, "LabelName")) expect([...metrics.get(name!)!]).toContain(label);
    }
    // Prometheus itself says which api a sample came from.
    const known = selectors.flatMap((selector) => [...metrics.get(nodesOf(selector, "Identifier")[0]!)!]);
    for (const grouping of nodesOf(expression, "GroupingLabels"))
      for (const label of nodesOf(`sum by ${grouping} (x)`, "LabelName"))
        expect([...known, "instance"]).toContain(label);
  });

  test("the fields of alerts name labels that their queries keep", () => {
    for (const { expr, annotations } of rules) {
      const kept = nodesOf(expr, "GroupingLabels").join();
      for (const [, label] of Object.values(annotations)
        .join()
        .matchAll(/\$labels\.(\w+)/g))
        expect(kept).toMatch(new RegExp(`\\b${label}\\b`));
    }
  });

  test("every metric is on the dashboard", () => {
    const shown = panels.flatMap(({ targets }) => targets.map(({ expr }) => expr)).join("\n");
    for (const name of metrics.keys())
      if (!/_(?:bucket|sum|count)$/.test(name)) expect(shown).toContain(name);
  });

  test("what is scaled is the deployment of the workers", () => {
    const [deployment] = parseAllDocuments(textOf("deploy/kubernetes/base/worker.yaml")).map(
      (document) => document.toJS() as { metadata: { name: string } },
    );
    expect(scaled.spec.scaleTargetRef.name).toBe(deployment!.metadata.name);
  });
});
