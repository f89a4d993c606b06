/** Webhook deliveries by status, those that were given up first. */
import { useState } from "preact/hooks";
import { pathOf, useAnswer } from "../api.ts";
import type { Deliveries } from "../answers.ts";
import { formatTime } from "../format.ts";
import { routeTo } from "../route.ts";
import { DeliveryList } from "../parts/deliveries.tsx";
import { ErrorNote, Loading, Message, MoreButton, Tabs } from "../parts/states.tsx";

const STATUSES = ["failed", "pending", "delivered", "skipped"] as const;
type DeliveryStatus = (typeof STATUSES)[number];
const PAGE_SIZE = 50;
/** What the API gives at a time. */
const MAX_LISTED = 1000;

const EMPTY: Record<DeliveryStatus, string> = {
  failed: "No dead delivery",
  pending: "Nothing waits to be delivered",
  delivered: "Nothing was delivered yet",
  skipped: "Nothing was skipped",
};

export function WebhooksPage({ query }: { query: URLSearchParams }) {
  const status = STATUSES.find((each) => each === query.get("status")) ?? "failed";
  const [limit, setLimit] = useState(PAGE_SIZE);
  const path = pathOf(["webhooks", "deliveries"], { status, limit });
  const { data, error, reload } = useAnswer<Deliveries>(path, { everyMs: 3000 });
  const countOf = (each: DeliveryStatus) => (each === "skipped" ? undefined : data?.counts[each]);
  return (
    <>
      <div class="page-head">
        <h1>Webhooks</h1>
        <Tabs
          label="Status"
          tabs={STATUSES.map((id) => ({ id, title: id === "failed" ? "dead" : id, count: countOf(id) }))}
          current={status}
          onChoose={(id) => {
            location.hash = routeTo(["webhooks"], { status: id });
          }}
        />
      </div>
      {!data && (error ? <ErrorNote error={error} onRetry={reload} /> : <Loading what="the deliveries" />)}
      {data?.gone.map(({ url, until }) => (
        <p key={url} class="note">
          <code class="url">{url}</code> answered 410 and is left alone until {formatTime(until)}; sending a
          delivery again gives it another chance.
        </p>
      ))}
      {data && data.deliveries.length === 0 && (
        <Message title={EMPTY[status]}>
          <p class="quiet">
            A submission with <code>webhook</code>, or <code>webhooks.url</code> of the configuration, has a
            URL notified when a prediction or a bulk run has ended.
          </p>
        </Message>
      )}
      {data && <DeliveryList deliveries={data.deliveries} onReplayed={reload} />}
      {data && data.next_cursor !== null && limit < MAX_LISTED && (
        <MoreButton label="Older ones" more={() => setLimit(Math.min(MAX_LISTED, limit + PAGE_SIZE))} />
      )}
    </>
  );
}
