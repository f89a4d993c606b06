/** What a prediction answered, each part as what it is: findings over the picture, scores, vectors, texts, pictures, tensors. */
import { useMemo, useState } from "preact/hooks";
import { labelColour } from "../../annotate/labelColour.ts";
import type { Prediction } from "../../core/prediction.ts";
import { resolveLink } from "../api.ts";
import {
  applyFilter,
  countLabels,
  findingsOf,
  isDrawn,
  noteOf,
  otherKeysOf,
  pictureOf,
  tensorsOf,
  type Found,
  type ResultTensor,
} from "../findings.ts";
import { formatBytes, formatDuration, plural } from "../format.ts";
import { partsOfTimings, PartsBar } from "./charts.tsx";
import { AnnotatedPicture } from "./picture.tsx";
import { CopyButton, ErrorDetail } from "./states.tsx";

const MAX_LISTED = 200;

export interface ShownPicture {
  src: string;
  name: string;
  /** A thumbnail: enlarged, so that what is drawn over it can be read. */
  isSmall?: boolean;
}

export function PredictionResult({
  prediction,
  pictures,
}: {
  prediction: Prediction;
  pictures: readonly ShownPicture[];
}) {
  const { result, error, timings } = prediction;
  const findings = useMemo(() => findingsOf(result), [result]);
  const tensors = tensorsOf(result);
  // A model that makes pictures or tensors finds nothing, and that is no news.
  const isFinder = Array.isArray(result?.["Fs"]) && !hasOutputs(prediction);
  const hasVector = findings.some(({ Vector }) => Vector !== undefined);
  return (
    <div class="result">
      {error && <ErrorDetail error={error} />}
      {(pictures.length > 0 || findings.length > 0) && (
        <Findings findings={findings} pictures={pictures} isAnswered={isFinder || findings.length > 0} />
      )}
      <Outputs prediction={prediction} />
      {tensors
        .filter(({ name }) => !(hasVector && name === "embedding"))
        .map((tensor) => (
          <TensorView key={tensor.name} tensor={tensor} />
        ))}
      {otherKeysOf(result).map(([key, value]) => (
        <OtherKey key={key} name={key} value={value} />
      ))}
      {timings && <Timing prediction={prediction} />}
      {result && <RawJson value={result} />}
    </div>
  );
}

function hasOutputs({ outputs, result }: Prediction): boolean {
  const inside = result?.["Obase_64"];
  return outputs.length > 0 || (Array.isArray(inside) && inside.length > 0);
}

/** Pictures, and beside them what was found, to be narrowed by label and score. */
function Findings(props: {
  findings: readonly Found[];
  pictures: readonly ShownPicture[];
  isAnswered: boolean;
}) {
  const { findings, pictures, isAnswered } = props;
  const [hidden, setHidden] = useState<ReadonlySet<string>>(new Set());
  const [minScore, setMinScore] = useState(0);
  const [hovered, setHovered] = useState<number>();
  const shown = applyFilter(findings, { hidden, minScore });
  const toggle = (label: string) => {
    const next = new Set(hidden);
    if (!next.delete(label)) next.add(label);
    setHidden(next);
  };
  const hasPicture = pictures.length > 0;
  return (
    <div class={hasPicture ? "findings has-picture" : "findings"}>
      {hasPicture && (
        <div class={pictures.length > 1 ? "pictures are-many" : "pictures"}>
          {pictures.map(({ src, name, isSmall = false }, index) => (
            <AnnotatedPicture
              key={src}
              src={src}
              isSmall={isSmall}
              alt={name}
              findings={
                pictures.length === 1 ? shown : shown.filter((each) => (pictureOf(each) ?? 0) === index)
              }
              hovered={hovered}
              onHover={setHovered}
            />
          ))}
        </div>
      )}
      {isAnswered && (
        <div class="found-list">
          <h3>
            {findings.length === 0 ? "Nothing was found" : plural(findings.length, "finding")}
            {shown.length < findings.length && <span class="quiet"> · {shown.length} shown</span>}
          </h3>
          {findings.length === 0 && (
            <p class="quiet">
              The model answered, and there was nothing at or above its threshold. A lower threshold may show
              more.
            </p>
          )}
          {findings.length > 1 && (
            <FindingFilter
              findings={findings}
              hidden={hidden}
              onToggle={toggle}
              minScore={minScore}
              onMinScore={setMinScore}
            />
          )}
          <FindingList findings={shown} hovered={hovered} onHover={setHovered} />
        </div>
      )}
    </div>
  );
}

