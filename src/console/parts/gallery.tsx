/** The entries of a bulk run as pictures with what was found drawn over, by label, score and status. */
import { useEffect, useRef, useState } from "preact/hooks";
import { isMissing, pathOf, resolveLink, useAnswer, usePages } from "../api.ts";
import type {
  BulkEntryResult as BulkEntry,
  BulkEntryPage,
  BulkSummary,
  EntrySort,
} from "../../core/bulkSummary.ts";
import type { BulkRun } from "../../core/bulkRun.ts";
import { hasEnded } from "../../core/bulkRun.ts";
import { countLabels, findingsOf } from "../findings.ts";
import { formatDuration } from "../format.ts";
import { routeTo } from "../route.ts";
import { partsOfTimings, PartsBar } from "./charts.tsx";
import { Select } from "./fields.tsx";
import { AnnotatedPicture } from "./picture.tsx";
import { RawJson, Swatch } from "./result.tsx";
import { nameOf } from "./runCharts.tsx";
import { ErrorDetail, ErrorNote, Loading, Message, MoreButton, StatusMark } from "./states.tsx";

const PAGE_SIZE = 24;
const SORTS = [
  ["line", "as they ended"],
  ["-score", "most sure first"],
  ["score", "least sure first"],
  ["-duration", "slowest first"],
] as const satisfies readonly [EntrySort, string][];

/** What is in the address: which entries, in what order, and which one is open. */
interface Choice {
  status: string;
  label: string;
  min_score: string;
  max_score: string;
  sort: string;
  entry: string;
}

function choiceOf(query: URLSearchParams): Choice {
  const given = (key: string) => query.get(key) ?? "";
  return {
    status: given("status"),
    label: given("label"),
    min_score: given("min_score"),
    max_score: given("max_score"),
    sort: given("sort"),
    entry: given("entry"),
  };
}

export function Gallery(props: { run: BulkRun; labels: BulkSummary["labels"]; query: URLSearchParams }) {
  const { run, labels, query } = props;
  const choice = choiceOf(query);
  const { entry: opened, ...filter } = choice;
  const pages = usePages<BulkEntryPage, BulkEntry>(
    (cursor) => pathOf(["bulk", run.id, "entries"], { ...filter, limit: PAGE_SIZE, cursor }),
    (page) => page.entries,
    ({ index }) => index,
    hasEnded(run.status) ? {} : { everyMs: 3000 },
  );
  const { data, items: entries, error, reload } = pages;
  const change = (next: Partial<Choice>) => {
    location.hash = routeTo(["bulk", run.id], { ...choice, entry: "", ...next });
  };
  if (error && isMissing(error)) return null;

  const isFiltered = Object.entries(filter).some(([key, value]) => key !== "sort" && value !== "");
  return (
    <section class="section">
      <h2>Results</h2>
      <GalleryFilter choice={choice} labels={labels} onChange={change} />
      {error && <ErrorNote error={error} onRetry={reload} />}
      {!data && !error && <Loading what="the results" />}
      {data && entries.length === 0 && (
        <Message title={isFiltered ? "No such results" : "No results yet"}>
          {isFiltered && (
            <button
              type="button"
              onClick={() => change({ status: "", label: "", min_score: "", max_score: "" })}
            >
              Show all
            </button>
          )}
        </Message>
      )}
      <ul class="gallery">
        {entries.map((entry) => (
          <Tile key={entry.index} entry={entry} onOpen={() => change({ entry: String(entry.index) })} />
        ))}
      </ul>
      <MoreButton label="More" {...pages} />
      {opened !== "" && (
        <EntryDialog
          run={run}
          index={opened}
          known={entries.find(({ index }) => String(index) === opened)}
          neighbours={neighboursOf(entries, opened)}
          onOpen={(index) => change({ entry: index })}
          onClose={() => change({})}
        />
      )}
    </section>
  );
}

/** The entries before and after one, among those that are shown. */
function neighboursOf(entries: readonly BulkEntry[], opened: string): { before?: string; after?: string } {
  const at = entries.findIndex(({ index }) => String(index) === opened);
  if (at < 0) return {};
  const [before, after] = [entries[at - 1], entries[at + 1]];
  return { ...(before && { before: String(before.index) }), ...(after && { after: String(after.index) }) };
}

function GalleryFilter(props: {
  choice: Choice;
  labels: BulkSummary["labels"];
  onChange: (choice: Partial<Choice>) => void;
}) {
  const { choice, labels, onChange } = props;
  const isListed = choice.label === "" || labels.some(({ label }) => label === choice.label);
  return (
    <div class="row">
      <Select
        label="Status"
        value={choice.status}
        options={[["", "all"], "succeeded", "failed"]}
        onChoose={(status) => onChange({ status })}
      />
      <Select
        label="Label"
        value={choice.label}
        options={[
          ["", "all"],
          ...(isListed ? [] : [choice.label]),
          ...labels.map(({ label, entries }) => [label, `${label} (${entries})`] as const),
        ]}
        onChoose={(label) => onChange({ label })}
      />
      <label class="choice">
        <span>Score from</span>
        <ScoreField value={choice.min_score} onChange={(min_score) => onChange({ min_score })} />
      </label>
      <label class="choice">
        <span>to</span>
        <ScoreField value={choice.max_score} onChange={(max_score) => onChange({ max_score })} />
      </label>
      <Select
        label="Order"
        value={choice.sort || "line"}
        options={SORTS}
        onChoose={(sort) => onChange({ sort })}
      />
    </div>
  );
}

