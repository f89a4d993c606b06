/** What a response holds, sorted by how it is shown. */
import type { Box, Finding } from "../imil/dictionaries.ts";
import type { Prediction } from "../core/prediction.ts";

/** A finding, and where it stands in its response. */
export interface Found extends Finding {
  index: number;
}

export type BoxedFinding = Found & { Dm: Box };

export function findingsOf(result: Prediction["result"]): Found[] {
  const list = result?.["Fs"];
  if (!Array.isArray(list)) return [];
  return (list as Finding[]).map((finding, index) => ({ ...finding, index }));
}

/** Which picture of the request it is of, from 0; a response to one picture doesn't say. */
export function pictureOf({ Info = "" }: Found): number | undefined {
  return /^\d+$/.test(Info) ? Number(Info) : undefined;
}

/** What else is said of it; undefined where that is nothing. */
export function noteOf(finding: Found): string | undefined {
  const picture = pictureOf(finding);
  return picture === undefined ? finding.Info || undefined : `number ${picture + 1} of the request`;
}

export function hasBox(finding: Found): finding is BoxedFinding {
  return finding.Dm !== undefined && "W" in finding.Dm;
}

/** Whether it stands anywhere in the picture. */
export function isDrawn(finding: Found): boolean {
  return hasBox(finding) || Boolean(finding.Rb ?? finding.Msk ?? finding.Kp);
}

export interface Filter {
  /** Labels that are left out. */
  hidden: ReadonlySet<string>;
  minScore: number;
}

export function applyFilter<F extends Found>(findings: readonly F[], { hidden, minScore }: Filter): F[] {
  return findings.filter(({ Lb, Cs }) => !hidden.has(Lb) && Cs >= minScore);
}

/** Labels by how often they were found, the most frequent first. */
export function countLabels(findings: readonly Found[]): [label: string, count: number][] {
  const counts = new Map<string, number>();
  for (const { Lb } of findings) counts.set(Lb, (counts.get(Lb) ?? 0) + 1);
  return [...counts].sort(([a, m], [b, n]) => n - m || a.localeCompare(b));
}

/** A tensor of a response, as the Open Inference Protocol writes it. */
export interface ResultTensor {
  name: string;
  datatype: string;
  shape: number[];
  data?: unknown[];
  url?: string;
}

export function tensorsOf(result: Prediction["result"]): ResultTensor[] {
  const list = result?.["outputs"];
  if (!Array.isArray(list)) return [];
  return (list as Partial<ResultTensor>[]).filter((each): each is ResultTensor =>
    Boolean(each?.name && each.shape),
  );
}

/** Keys of a response that have no view of their own here and are more than an echo of the request. */
const SHOWN_OR_ECHOED = new Set(
  "Fs outputs Mtp Obase_64 Img_url Rc Rm Tid Did Fid Ts Ts_ntp Msg_ver Inf_ver Ad Lfp Ffp Ltsize I_fn Prompt Hp model_name model_version id parameters".split(
    " ",
  ),
);

export function otherKeysOf(result: Prediction["result"]): [key: string, value: unknown][] {
  return Object.entries(result ?? {}).filter(([key]) => !SHOWN_OR_ECHOED.has(key));
}