function FindingFilter(props: {
  findings: readonly Found[];
  hidden: ReadonlySet<string>;
  onToggle: (label: string) => void;
  minScore: number;
  onMinScore: (score: number) => void;
}) {
  const { findings, hidden, onToggle, minScore, onMinScore } = props;
  const labels = countLabels(findings);
  return (
    <div class="filter">
      {labels.length > 1 && (
        <div class="chips" role="group" aria-label="Labels">
          {labels.slice(0, 30).map(([label, count]) => (
            <button
              key={label}
              type="button"
              class="chip"
              aria-pressed={!hidden.has(label)}
              onClick={() => onToggle(label)}
            >
              <Swatch label={label} />
              {label} <span class="count">{count}</span>
            </button>
          ))}
        </div>
      )}
      <label class="slider">
        <span>Score from</span>
        <input
          type="range"
          min="0"
          max="1"
          step="0.01"
          value={minScore}
          onInput={(event) => onMinScore(event.currentTarget.valueAsNumber)}
        />
        <output>{minScore.toFixed(2)}</output>
      </label>
    </div>
  );
}

export function Swatch({ label }: { label: string }) {
  return (
    <svg class="swatch" viewBox="0 0 10 10" width="10" height="10" aria-hidden="true">
      <rect width="10" height="10" rx="2" fill={labelColour(label)} />
    </svg>
  );
}

function FindingList(props: {
  findings: readonly Found[];
  hovered: number | undefined;
  onHover: (index: number | undefined) => void;
}) {
  const { findings, hovered, onHover } = props;
  const listed = findings.slice(0, MAX_LISTED);
  return (
    <>
      <ul class="found-rows" onPointerLeave={() => onHover(undefined)}>
        {listed.map((finding) => (
          <li
            key={finding.index}
            class={finding.index === hovered ? "is-hovered" : ""}
            onPointerEnter={() => onHover(finding.index)}
          >
            <FindingRow finding={finding} onHover={onHover} />
            {finding.Vector && <VectorView values={finding.Vector} />}
          </li>
        ))}
      </ul>
      {findings.length > listed.length && (
        <p class="quiet">and {findings.length - listed.length} more, in the response below</p>
      )}
    </>
  );
}

function FindingRow({ finding, onHover }: { finding: Found; onHover: (index: number | undefined) => void }) {
  const { Lb, Cs, Value: value } = finding;
  const content = (
    <>
      <Swatch label={Lb} />
      <span class="found-label">{Lb === "" ? <em>no text</em> : Lb}</span>
      {value === undefined ? (
        <>
          <svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
            <rect width={Math.max(0, Math.min(1, Cs)) * 100} height="10" fill={labelColour(Lb)} />
          </svg>
          <span class="found-score">{Cs.toFixed(2)}</span>
        </>
      ) : (
        <strong class="found-value">{shortened(value)}</strong>
      )}
    </>
  );
  const title = noteOf(finding);
  if (!isDrawn(finding)) {
    return (
      <span class="found-row" title={title}>
        {content}
      </span>
    );
  }
  return (
    <button
      type="button"
      class="found-row"
      title={title}
      onFocus={() => onHover(finding.index)}
      onBlur={() => onHover(undefined)}
    >
      {content}
    </button>
  );
}

/** A vector as a strip of its values, with its length and its first numbers. */
function VectorView({ values }: { values: readonly number[] }) {
  const max = Math.max(...values.map(Math.abs), 1e-9);
  const norm = Math.hypot(...values);
  const width = 100 / values.length;
  return (
    <figure class="vector">
      <svg viewBox="0 0 100 20" preserveAspectRatio="none" role="img" aria-label={`${values.length} numbers`}>
        {values.map((value, index) => {
          const height = (Math.abs(value) / max) * 10;
          return (
            <rect
              key={index}
              class={value < 0 ? "is-negative" : ""}
              x={index * width}
              y={value < 0 ? 10 : 10 - height}
              width={width}
              height={height}
            />
          );
        })}
      </svg>
      <figcaption>
        <span>
          {plural(values.length, "dimension")}, length {norm.toFixed(3)}
        </span>
        <code>
          [
          {values
            .slice(0, 4)
            .map((value) => value.toFixed(4))
            .join(", ")}
          , …]
        </code>
        <CopyButton text={JSON.stringify(values)} />
      </figcaption>
    </figure>
  );
}

