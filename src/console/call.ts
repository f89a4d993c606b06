/** One call of the API, and the same call as lines to copy: for a shell, JavaScript and Python. */

export interface FileOfCall {
  /** Its form field. */
  field: string;
  name: string;
  mediaType: string;
}

/** A submission. Of one file with plain settings the body is the file; else a form, or without files the dictionary. */
export interface Call {
  model: string;
  files: readonly FileOfCall[];
  /** Further keys of the request dictionary. */
  request: Readonly<Record<string, unknown>>;
}

export type BodyForm = "bytes" | "form" | "json";

export function bodyFormOf({ files, request }: Call): BodyForm {
  if (files.length === 0) return "json";
  const [{ field, mediaType }] = files as [FileOfCall];
  const isPlain = Object.values(request).every((value) => typeof value !== "object");
  const isDefault = field === "image" || mediaType.startsWith("audio/");
  return files.length === 1 && isPlain && isDefault && mediaType !== "" ? "bytes" : "form";
}

/** Below the server's address, with the settings that travel in the query. */
export function pathOfCall(call: Call): string {
  const query = new URLSearchParams();
  if (bodyFormOf(call) === "bytes") {
    for (const [key, value] of Object.entries(call.request)) query.set(key, String(value));
  }
  const path = `v1/models/${encodeURIComponent(call.model)}/predictions`;
  return query.size > 0 ? `${path}?${query.toString()}` : path;
}

export interface Snippet {
  title: string;
  code: string;
}

/** @param server its address, ending in "/"; @param isKeyed whether it wants an API key */
export function snippetsOf(call: Call, server: string, isKeyed: boolean): Snippet[] {
  return [
    { title: "curl", code: curl(call, server, isKeyed) },
    { title: "JavaScript", code: javascript(call, server, isKeyed) },
    { title: "Python", code: python(call, server, isKeyed) },
  ];
}

