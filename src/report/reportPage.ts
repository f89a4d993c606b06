/** The page of a report. Nothing in it is fetched: style, plots and pictures stand in the file, and there is no script. */
import type { BulkResult, SkippedLine } from "../core/bulkRun.ts";
import type { BulkSummary, CopyCounts, EntryName, StageSummary } from "../core/bulkSummary.ts";
import { formatDuration } from "../core/duration.ts";
import { labelColour } from "../annotate/labelColour.ts";
import type { Finding } from "../imil/dictionaries.ts";
import { findingsOf } from "../imil/response.ts";
import { Html, html } from "./html.ts";
import { plotRate, plotScores, plotStages, short } from "./plots.ts";
import { STYLE } from "./reportStyle.ts";

/** An entry of the gallery, with its picture as a data URL where it has one. */
export interface ShownEntry {
  result: BulkResult;
  picture?: string;
  whyNoPicture?: string;
}

export interface ShownGallery {
  failed: ShownEntry[];
  leastSure: ShownEntry[];
  first: ShownEntry[];
  sample: ShownEntry[];
}

const MAX_LABEL_BARS = 20;
const MAX_CHIPS = 4;
const MAX_TEXT = 300;
/** Nothing may be asked for, wherever the file is opened. */
export const REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";

export function writeReportPage(summary: BulkSummary, gallery: ShownGallery): string {
  const { run, verdict, counts } = summary;
  const { model, folder } = summary.configuration;
  const over = folder ?? "a manifest";
  const state =
    run.status === "completed"
      ? counts.failed > 0
        ? "mixed"
        : "good"
      : run.status === "failed"
        ? "bad"
        : "mixed";
  const page = html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta http-equiv="Content-Security-Policy" content="${REPORT_POLICY}" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <title>${model}: ${verdict}</title>
        <link rel="icon" href="data:," />
        <style>
          ${new Html(STYLE)}
        </style>
      </head>
      <body>
        <header class="${state}">
          <p class="what">${model} over <span class="path">${over}</span></p>
          <h1>${verdict}</h1>
          <p class="when">
            ${timeText(run.started_at ?? run.created_at)}${run.finished_at && html` to ${timeText(run.finished_at)}`}
            · ${run.status} · <code>${run.id}</code>
          </p>
        </header>
        <main>
          ${failures(summary, gallery.failed)} ${tiles(summary)}
          <div class="columns">
            ${
              summary.rate.points.length > 0 &&
              section(
                "Rate over time",
                html`<p class="note">
                    Entries a second${counts.failed > 0 && html`; <i class="key bad"></i> failed`}
                  </p>
                  ${plotRate(summary.rate)}`,
              )
            }
            ${summary.stages.length > 0 && timeSection(summary.stages)} ${scoreSection(summary)}
            ${labelSection(summary)}
          </div>
          ${gallerySection("The least sure", "Those whose best finding has the lowest score.", gallery.leastSure)}
          ${gallerySection("The first", "As they ended.", gallery.first)}
          ${gallerySection("A random sample", `Of all that succeeded.`, gallery.sample)}
          <div class="columns">
            ${summary.slowest.length > 0 && slowestSection(summary)}
            ${summary.left_out.length > 0 && leftOutSection(summary)}
          </div>
          ${configurationSection(summary)}
        </main>
        <footer>
          Made by infermill${summary.configuration.used && ` ${summary.configuration.used.version}`}. This
          file needs nothing else.
        </footer>
      </body>
    </html> `;
  return page.text;
}

function section(title: string, content: Html): Html {
  return html`<section>
    <h2>${title}</h2>
    ${content}
  </section>`;
}

function failures(
  { counts, failures: reasons, more_failures }: BulkSummary,
  shown: ShownEntry[],
): Html | false {
  if (counts.failed === 0) return false;
  const pictures = shown.filter(({ picture }) => picture !== undefined);
  return html`<section class="failures">
    <h2>${counts.failed} failed</h2>
    ${reasons.map(
      ({ code, title, reason, count, examples }) =>
        html`<details${reasons.length <= 5 && new Html(" open")}><summary><b>${count}</b> ${title} <code>${code}</code><br><span class="reason">${clip(reason)}</span></summary>
<ul>${examples.map((example) => html`<li><span class="path">${nameText(example)}</span>${example.detail !== reason && html`: ${clip(example.detail)}`}</li>`)}${count > examples.length && html`<li>and ${count - examples.length} more</li>`}</ul></details>`,
    )}
    ${more_failures > 0 && html`<p>${more_failures} failed for other reasons.</p>`}
    ${pictures.length > 0 && html`<div class="gallery">${pictures.map(card)}</div>`}
  </section>`;
}

function tiles({ counts, seconds, per_second, stages, left_out, labels, more_labels }: BulkSummary): Html {
  const inEngine = stages
    .filter(({ share }) => share !== null)
    .reduce((sum, { mean_ms }) => sum + mean_ms, 0);
  const skipped = left_out.reduce((sum, { count }) => sum + count, 0);
  const shown: [string, string][] = [
    ["entries", counts.total.toLocaleString("en")],
    ["succeeded", counts.succeeded.toLocaleString("en")],
    ["failed", counts.failed.toLocaleString("en")],
    ...(counts.findings > 0 || counts.without_findings > 0
      ? ([
          ["findings", counts.findings.toLocaleString("en")],
          ["labels", `${labels.length}${more_labels > 0 ? "+" : ""}`],
          ["nothing found in", counts.without_findings.toLocaleString("en")],
        ] as [string, string][])
      : []),
    ...(skipped > 0 ? ([["left out", skipped.toLocaleString("en")]] as [string, string][]) : []),
    ...(seconds === null ? [] : ([["worked", formatDuration(seconds)]] as [string, string][])),
    ...(per_second === null ? [] : ([["entries a second", short(per_second)]] as [string, string][])),
    ...(inEngine > 0 ? ([["in the engine, on average", `${short(inEngine)} ms`]] as [string, string][]) : []),
  ];
  return html`<dl class="tiles">
    ${shown.map(
      ([name, value]) =>
        html`<div>
          <dt>${name}</dt>
          <dd>${value}</dd>
        </div>`,
    )}
  </dl>`;
}

function timeSection(stages: readonly StageSummary[]): Html {
  const rows = stages.map(
    ({ stage, mean_ms, p50_ms, p95_ms, max_ms, share }) =>
      html`<tr>
        <th><i class="key stage-${stage}"></i>${stage}</th>
        <td>${share === null ? "" : `${(100 * share).toFixed(1)} %`}</td>
        <td>${short(mean_ms)}</td>
        <td>${short(p50_ms)}</td>
        <td>${short(p95_ms)}</td>
        <td>${short(max_ms)}</td>
      </tr>`,
  );
  return section(
    "Where the time went",
    html`${plotStages(stages)}
      <table class="numbers">
        <thead>
          <tr>
            <th>ms of an entry</th>
            <td>part</td>
            <td>mean</td>
            <td>median</td>
            <td>95 %</td>
            <td>longest</td>
          </tr>
        </thead>
        <tbody>
          ${rows}
        </tbody>
      </table>
      <p class="note">
        An entry's stage takes as long as its batch's. In <b>queue</b> it waits for its turn, while others
        run.
      </p>`,
  );
}

function labelSection({ labels, more_labels, counts }: BulkSummary): Html | false {
  if (counts.findings === 0 && counts.without_findings === 0) return false;
  if (labels.length === 0) return section("Labels", html`<p>Nothing was found in any entry.</p>`);
  const most = labels[0]!.count;
  const rows = labels.slice(0, MAX_LABEL_BARS).map(
    ({ label, count, entries, mean_score, colour }) =>
      html`<tr>
        <th title="${label}">${clip(label, 40)}</th>
        <td class="bar">
          <svg viewBox="0 0 100 12" preserveAspectRatio="none" aria-hidden="true">
            <rect width="${((100 * count) / most).toFixed(1)}" height="12" rx="1" fill="${colour}" />
          </svg>
        </td>
        <td>${count.toLocaleString("en")}</td>
        <td>${entries.toLocaleString("en")}</td>
        <td>${mean_score.toFixed(2)}</td>
      </tr>`,
  );
  const rest = labels.slice(MAX_LABEL_BARS).reduce((sum, { count }) => sum + count, more_labels);
  return section(
    "Labels",
    html`<table class="numbers labels">
        <thead>
          <tr>
            <th></th>
            <td></td>
            <td>findings</td>
            <td>entries</td>
            <td>mean score</td>
          </tr>
        </thead>
        <tbody>
          ${rows}
        </tbody>
      </table>
      ${rest > 0 && html`<p class="note">Findings with other labels: ${rest.toLocaleString("en")}</p>`}`,
  );
}

function scoreSection({ scores }: BulkSummary): Html | false {
  if (!scores) return false;
  return section(
    "Scores",
    html`<p class="note">
        Findings by score: ${scores.min.toFixed(2)} to ${scores.max.toFixed(2)}, ${scores.mean.toFixed(2)} on
        average
      </p>
      ${plotScores(scores)}`,
  );
}

function gallerySection(title: string, note: string, shown: readonly ShownEntry[]): Html | false {
  if (shown.length === 0) return false;
  return section(
    title,
    html`<p class="note">${note}</p>
      <div class="gallery">${shown.map(card)}</div>`,
  );
}

function card({ result, picture, whyNoPicture }: ShownEntry): Html {
  const name = nameText(result);
  const findings = findingsOf(result.result);
  const isKnown = Array.isArray(result.result?.["Fs"]);
  const labels = [...bestByLabel(findings)].toSorted(([, a], [, b]) => b.best - a.best);
  const chips = labels
    .slice(0, MAX_CHIPS)
    .map(
      ([label, { best, count }]) =>
        html`<li>
          <i class="key" style="background:${labelColour(label)}"></i>${clip(label, 30)}
          <b>${best.toFixed(2)}</b>${count > 1 && ` ×${count}`}
        </li>`,
    );
  return html`<figure>
    ${picture ? html`<img src="${picture}" alt="${name}" />` : html`<div class="none">${clip(whyNoPicture ?? "no picture", 160)}</div>`}
    <figcaption>
      <span class="path" title="${name}">${name}</span>
      ${result.error && html`<p class="error">${clip(result.error.detail || result.error.title)}</p>`}
      ${
        chips.length > 0 &&
        html`<ul class="chips">
          ${chips}${labels.length > chips.length && html`<li>+${labels.length - chips.length}</li>`}
        </ul>`
      }
      ${isKnown && findings.length === 0 && html`<p class="note">nothing found</p>`}
      ${!isKnown && result.result && html`<code>${clip(JSON.stringify(result.result), 160)}</code>`}
    </figcaption>
  </figure>`;
}

/** The best score of each label, and how often it was found. */
function bestByLabel(findings: readonly Finding[]): Map<string, { best: number; count: number }> {
  const labels = new Map<string, { best: number; count: number }>();
  for (const { Lb, Cs } of findings) {
    const { best, count } = labels.get(Lb) ?? { best: 0, count: 0 };
    labels.set(Lb, { best: Math.max(best, Cs), count: count + 1 });
  }
  return labels;
}

function slowestSection({ slowest }: BulkSummary): Html {
  const rows = slowest.slice(0, 10).map(
    (entry) =>
      html`<tr>
        <th class="path" title="${nameText(entry)}">${nameText(entry)}</th>
        <td>${short(entry.duration_ms)}</td>
      </tr>`,
  );
  return section(
    "The slowest",
    html`<table class="numbers">
      <thead>
        <tr>
          <th></th>
          <td>ms in the engine</td>
        </tr>
      </thead>
      <tbody>
        ${rows}
      </tbody>
    </table>`,
  );
}

function leftOutSection({ left_out }: BulkSummary): Html {
  const example = ({ path, detail }: SkippedLine) =>
    html`<li><span class="path">${path}</span>${detail && html` (${detail})`}</li>`;
  const rows = left_out.map(
    ({ reason, count, examples }) =>
      html`<details>
        <summary><b>${count.toLocaleString("en")}</b> ${reason.replaceAll("_", " ")}</summary>
        <ul>
          ${examples.map(example)}${count > examples.length && html`<li>and ${count - examples.length} more</li>`}
        </ul>
      </details>`,
  );
  return section("Left out of the folder", html`${rows}`);
}

function copiesText({ drawn, failed, first_failure }: CopyCounts): string {
  return `${drawn} drawn${failed > 0 ? `, ${failed} failed: ${clip(first_failure ?? "")}` : ""}`;
}

function configurationSection({ configuration, copies, run }: BulkSummary): Html {
  const { used, model, folder, glob, request, annotate } = configuration;
  const rows: [string, string][] = [
    ["model", model],
    ...(used
      ? ([
          ["loader", used.loader],
          ["files", used.model_path.join(", ")],
          ["device", used.device.join(", ")],
          ...Object.entries(used.settings).map(([key, value]) => [key, JSON.stringify(value)]),
        ] as [string, string][])
      : []),
    ["over", folder ?? "a manifest"],
    ["pattern", glob ?? ""],
    ["request", Object.keys(request).length > 0 ? clip(JSON.stringify(request), 2000) : ""],
    ["annotated copies", annotate === null ? "" : `${annotate}${copies ? `: ${copiesText(copies)}` : ""}`],
    ["priority", run.priority],
  ];
  return section(
    "Configuration",
    html`<table class="settings">
      <tbody>
        ${rows
          .filter(([, value]) => value !== "")
          .map(
            ([name, value]) =>
              html`<tr>
                <th>${name}</th>
                <td>${value}</td>
              </tr>`,
          )}
      </tbody>
    </table>`,
  );
}

function nameText({ index, path, custom_id }: EntryName): string {
  return path ?? custom_id ?? `entry ${index}`;
}

/** "2026-11-26 01:05:28 UTC" */
function timeText(iso: string): string {
  return `${iso.slice(0, 19).replace("T", " ")} UTC`;
}

function clip(text: string, longest = MAX_TEXT): string {
  return text.length > longest ? `${text.slice(0, longest - 1)}…` : text;
}