function ScoreField({ value, onChange }: { value: string; onChange: (value: string) => void }) {
  return (
    <input
      type="number"
      min="0"
      max="1"
      step="0.05"
      value={value}
      onChange={(event) => onChange(event.currentTarget.value)}
    />
  );
}

function Tile({ entry, onOpen }: { entry: BulkEntry; onOpen: () => void }) {
  const { status, links, error, response, score } = entry;
  const found = countLabels(findingsOf(response ?? null));
  const summary = found.map(([label, count]) => (count > 1 ? `${count} ${label}` : label)).join(", ");
  return (
    <li>
      <button type="button" class="tile" onClick={onOpen}>
        {links.thumbnail && status === "succeeded" ? (
          <img src={resolveLink(links.thumbnail)} alt="" loading="lazy" />
        ) : (
          <span class={`no-picture ${status === "failed" ? "is-bad-text" : ""}`}>
            {error ? error.title : "no picture"}
          </span>
        )}
        <span class="tile-name">{nameOf(entry)}</span>
        <span class="tile-found">
          {status === "failed" ? <StatusMark status="failed" /> : summary || "nothing found"}
          {score !== null && <span class="quiet"> {score.toFixed(2)}</span>}
        </span>
      </button>
    </li>
  );
}

/** One entry, large. */
function EntryDialog(props: {
  run: BulkRun;
  index: string;
  known: BulkEntry | undefined;
  neighbours: { before?: string; after?: string };
  onOpen: (index: string) => void;
  onClose: () => void;
}) {
  const { run, index, known, neighbours, onOpen, onClose } = props;
  const dialog = useRef<HTMLDialogElement>(null);
  const path = known ? undefined : pathOf(["bulk", run.id, "entries", index]);
  const { data, error } = useAnswer<BulkEntry>(path);
  const entry = known ?? data;
  const [hovered, setHovered] = useState<number>();
  useEffect(() => dialog.current?.showModal(), []);
  useEffect(() => setHovered(undefined), [index]);
  const findings = findingsOf(entry?.response ?? null);
  return (
    <dialog
      ref={dialog}
      class="entry"
      aria-label={entry ? nameOf(entry) : "Entry"}
      onClose={onClose}
      onClick={(event) => {
        // The ground behind it is the dialog itself.
        if (event.target === dialog.current) dialog.current?.close();
      }}
      onKeyDown={(event) => {
        if (event.key === "ArrowLeft" && neighbours.before) onOpen(neighbours.before);
        if (event.key === "ArrowRight" && neighbours.after) onOpen(neighbours.after);
      }}
    >
      <div class="entry-content">
        <div class="row">
          <h2>{entry ? nameOf(entry) : `Entry ${index}`}</h2>
          {entry && <StatusMark status={entry.status} />}
          <span class="row end">
            <button
              type="button"
              disabled={!neighbours.before}
              onClick={() => neighbours.before && onOpen(neighbours.before)}
            >
              Previous
            </button>
            <button
              type="button"
              disabled={!neighbours.after}
              onClick={() => neighbours.after && onOpen(neighbours.after)}
            >
              Next
            </button>
            <button type="button" onClick={() => dialog.current?.close()}>
              Close
            </button>
          </span>
        </div>
        {error && <ErrorNote error={error} />}
        {entry?.error && <ErrorDetail error={entry.error} />}
        {entry?.links.picture && (
          <AnnotatedPicture
            src={resolveLink(entry.links.picture)}
            alt={nameOf(entry)}
            findings={findings}
            hovered={hovered}
            onHover={setHovered}
          />
        )}
        {entry && !entry.links.picture && entry.links.thumbnail && (
          <img src={resolveLink(entry.links.thumbnail)} alt={nameOf(entry)} />
        )}
        {findings.length > 0 && (
          <ul class="chips">
            {countLabels(findings).map(([label, count]) => (
              <li key={label} class="chip">
                <Swatch label={label} />
                {label} <span class="count">{count}</span>
              </li>
            ))}
          </ul>
        )}
        {entry?.timings && entry.duration_ms !== null && (
          <section class="timing">
            <h3>
              {formatDuration(entry.duration_ms)} <span class="quiet">in the engine</span>
            </h3>
            <PartsBar parts={partsOfTimings(entry.timings).slice(1)} label="Time in the engine" />
          </section>
        )}
        {entry?.response && <RawJson value={entry.response} />}
      </div>
    </dialog>
  );
}
