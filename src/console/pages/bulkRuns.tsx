/** All bulk runs, and a form that starts one. */
import { useState } from "preact/hooks";
import { call, pathOf, useAction, useAnswer } from "../api.ts";
import type { BulkRun } from "../../core/bulkRun.ts";
import type { Model } from "../answers.ts";
import { PRIORITIES, type Priority } from "../../core/prediction.ts";
import { parseObject } from "../inputs.ts";
import { routeTo } from "../route.ts";
import { useSession } from "../session.ts";
import { InputField, KeysField, Select } from "../parts/fields.tsx";
import { RunTable } from "../parts/runTable.tsx";
import { ErrorNote, Loading, Message, MoreButton } from "../parts/states.tsx";

const PAGE_SIZE = 100;
/** What the API gives at a time. */
const MAX_LISTED = 1000;
const PRIORITY_NAMES = (Object.keys(PRIORITIES) as Priority[]).toReversed();

export function BulkRunsPage({ query }: { query: URLSearchParams }) {
  const { read_only: isReadOnly } = useSession();
  const [limit, setLimit] = useState(PAGE_SIZE);
  const path = pathOf(["bulk"], { limit });
  const { data, error, reload } = useAnswer<{ runs: BulkRun[] }>(path, { everyMs: 2000 });
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
      {data && data.runs.length === limit && limit < MAX_LISTED && (
        <MoreButton label="Older ones" more={() => setLimit(MAX_LISTED)} />
      )}
    </>
  );
}

function NewRunForm() {
  const { bulk_roots: roots } = useSession();
  const models = useAnswer<{ models: Model[] }>("v1/models").data?.models ?? [];
  const [model, setModel] = useState<string>();
  const [root, setRoot] = useState(roots[0] ?? "");
  const [folder, setFolder] = useState("");
  const [glob, setGlob] = useState("");
  const [threshold, setThreshold] = useState("");
  const [more, setMore] = useState("");
  const [priority, setPriority] = useState<Priority>("low");
  const [maxFailures, setMaxFailures] = useState("");
  const [deadline, setDeadline] = useState("");
  const name = model ?? models[0]?.name;
  const keys = parseObject(more);
  const start = useAction(async () => {
    const request = { ...(threshold !== "" && { C_threshold: Number(threshold) }), ...keys };
    const run = await call<BulkRun>("v1/bulk", {
      method: "POST",
      body: {
        model: name,
        folder: [root, folder]
          .map((part) => part.replaceAll(/^\/+|\/+$/g, ""))
          .filter(Boolean)
          .join("/"),
        ...(glob.trim() !== "" && { glob: glob.trim() }),
        ...(Object.keys(request).length > 0 && { request }),
        priority,
        ...(maxFailures !== "" && { max_failures: Number(maxFailures) }),
        ...(deadline !== "" && { deadline: 60 * Number(deadline) }),
      },
    });
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
      class="card"
      onSubmit={(event) => {
        event.preventDefault();
        start.run();
      }}
    >
      <div class="fields">
        <Select
          isField
          label="Model"
          value={name}
          options={models.map((each) => each.name)}
          onChoose={setModel}
        />
        <Select isField label="Root" value={root} options={roots} onChoose={setRoot} />
        <InputField
          label="Folder below it"
          type="text"
          placeholder="all of it"
          value={folder}
          onValue={setFolder}
        />
        <InputField
          label="Files"
          type="text"
          placeholder="whatever is a picture, or *.jpg"
          value={glob}
          onValue={setGlob}
        />
        <InputField
          label="Threshold"
          type="number"
          min="0"
          max="1"
          step="any"
          placeholder="the model's own"
          value={threshold}
          onValue={setThreshold}
        />
        <Select isField label="Priority" value={priority} options={PRIORITY_NAMES} onChoose={setPriority} />
        <InputField
          label="Failures that may be"
          type="number"
          min="0"
          step="1"
          placeholder="any number"
          value={maxFailures}
          onValue={setMaxFailures}
        />
        <InputField
          label="Deadline in minutes"
          type="number"
          min="1"
          step="1"
          placeholder="none"
          value={deadline}
          onValue={setDeadline}
        />
      </div>
      <KeysField value={more} onValue={setMore} />
      {start.error && <ErrorNote error={start.error} />}
      <div class="row">
        <button
          class="main"
          type="submit"
          disabled={start.isBusy || name === undefined || keys === undefined}
        >
          {start.isBusy ? "Starting …" : "Start"}
        </button>
        {keys === undefined && (
          <span class="outcome" role="status">
            The further keys are no JSON object yet.
          </span>
        )}
      </div>
    </form>
  );
}
