/** Whether servers and loops answer the same, whatever shape their answers have. */

/** Score of each label. A label that is found several times counts with its best. */
export type Findings = Map<string, number>;

/** Decoders and resizers differ a little; a wrong colour order, normalisation or label differs by more. */
const MAX_SCORE_DIFFERENCE = 0.04;
const MAX_NUMBER_DIFFERENCE = 0.01;

/** The findings of a text: `"Cs"` before `"Lb"` or after it, in JSON or in JSON within a string of JSON. */
export function findingsOf(text: string): Findings {
  const found: Findings = new Map();
  for (const [, inside] of text.replaceAll("\\", "").matchAll(/\{([^{}]*"Lb"[^{}]*)/g)) {
    const label = /"Lb":\s*"([^"]*)"/.exec(inside!)?.[1];
    const score = Number(/"Cs":\s*([\d.eE+-]+)/.exec(inside!)?.[1]);
    if (label !== undefined) found.set(label, Math.max(score, found.get(label) ?? 0));
  }
  return found;
}

/** A label that one of them doesn't find has at most the lowest score that findings have. @throws Error that names a finding that differs. */
export function checkFindings(who: string, found: Findings, expected: Findings, threshold: number): void {
  if (expected.size === 0) throw new Error("infermill finds nothing in the picture to compare with");
  for (const label of new Set([...found.keys(), ...expected.keys()])) {
    const [score, right] = [found.get(label) ?? threshold, expected.get(label) ?? threshold];
    if (!(Math.abs(score - right) <= MAX_SCORE_DIFFERENCE))
      throw new Error(`${who} finds ${label} with ${score}, infermill with ${right}`);
  }
}

/** The numbers of the longest list of numbers in a text of JSON. */
export function numbersOf(text: string): number[] {
  const lists = [...text.matchAll(/\[([\d\s.,eE+-]+)\]/g)].map(([, inside]) =>
    inside!.split(",").map(Number),
  );
  return lists.toSorted((a, b) => b.length - a.length)[0] ?? [];
}

/** @throws Error where lists of numbers differ. */
export function checkNumbers(who: string, found: readonly number[], expected: readonly number[]): void {
  if (expected.length === 0) throw new Error("infermill answers without numbers to compare with");
  const differs = (value: number, index: number) =>
    !(Math.abs(value - (found[index] ?? NaN)) <= MAX_NUMBER_DIFFERENCE);
  if (found.length !== expected.length || expected.some(differs))
    throw new Error(
      `${who} answers [${found.slice(0, 4).join(", ")}, …], infermill [${expected.slice(0, 4).join(", ")}, …]`,
    );
}