/** Bytes beside the response: pictures as pictures, sounds as sounds, else to download. */
function Outputs({ prediction: { outputs, result } }: { prediction: Prediction }) {
  const tensors = new Set(tensorsOf(result).map(({ name }) => name));
  const beside = outputs.filter(({ name }) => !tensors.has(name));
  const inside = Array.isArray(result?.["Obase_64"]) ? (result["Obase_64"] as string[]) : [];
  if (beside.length === 0 && inside.length === 0) return null;
  return (
    <div class="outputs">
      {beside.map(({ name, media_type, bytes, url }) => (
        <figure key={name} class="output">
          {media_type.startsWith("image/") && <img src={resolveLink(url)} alt={name} />}
          {media_type.startsWith("audio/") && <audio controls src={resolveLink(url)} />}
          <figcaption>
            <a href={resolveLink(url)} download={name}>
              {name}
            </a>
            <span class="quiet">
              {media_type}, {formatBytes(bytes)}
            </span>
          </figcaption>
        </figure>
      ))}
      {inside.map((picture, index) => (
        <figure key={index} class="output">
          <img
            src={picture.startsWith("data:") ? picture : `data:${pictureType(picture)};base64,${picture}`}
            alt={`output ${index + 1}`}
          />
        </figure>
      ))}
    </div>
  );
}

/** By the first bytes, as base64 writes them. */
function pictureType(base64: string): string {
  if (base64.startsWith("/9j/")) return "image/jpeg";
  return base64.startsWith("UklG") ? "image/webp" : "image/png";
}

function TensorView({ tensor }: { tensor: ResultTensor }) {
  const { name, datatype, shape, data, url } = tensor;
  const flat: unknown[] = data?.flat(Infinity) ?? [];
  const isVector = flat.length > 16 && flat.length <= 8192 && isNumbers(flat);
  return (
    <section class="tensor">
      <h3>
        <code>{name}</code>{" "}
        <span class="quiet">
          {datatype} [{shape.join(", ")}]
        </span>
      </h3>
      {isVector && <VectorView values={flat} />}
      {data && !isVector && <pre tabIndex={0}>{previewOf(flat)}</pre>}
      {!data && url && (
        <a href={resolveLink(url)} download={name}>
          download the raw bytes
        </a>
      )}
    </section>
  );
}

function isNumbers(values: unknown[]): values is number[] {
  return values.every((value) => typeof value === "number");
}

/** As many digits as a float32 holds. */
function shortened(value: number): number {
  return Number(value.toPrecision(7));
}

const MAX_PREVIEWED = 200;

function previewOf(flat: readonly unknown[]): string {
  const shown = flat
    .slice(0, MAX_PREVIEWED)
    .map((value) => (typeof value === "number" ? shortened(value) : JSON.stringify(value)));
  return `[${shown.join(", ")}${flat.length > MAX_PREVIEWED ? `, … ${flat.length} in all` : ""}]`;
}

function OtherKey({ name, value }: { name: string; value: unknown }) {
  return (
    <section class="tensor">
      <h3>
        <code>{name}</code>
      </h3>
      {typeof value === "string" ? (
        <p class="text-answer">{value}</p>
      ) : (
        <pre tabIndex={0}>{JSON.stringify(value, null, 2)}</pre>
      )}
    </section>
  );
}

function Timing({ prediction: { timings, batch_size, engine } }: { prediction: Prediction }) {
  const parts = partsOfTimings(timings!);
  const total = parts.reduce((sum, { ms }) => sum + ms, 0);
  return (
    <section class="timing">
      <h3>
        {formatDuration(total)}
        <span class="quiet">
          {batch_size !== null && ` · batch of ${batch_size}`}
          {engine && ` · ${engine}`}
        </span>
      </h3>
      <PartsBar parts={parts} label="Time" />
    </section>
  );
}

const MAX_RAW = 20_000;

export function RawJson({ value, title = "Response" }: { value: unknown; title?: string }) {
  const text = useMemo(() => JSON.stringify(value, null, 2), [value]);
  return (
    <details class="raw">
      <summary>{title} as JSON</summary>
      <CopyButton text={text} />
      <pre tabIndex={0}>{text.length > MAX_RAW ? `${text.slice(0, MAX_RAW)}\n…` : text}</pre>
    </details>
  );
}