function curl(call: Call, server: string, isKeyed: boolean): string {
  const form = bodyFormOf(call);
  const parts = ["curl", "-H 'Prefer: wait=60'"];
  if (isKeyed) parts.push('-H "Authorization: Bearer $INFERMILL_API_KEY"');
  if (form === "bytes") {
    const [{ name, mediaType }] = call.files as [FileOfCall];
    parts.push(`-H ${shell(`Content-Type: ${mediaType}`)}`, `--data-binary ${shell(`@${name}`)}`);
  } else if (form === "form") {
    for (const { field, name, mediaType } of call.files) {
      // Commas and semicolons of a name mean something to curl unless it is quoted.
      const file = /[,;"\\]/.test(name) ? `"${name.replaceAll(/["\\]/g, String.raw`\$&`)}"` : name;
      parts.push(`-F ${shell(`${field}=@${file}${mediaType && `;type=${mediaType}`}`)}`);
    }
    // --form-string takes the value as it is, whatever it begins with.
    if (Object.keys(call.request).length > 0) {
      parts.push(`--form-string ${shell(`request=${JSON.stringify(call.request)}`)}`);
    }
  } else {
    parts.push("-H 'Content-Type: application/json'", `--data-binary ${shell(JSON.stringify(call.request))}`);
  }
  return `${[...parts, shell(server + pathOfCall(call))].join(" \\\n  ")}\n`;
}

function shell(word: string): string {
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

function javascript(call: Call, server: string, isKeyed: boolean): string {
  const form = bodyFormOf(call);
  const quote = (word: string) => JSON.stringify(word);
  const headers = ['Prefer: "wait=60"'];
  if (isKeyed) headers.push("Authorization: `Bearer ${process.env.INFERMILL_API_KEY}`");
  const lines: string[] = [];
  let body = "form";
  if (form !== "json") lines.push('import { readFile } from "node:fs/promises";', "");
  if (form === "bytes") {
    const [{ name, mediaType }] = call.files as [FileOfCall];
    headers.push(`"Content-Type": ${quote(mediaType)}`);
    body = `await readFile(${quote(name)})`;
  } else if (form === "form") {
    lines.push("const form = new FormData();");
    for (const { field, name, mediaType } of call.files) {
      const type = mediaType && `, { type: ${quote(mediaType)} }`;
      lines.push(
        `form.append(${quote(field)}, new Blob([await readFile(${quote(name)})]${type}), ${quote(name)});`,
      );
    }
    if (Object.keys(call.request).length > 0) {
      lines.push(`form.append("request", JSON.stringify(${JSON.stringify(call.request, null, 2)}));`);
    }
  } else {
    headers.push('"Content-Type": "application/json"');
    body = `JSON.stringify(${JSON.stringify(call.request, null, 2)})`;
  }
  lines.push(
    `const answer = await fetch(${quote(server + pathOfCall(call))}, {`,
    '  method: "POST",',
    `  headers: { ${headers.join(", ")} },`,
    `  body: ${indent(body, "  ")},`,
    "});",
    "const prediction = await answer.json();",
    "if (!answer.ok) throw new Error(prediction.detail);",
    "console.log(prediction.status, prediction.result ?? prediction.error);",
  );
  return `${lines.join("\n")}\n`;
}

function python(call: Call, server: string, isKeyed: boolean): string {
  const form = bodyFormOf(call);
  const imports = isKeyed ? ["import os", "", "import requests"] : ["import requests"];
  const headers = ['"Prefer": "wait=60"'];
  if (isKeyed) headers.push('"Authorization": f"Bearer {os.environ[\'INFERMILL_API_KEY\']}"');
  const path = `v1/models/${encodeURIComponent(call.model)}/predictions`;
  const parameters: string[] = [`    ${text(server + path)},`];
  const request = Object.keys(call.request).length > 0 ? literal(call.request, "    ") : undefined;
  if (form === "bytes") {
    const [{ name, mediaType }] = call.files as [FileOfCall];
    headers.push(`"Content-Type": ${text(mediaType)}`);
    // A query knows text only: True would arrive as "True".
    const words = Object.entries(call.request).map(([key, value]) => [
      key,
      typeof value === "boolean" ? String(value) : value,
    ]);
    if (request) parameters.push(`    params=${literal(Object.fromEntries(words), "    ")},`);
    parameters.push(`    data=open(${text(name)}, "rb"),`);
  } else if (form === "form") {
    parameters.push("    files=[");
    for (const { field, name, mediaType } of call.files) {
      const type = mediaType && `, ${text(mediaType)}`;
      parameters.push(`        (${text(field)}, (${text(name)}, open(${text(name)}, "rb")${type})),`);
    }
    parameters.push("    ],");
    if (request) {
      imports.unshift(...(isKeyed ? ["import json"] : ["import json", ""]));
      parameters.push(`    data={"request": json.dumps(${request})},`);
    }
  } else {
    parameters.push(`    json=${request ?? "{}"},`);
  }
  parameters.push(`    headers={${headers.join(", ")}},`, "    timeout=70,");
  return [
    ...imports,
    "",
    "answer = requests.post(",
    ...parameters,
    ")",
    "prediction = answer.json()",
    "if not answer.ok:",
    '    raise SystemExit(prediction["detail"])',
    'print(prediction["status"], prediction["result"] or prediction["error"])',
    "",
  ].join("\n");
}

/** JSON's strings are Python's, but for pairs of surrogates, which JSON.stringify leaves as they are. */
function text(value: string): string {
  return JSON.stringify(value);
}

/** A value as Python writes it. */
function literal(value: unknown, indentation: string): string {
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const inner = `${indentation}    `;
  const [open, close, items] = Array.isArray(value)
    ? ["[", "]", value.map((item) => literal(item, inner))]
    : ["{", "}", Object.entries(value).map(([key, item]) => `${text(key)}: ${literal(item, inner)}`)];
  const line = `${open}${items.join(", ")}${close}`;
  if (line.length <= 90 && !line.includes("\n")) return line;
  return `${open}\n${items.map((item) => `${inner}${item},\n`).join("")}${indentation}${close}`;
}

function indent(lines: string, by: string): string {
  return lines.replaceAll("\n", `\n${by}`);
}
