/** What stands where there is nothing to show (yet), and small marks. */
import type { ComponentChildren } from "preact";
import { useState } from "preact/hooks";
import type { CallError } from "../api.ts";
import { formatAgo, formatTime, splitDetail } from "../format.ts";

export function Loading({ what }: { what: string }) {
  return (
    <p class="loading" role="status">
      Loading {what} …
    </p>
  );
}

/** An empty place, with what to do about it. */
export function Message({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="message">
      <h2>{title}</h2>
      {children}
    </div>
  );
}

/** Why a call was refused. Faults of several keys are listed one by one. */
export function ErrorNote({ error, onRetry }: { error: CallError; onRetry?: () => void }) {
  const faults = error.problem.errors ?? [];
  return (
    <div class="note is-bad" role="alert">
      <strong>{error.title}</strong>
      {faults.length > 0 ? (
        <ul>
          {faults.map(({ key, problem }) => (
            <li key={key}>
              <code>{key}</code> {problem}
            </li>
          ))}
        </ul>
      ) : (
        error.message !== error.title && <p>{error.message}</p>
      )}
      {onRetry && (
        <button type="button" onClick={onRetry}>
          Try again
        </button>
      )}
    </div>
  );
}

/** What went wrong in a prediction or a run, with a stack folded. */
export function ErrorDetail({ error }: { error: { code: string; title: string; detail: string } }) {
  const { head, rest } = splitDetail(error.detail);
  return (
    <div class="note is-bad">
      <strong>{error.title}</strong> <code>{error.code}</code>
      <p class="detail">{head}</p>
      {rest !== "" && (
        <details>
          <summary>{/^\s+at |^Traceback/.test(rest) ? "Stack" : "More"}</summary>
          <pre tabIndex={0}>{rest}</pre>
        </details>
      )}
    </div>
  );
}

const TONES: Record<string, string> = {
  succeeded: "good",
  completed: "good",
  ready: "good",
  delivered: "good",
  running: "busy",
  walking: "busy",
  loading: "busy",
  restarting: "busy",
  failed: "bad",
  expired: "bad",
  "no worker": "bad",
};

export function StatusMark({ status }: { status: string }) {
  return <span class={`status is-${TONES[status] ?? "quiet"}`}>{status}</span>;
}

/** A button that copies a text. Browsers allow that on pages of https and of this machine only; elsewhere there is none. */
export function CopyButton({ text, label = "Copy" }: { text: string; label?: string }) {
  const [isCopied, setCopied] = useState(false);
  if (!("clipboard" in navigator)) return null;
  const copy = () => {
    void navigator.clipboard.writeText(text).then(() => {
      setCopied(true);
      setTimeout(() => setCopied(false), 1500);
    });
  };
  return (
    <button type="button" class="small" onClick={copy}>
      <span aria-live="polite">{isCopied ? "Copied" : label}</span>
    </button>
  );
}

/** Something that is done only once it was confirmed in its place. */
export function ConfirmButton(props: {
  label: string;
  question: string;
  isDisabled?: boolean;
  onConfirm: () => void;
}) {
  const [isAsked, setAsked] = useState(false);
  if (!isAsked) {
    return (
      <button type="button" disabled={props.isDisabled} onClick={() => setAsked(true)}>
        {props.label}
      </button>
    );
  }
  const confirm = () => {
    setAsked(false);
    props.onConfirm();
  };
  return (
    <span class="confirm" role="group" aria-label={props.question}>
      {props.question}
      <button type="button" class="is-danger" onClick={confirm}>
        {props.label}
      </button>
      <button type="button" onClick={() => setAsked(false)}>
        No
      </button>
    </span>
  );
}

/** How long ago a time is. */
export function Ago({ at }: { at: string }) {
  return (
    <time dateTime={at} title={formatTime(at)}>
      {formatAgo(at)}
    </time>
  );
}

/** Below a list that comes in pages. */
export function MoreButton(props: {
  label: string;
  more: (() => void) | undefined;
  isLoadingMore?: boolean;
  moreError?: CallError | undefined;
}) {
  const { label, more, isLoadingMore = false, moreError } = props;
  return (
    <>
      {moreError && <ErrorNote error={moreError} />}
      {more && (
        <p class="row centred">
          <button type="button" disabled={isLoadingMore} onClick={more}>
            {isLoadingMore ? "Loading …" : label}
          </button>
        </p>
      )}
    </>
  );
}

/** Choices of which one holds. */
export function Tabs<T extends string>(props: {
  label: string;
  tabs: readonly { id: T; title: string; count?: number | undefined }[];
  current: T;
  onChoose: (id: T) => void;
}) {
  return (
    <div class="tabs" role="group" aria-label={props.label}>
      {props.tabs.map(({ id, title, count }) => (
        <button key={id} type="button" aria-pressed={id === props.current} onClick={() => props.onChoose(id)}>
          {title}
          {count !== undefined && <span class="count">{count}</span>}
        </button>
      ))}
    </div>
  );
}
