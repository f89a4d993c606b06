/** The console: the frame of its pages, and which of them is shown. */
import { render, type ComponentChildren } from "preact";
import { useEffect, useState } from "preact/hooks";
import { callErrorOf, useAnswer, whenUnauthorized, type CallError } from "./api.ts";
import type { Model, Session } from "./answers.ts";
import { parseRoute, routeTo, type Route } from "./route.ts";
import { readSession, SessionContext, signOut } from "./session.ts";
import { BulkRunPage } from "./pages/bulkRun.tsx";
import { BulkRunsPage } from "./pages/bulkRuns.tsx";
import { HomePage } from "./pages/home.tsx";
import { ModelPage } from "./pages/model.tsx";
import { ModelsPage } from "./pages/models.tsx";
import { PredictionPage } from "./pages/prediction.tsx";
import { PredictionsPage } from "./pages/predictions.tsx";
import { SignInPage } from "./pages/signIn.tsx";
import { WebhooksPage } from "./pages/webhooks.tsx";
import { ErrorNote, Loading, Message } from "./parts/states.tsx";

const PAGES = [
  { path: "models", title: "Models" },
  { path: "predictions", title: "Predictions" },
  { path: "bulk", title: "Bulk runs" },
  { path: "webhooks", title: "Webhooks" },
];

function Console() {
  const [session, setSession] = useState<Session>();
  const [error, setError] = useState<CallError>();
  const route = useRoute();
  const load = () => {
    readSession().then(
      (read) => {
        setError(undefined);
        setSession(read);
      },
      (reason: unknown) => setError(callErrorOf(reason)),
    );
  };
  useEffect(() => {
    whenUnauthorized(() =>
      setSession((last) => last && { ...last, authentication: "api_key", signed_in: false }),
    );
    load();
  }, []);

  if (error) return <ErrorNote error={error} onRetry={load} />;
  if (!session) return <Loading what="the console" />;
  const isIn = session.authentication === "none" || session.signed_in;
  return (
    <SessionContext value={session}>
      <Frame session={session} route={route} isIn={isIn} onSignOut={() => void signOut().finally(load)}>
        {isIn ? <Page key={route.parts.join("/")} route={route} /> : <SignInPage onSignedIn={load} />}
      </Frame>
    </SessionContext>
  );
}

function Page({ route: { parts, query } }: { route: Route }) {
  const [first, second, third] = parts;
  if (first === undefined) return <HomePage />;
  if (first === "models") return second === undefined ? <ModelsPage /> : <ModelPage name={second} />;
  if (first === "predictions") {
    return second !== undefined && third !== undefined ? (
      <PredictionPage model={second} id={third} />
    ) : (
      <PredictionsPage query={query} />
    );
  }
  if (first === "bulk") {
    return second === undefined ? <BulkRunsPage query={query} /> : <BulkRunPage id={second} query={query} />;
  }
  if (first === "webhooks") return <WebhooksPage query={query} />;
  return (
    <Message title="There is no such page">
      <a href={routeTo([])}>To the start</a>
    </Message>
  );
}

function Frame(props: {
  session: Session;
  route: Route;
  isIn: boolean;
  onSignOut: () => void;
  children: ComponentChildren;
}) {
  const { session, route, isIn, onSignOut, children } = props;
  const current = route.parts[0];
  useEffect(() => {
    const title = PAGES.find(({ path }) => path === current)?.title;
    document.title = [...route.parts.slice(1).toReversed(), title, "infermill"].filter(Boolean).join(" · ");
  }, [route]);
  return (
    <>
      <a class="skip" href="#content" onClick={skipToContent}>
        Skip to the content
      </a>
      <header class="top">
        <a class="brand" href={routeTo([])} aria-current={current === undefined ? "page" : undefined}>
          <svg viewBox="0 0 16 16" width="20" height="20" aria-hidden="true">
            <rect width="16" height="16" rx="3" class="brand-ground" />
            <rect x="3.5" y="4.5" width="9" height="7" class="brand-box" />
          </svg>
          infermill
        </a>
        {isIn && (
          <nav aria-label="Pages">
            {PAGES.map(({ path, title }) => (
              <a key={path} href={routeTo([path])} aria-current={current === path ? "page" : undefined}>
                {title}
              </a>
            ))}
          </nav>
        )}
        <div class="top-end">
          {isIn && <Health />}
          {session.read_only && (
            <span
              class="badge"
              title="The configuration's console.read_only: nothing can be started or changed here."
            >
              read-only
            </span>
          )}
          <a href="docs">API</a>
          <a href="dashboard">Queues</a>
          {session.authentication === "api_key" && isIn && (
            <button type="button" class="plain" onClick={onSignOut}>
              Sign out
            </button>
          )}
        </div>
      </header>
      <main id="content" tabIndex={-1}>
        {children}
      </main>
    </>
  );
}

/** Not as an address: that part of it says which page is shown. */
function skipToContent(event: Event): void {
  event.preventDefault();
  document.querySelector<HTMLElement>("#content")?.focus();
}

/** Whether all models are ready. */
function Health() {
  const { data, error } = useAnswer<{ models: Model[] }>("v1/models", { everyMs: 10_000 });
  if (error?.status === 0) return <span class="health is-bad">unreachable</span>;
  if (!data) return null;
  const ready = data.models.filter((model) => model.ready).length;
  const isReady = ready === data.models.length;
  return (
    <a class={`health ${isReady ? "is-good" : "is-warned"}`} href={routeTo(["models"])}>
      <span class="dot" aria-hidden="true" />
      {isReady ? "ready" : `${ready} of ${data.models.length} ready`}
    </a>
  );
}

function useRoute(): Route {
  const [hash, setHash] = useState(location.hash);
  useEffect(() => {
    const follow = () => {
      setHash(location.hash);
      window.scrollTo(0, 0);
    };
    window.addEventListener("hashchange", follow);
    return () => window.removeEventListener("hashchange", follow);
  }, []);
  return parseRoute(hash);
}

/** With a <base>, a link to "#/…" would leave a page whose address has a query. */
document.addEventListener("click", (event) => {
  const link = (event.target as Element | null)?.closest?.('a[href^="#/"]');
  if (!link || event.defaultPrevented || event.button !== 0) return;
  if (event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  location.hash = link.getAttribute("href")!;
});

render(<Console />, document.querySelector("#console")!);
