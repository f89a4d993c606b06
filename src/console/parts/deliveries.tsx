/** Webhook deliveries with the log of their attempts. */
import { call, pathOf, useAction, useAnswer } from "../api.ts";
import type { Delivery } from "../answers.ts";
import { formatDuration, formatTime, plural } from "../format.ts";
import { routeTo } from "../route.ts";
import { useSession } from "../session.ts";
import { Ago, ErrorNote, StatusMark } from "./states.tsx";

/** What was sent of one thing's end; nothing while `path` is undefined, and where it has no webhook. */
export function Deliveries({ path }: { path: string | undefined }) {
  const { data, reload } = useAnswer<{ deliveries: Delivery[] }>(path, {
    everyMs: 3000,
    isDone: ({ deliveries }) => deliveries.every(({ status }) => status !== "pending"),
  });
  if (!data || data.deliveries.length === 0) return null;
  return (
    <section class="section">
      <h2>Webhook</h2>
      <DeliveryList deliveries={data.deliveries} onReplayed={reload} />
    </section>
  );
}

export function DeliveryList(props: { deliveries: readonly Delivery[]; onReplayed: () => void }) {
  return (
    <ul class="deliveries">
      {props.deliveries.map((delivery) => (
        <DeliveryItem key={delivery.id} delivery={delivery} onReplayed={props.onReplayed} />
      ))}
    </ul>
  );
}

function DeliveryItem({ delivery, onReplayed }: { delivery: Delivery; onReplayed: () => void }) {
  const { read_only: isReadOnly } = useSession();
  const { id, url, status, event, prediction, run, created_at, next_attempt_at, error, attempts } = delivery;
  const replay = useAction(async () => {
    await call(pathOf(["webhooks", "deliveries", id, "replay"]), { method: "POST" });
    onReplayed();
  });
  return (
    <li class="card">
      <div class="row">
        <StatusMark status={status} />
        <code class="url">{url}</code>
        {!isReadOnly && status !== "pending" && status !== "skipped" && (
          <button type="button" class="small" disabled={replay.isBusy} onClick={() => replay.run()}>
            Send again
          </button>
        )}
      </div>
      <p class="quiet">
        {event ?? "no event yet"}
        {prediction && (
          <>
            {" of "}
            <a href={routeTo(["predictions", prediction.model, prediction.id])}>
              <code>{prediction.id}</code>
            </a>
          </>
        )}
        {run && (
          <>
            {" of "}
            <a href={routeTo(["bulk", run])}>
              <code>{run}</code>
            </a>
          </>
        )}
        {" · "}
        <Ago at={created_at} />
        {next_attempt_at && ` · tried again ${formatTime(next_attempt_at)}`}
      </p>
      {error && <p class="row-error">{error}</p>}
      {attempts.length > 0 && (
        <details>
          <summary>{plural(attempts.length, "attempt")}</summary>
          <ol class="attempts">
            {attempts.map((attempt) => (
              <li key={attempt.at}>
                <time dateTime={attempt.at}>{formatTime(attempt.at)}</time>{" "}
                {attempt.status === null ? "no answer" : `HTTP ${attempt.status}`} in{" "}
                {formatDuration(attempt.ms)}
                {attempt.error && <span class="row-error">{attempt.error}</span>}
              </li>
            ))}
          </ol>
        </details>
      )}
      {replay.error && <ErrorNote error={replay.error} />}
    </li>
  );
}
