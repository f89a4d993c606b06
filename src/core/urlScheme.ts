/** The scheme of a text that is a URL, in lower case: "s3" of "s3://bucket"; undefined for a path. */
export function urlSchemeOf(text: string): string | undefined {
  return /^([a-z][a-z0-9+.-]*):\/\//i.exec(text)?.[1]?.toLowerCase();
}
