/** Whether a model is ready, and if not, why and what to do. */
import { call, pathOf, useAction } from "../api.ts";
import type { Model } from "../answers.ts";
import { useSession } from "../session.ts";
import { splitDetail } from "../format.ts";
import { ErrorNote } from "./states.tsx";

/** As people write it. */
export function stateOf({ state }: Model): "ready" | "loading" | "failed" | "no worker" {
  return state === "no_worker" ? "no worker" : state;
}

/** Of one that is not ready. */
export function ModelState({ model, onLoad }: { model: Model; onLoad?: () => void }) {
  const { read_only: isReadOnly } = useSession();
  const state = stateOf(model);
  const load = useAction(async () => {
    await call(pathOf(["models", model.name, "load"]), { method: "POST" });
    onLoad?.();
  });
  const { head, rest } = splitDetail(model.reason ?? "");
  return (
    <div class={`note ${state === "loading" ? "is-busy" : "is-bad"}`} role="status">
      <strong>
        {model.name}{" "}
        {state === "loading" ? "is loading" : state === "failed" ? "failed to load" : "has no worker"}
      </strong>
      {head && <p class="detail">{head}</p>}
      {rest && (
        <details>
          <summary>More</summary>
          <pre tabIndex={0}>{rest}</pre>
        </details>
      )}
      {model.advice && <p>What to do: {model.advice}</p>}
      {state === "failed" && !isReadOnly && (
        <button type="button" disabled={load.isBusy} onClick={() => load.run()}>
          Load it again
        </button>
      )}
      {load.error && <ErrorNote error={load.error} />}
    </div>
  );
}
