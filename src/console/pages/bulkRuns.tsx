/** All bulk runs, and a form that starts one. */
import { useState } from "preact/hooks";
import { call, useAction, useAnswer } from "../api.ts";
import type { BulkRun } from "../../core/bulkRun.ts";
import type { Model, NewBulkRun } from "../answers.ts";
import { PRIORITIES, type Priority } from "../../core/prediction.ts";
import { routeTo } from "../route.ts";
import { useSession } from "../session.ts";
import { RunTable } from "../parts/runTable.tsx";
import { ErrorNote, Loading, Message } from "../parts/states.tsx";

export function BulkRunsPage({ query }: { query: URLSearchParams }) {
  const { read_only: isReadOnly } = useSession();
  const { data, error, reload } = useAnswer<{ runs: BulkRun[] }>("v1/bulk", { everyMs: 2000 });
  const isNew = query.has("new");
  return (
    <>
      <div class="page-head">
        <h1>Bulk runs</h1>
        {!isReadOnly && (
          <a class="button" href={routeTo(["bulk"], { new: isNew ? undefined : "1" })} aria-expanded={isNew}>
            {isNew ? "Close" : "Start one"}
          </a>
        )}
        {error && data && <span class="badge is-bad">not up to date: {error.title}</span>}
      </div>
      {isNew && !isReadOnly && <NewRunForm />}
      {!data && (error ? <ErrorNote error={error} onRetry={reload} /> : <Loading what="the bulk runs" />)}
      {data && data.runs.length === 0 && !isNew && (
        <Message title="No bulk runs yet">
          <p>
            A bulk run is one model over every picture of a folder. Start one here, by the API, or with{" "}
            <code>infermill bulk</code> on the command line.
          </p>
        </Message>
      )}
      {data && data.runs.length > 0 && <RunTable runs={data.runs} />}
    </>
  );
}

function NewRunForm() {
  const { bulk_roots: roots } = useSession();
  const models = useAnswer<{ models: Model[] }>("v1/models").data?.models ?? [];
  const [model, setModel] = useState("");
  const [root, setRoot] = useState(roots[0] ?? "");
  const [folder, setFolder] = useState("");
  const [glob, setGlob] = useState("");
  const [threshold, setThreshold] = useState("");
  const [more, setMore] = useState("");
  const [priority, setPriority] = useState<Priority>("low");
  const start = useAction(async () => {
    const name = model === "" ? models[0]!.name : model;
    const request = requestOf(threshold, more);
    const spec: NewBulkRun = {
      model: name,
      folder: [root, folder]
        .map((part) => part.replaceAll(/^\/+|\/+$/g, ""))
        .filter(Boolean)
        .join("/"),
      ...(glob.trim() !== "" && { glob: glob.trim() }),
      ...(Object.keys(request).length > 0 && { request }),
      priority,
    };
    const run = await call<BulkRun>("v1/bulk", { method: "POST", body: spec });
    location.hash = routeTo(["bulk", run.id]);
  });
  if (roots.length === 0) {
    return (
      <Message title="No folder is open to bulk runs">
        <p>
          Name one in the configuration, such as <code>"bulk_roots": {'{ "photos": "/srv/photos" }'}</code>,
          and start infermill again. Every client may have the files in it read.
        </p>
      </Message>
    );
  }
  return (
    <form
      class="card new-run"
      onSubmit={(event) => {
        event.preventDefault();
        start.run();
      }}
    >
      <div class="fields">
        <label class="field">
          <span>Model</span>
          <select
            value={model === "" ? models[0]?.name : model}
            onChange={(event) => setModel(event.currentTarget.value)}
          >
            {models.map(({ name }) => (
              <option key={name} value={name}>
                {name}
              </option>
            ))}
          </select>
        </label>
        <label class="field">
          <span>Root</span>
          <select value={root} onChange={(event) => setRoot(event.currentTarget.value)}>
            {roots.map((name) => (
              <option key={name} value={name}>
                {name}
              </option>
            ))}
          </select>
        </label>
        <label class="field">
          <span>Folder below it</span>
          <input
            type="text"
            placeholder="all of it"
            value={folder}
            onInput={(event) => setFolder(event.currentTarget.value)}
          />
        </label>
        <label class="field">
          <span>Files</span>
          <input
            type="text"
            placeholder="whatever is a picture, or *.jpg"
            value={glob}
            onInput={(event) => setGlob(event.currentTarget.value)}
          />
        </label>
        <label class="field">
          <span>Threshold</span>
          <input
            type="number"
            min="0"
            max="1"
            step="any"
            placeholder="the model's own"
            value={threshold}
            onInput={(event) => setThreshold(event.currentTarget.value)}
          />
        </label>
        <label class="field">
          <span>Priority</span>
          <select value={priority} onChange={(event) => setPriority(event.currentTarget.value as Priority)}>
            {Object.keys(PRIORITIES)
              .toReversed()
              .map((name) => (
                <option key={name} value={name}>
                  {name}
                </option>
              ))}
          </select>
        </label>
      </div>
      <details>
        <summary>Further keys of the request</summary>
        <label class="field">
          <span>As JSON</span>
          <textarea
            class="code"
            rows={3}
            spellcheck={false}
            value={more}
            onInput={(event) => setMore(event.currentTarget.value)}
          />
        </label>
      </details>
      {start.error && <ErrorNote error={start.error} />}
      <div class="row actions">
        <button class="main" type="submit" disabled={start.isBusy || models.length === 0}>
          {start.isBusy ? "Starting …" : "Start"}
        </button>
      </div>
    </form>
  );
}

/** @throws SyntaxError where the further keys are no JSON */
function requestOf(threshold: string, more: string): Record<string, unknown> {
  return {
    ...(threshold !== "" && { C_threshold: Number(threshold) }),
    ...(more.trim() !== "" && (JSON.parse(more) as Record<string, unknown>)),
  };
}
