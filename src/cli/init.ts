/** `infermill init`: a folder that `infermill start` serves: configuration, a loader or a model, a sample request, a README. */
import { existsSync } from "node:fs";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";
import sharp from "sharp";
import { loadConfig } from "../config/load.ts";
import { shellQuote } from "../core/shellQuote.ts";
import { urlSchemeOf } from "../core/urlScheme.ts";
import { ConfigError } from "../errors.ts";
import { checkLoaders } from "../loaders/openLoader.ts";
import { suggestLoaders, type Suggestion } from "../loaders/vision/suggestLoader.ts";
import { readModelFacts, type ModelFacts } from "../models/modelFacts.ts";
import { packageFolder } from "../models/packageFolder.ts";
import { findSamplePhoto } from "../models/samplePhotos.ts";
import { ModelSourceError, resolveModelPath } from "../models/sources.ts";
import { datatypeOf } from "../tensors/datatypes.ts";
import { countElements, isElementType } from "../tensors/tensor.ts";
import { ask } from "./ask.ts";
import { UsageError } from "./exit.ts";
import { toSection } from "./modelsInspect.ts";

const PACKAGE = fileURLToPath(new URL("../..", import.meta.url));
const CONFIG_FILE = "config/infermill.json";
/** Existing ones stay as they are: a project has its own. */
const KEPT: ReadonlySet<string> = new Set(["README.md", ".gitignore"]);

export interface InitOptions {
  python?: boolean;
  model?: string;
  yes?: boolean;
}

/** What a kind of start consists of. */
interface Starter {
  modelName: string;
  section: Record<string, unknown>;
  /** The loader's file, or the words of a built-in loader. */
  loaderLine: string;
  /** Name and bytes of the sample request. */
  sample: { name: string; type: string; content: Uint8Array };
  /** By path relative to the folder. */
  files: Record<string, string | Uint8Array>;
  /** What the command says beside what it writes. */
  notes: string[];
}

export async function init(givenFolder: string | undefined, given: InitOptions): Promise<void> {
  const { folder = ".", ...options } = await complete(givenFolder, given);
  if (options.python && options.model !== undefined)
    throw new UsageError(
      "--python and --model exclude each other: a model's file gets a built-in loader; for a loader of your own in Python leave --model out and open the file in its load()",
    );
  const root = path.resolve(folder);
  const starter =
    options.model !== undefined
      ? await startFromModel(options.model, root)
      : options.python
        ? await startFromPython()
        : await startFromTypeScript();
  const files = await allFiles(root, starter);
  refuseToOverwrite(root, files);

  const written: string[] = [];
  for (const [name, content] of Object.entries(files)) {
    const file = path.join(root, name);
    if (existsSync(file)) {
      starter.notes.push(`${name} is there already and stays as it is.`);
      continue;
    }
    await mkdir(path.dirname(file), { recursive: true });
    await writeFile(file, content, { flag: "wx" });
    written.push(name);
  }
  const place = path.relative(process.cwd(), root);
  console.log(`Wrote into ${root}:\n${written.map((name) => `  ${name}`).join("\n")}`);
  for (const note of starter.notes) console.log(`\n${note}`);
  await sayWhatIsLeft(path.join(root, CONFIG_FILE));
  const lines = [...(place === "" ? [] : [`cd ${shellQuote(place)}`]), "npx infermill start"];
  console.log(`\nNext:\n\n${lines.map((line) => `  ${line}`).join("\n")}\n\nREADME.md has a request to try.`);
}

/** Asks what the command line leaves open, where somebody is there to answer. */
async function complete(
  folder: string | undefined,
  options: InitOptions,
): Promise<InitOptions & { folder?: string | undefined }> {
  const isDecided = options.python || options.model !== undefined;
  if (options.yes || isDecided || !process.stdin.isTTY || !process.stdout.isTTY)
    return { ...options, folder };
  return ask(async (question) => {
    const answers = { ...options, folder: folder ?? ((await question("Folder", ".")) || undefined) };
    const model = await question("Model, an .onnx file or its address (empty: a loader of your own)", "");
    if (model !== "") return { ...answers, model };
    const language = await question("Loader in typescript or python", "typescript", /^(t|p)/i);
    return { ...answers, python: /^p/i.test(language) };
  });
}

async function startFromTypeScript(): Promise<Starter> {
  const loader = "SpotModelLoader";
  return {
    modelName: "Spot",
    section: { loader, model_loader_file: `../loaders/${loader}.ts` },
    loaderLine: `\`loaders/${loader}.ts\` is the loader: replace its \`predict\` with your model.`,
    sample: await drawnPicture(),
    files: { [`loaders/${loader}.ts`]: await template(`${loader}.ts`) },
    notes: [],
  };
}

async function startFromPython(): Promise<Starter> {
  const file = "loaders/words_model_loader.py";
  return {
    modelName: "Words",
    section: { loader: "WordsModelLoader", model_loader_file: `../${file}` },
    loaderLine: `\`${file}\` is the loader: replace its \`answer\` with your model; packages go into \`.venv\`.`,
    sample: jsonSample({ Text: "infermill counts these five words" }),
    files: { [file]: await template("words_model_loader.py") },
    notes: [],
  };
}

/** @throws UsageError where the file is none that onnxruntime runs */
async function startFromModel(source: string, root: string): Promise<Starter> {
  const file = await resolveModelPath(source, {
    baseDir: process.cwd(),
    dataDir: path.join(root, "data"),
    onProgress: ({ message }) => console.error(message),
  }).catch((error: unknown) => {
    throw error instanceof ModelSourceError ? new UsageError(`--model: ${error.message}`) : error;
  });
  const facts = await readModelFacts(file);
  if (!facts.graph)
    throw new UsageError(
      `--model: ${source} is no .onnx file, or one that is cut short; \`infermill init --python\` begins a loader for other formats`,
    );
  const [suggestion = ANY_GRAPH, ...others] = suggestLoaders(facts);
  const { name, section } = toSection(source, suggestion);
  const takesTensors = suggestion.loader === ANY_GRAPH.loader;
  return {
    modelName: name,
    section: { ...section, model_path: [pathInConfig(source, file, root)] },
    loaderLine: `The model is run by the built-in \`${suggestion.loader}\`; its options are in infermill's docs/configuration.md.`,
    sample: takesTensors ? jsonSample(zeros(facts)) : await samplePicture(),
    files: {},
    notes: notesOf(source, suggestion, others),
  };
}

/** Addresses stay; a file of this project is named relative to the configuration, so that both can be moved. */
function pathInConfig(source: string, file: string, root: string): string {
  if (urlSchemeOf(source) !== undefined) return source;
  const isNear = [root, process.cwd()].some((folder) => !path.relative(folder, file).startsWith(".."));
  return isNear ? path.relative(path.join(root, path.dirname(CONFIG_FILE)), file) : file;
}

/** Serves whatever nothing else fits. */
const ANY_GRAPH: Suggestion = {
  loader: "OnnxTensorModelLoader",
  settings: {},
  why: "it serves any graph as it is",
};

function notesOf(source: string, { loader, why, settings }: Suggestion, others: Suggestion[]): string[] {
  const notes = [`${source} gets the ${loader} (${why}), as \`infermill models inspect\` suggests.`];
  if (others.length > 0)
    notes.push(
      `What the file says fits others, too; look at the first results, and change the loader if they are wrong:\n` +
        others.map((other) => `  ${other.loader}: ${other.why}`).join("\n"),
    );
  if (settings["class_names"] === null)
    notes.push(
      'The file doesn\'t say its labels: add class_names to the configuration (a file, a list, ["coco"] or ["imagenet"]), or findings have class indices.',
    );
  return notes;
}

async function allFiles(root: string, starter: Starter): Promise<Record<string, string | Uint8Array>> {
  const schema = await schemaReference(root);
  const config = {
    $schema: schema.reference,
    host: "127.0.0.1",
    port: 8448,
    data_dir: "../data",
    models: { [starter.modelName]: starter.section },
  };
  return {
    [CONFIG_FILE]: `${JSON.stringify(config, null, 2)}\n`,
    ...schema.files,
    ...starter.files,
    [starter.sample.name]: starter.sample.content,
    "README.md": readme(path.basename(root), starter),
    ".gitignore": "data/\nnode_modules/\n.venv/\n",
  };
}

/** The schema of the package that the folder has; where it has none, as by `npx`, a copy. */
async function schemaReference(root: string): Promise<{ reference: string; files: Record<string, string> }> {
  const name = "config/infermill.schema.json";
  const installed = packageFolder("infermill", [root]);
  const configFolder = path.join(root, path.dirname(CONFIG_FILE));
  if (installed && existsSync(path.join(installed, name)))
    return { reference: path.relative(configFolder, path.join(installed, name)), files: {} };
  return {
    reference: "./infermill.schema.json",
    files: { [name]: await readFile(path.join(PACKAGE, name), "utf8") },
  };
}

function readme(title: string, { modelName, loaderLine, sample }: Starter): string {
  const url = `http://127.0.0.1:8448/v1/models/${modelName}/predictions`;
  return `# ${title}

Start infermill, then send it the sample request in another terminal:

\`\`\`bash
npx infermill start
\`\`\`

\`\`\`bash
curl -s -H 'Prefer: wait=30' -H 'Content-Type: ${sample.type}' --data-binary @${sample.name} ${url}
\`\`\`

${loaderLine}
\`config/infermill.json\` says what is served; \`npx infermill doctor\` says what this machine lacks.
`;
}

function refuseToOverwrite(root: string, files: Record<string, unknown>): void {
  const existing = Object.keys(files).filter((name) => !KEPT.has(name) && existsSync(path.join(root, name)));
  if (existing.length > 0)
    throw new UsageError(
      `${root} has ${existing.join(", ")} already, nothing was written; name another folder, or remove them first`,
    );
}

/** A configuration that can't be served as it is, such as one that lacks labels, says so now and not at its start. */
async function sayWhatIsLeft(file: string): Promise<void> {
  try {
    await loadConfig({ file, env: {}, check: checkLoaders });
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    console.log(`\nBefore it starts, the configuration needs:`);
    for (const { key, problem } of error.faults) console.log(`  ${key} ${problem}`);
  }
}

async function template(name: string): Promise<string> {
  return readFile(path.join(PACKAGE, "templates", name), "utf8");
}

/** An orange disc on blue. */
async function drawnPicture(): Promise<Starter["sample"]> {
  const disc =
    '<svg width="320" height="240"><rect width="320" height="240" fill="#1d3557"/><circle cx="200" cy="110" r="60" fill="#f4a261"/></svg>';
  return {
    name: "sample.png",
    type: "image/png",
    content: await sharp(Buffer.from(disc)).png({ palette: true }).toBuffer(),
  };
}

/** A photo where there is one; a detector finds nothing in a drawing. */
async function samplePicture(): Promise<Starter["sample"]> {
  const photo = findSamplePhoto("march-pastoral");
  return photo === undefined
    ? drawnPicture()
    : { name: "sample.jpg", type: "image/jpeg", content: await readFile(photo) };
}

function jsonSample(request: unknown): Starter["sample"] {
  const content = Buffer.from(`${JSON.stringify(request)}\n`);
  return { name: "request.json", type: "application/json", content };
}

/** A request with tensors of the shapes that the model takes; what it leaves free is 1. */
function zeros({ graph }: ModelFacts): unknown {
  return {
    inputs: graph!.inputs.map(({ name, type, shape }) => {
      const dims = (shape ?? [1]).map((dim) => (typeof dim === "number" && dim > 0 ? dim : 1));
      const datatype = isElementType(type) ? datatypeOf(type) : "FP32";
      const zero = datatype === "BYTES" ? "" : datatype === "BOOL" ? false : 0;
      return { name, datatype, shape: dims, data: Array.from({ length: countElements(dims) }, () => zero) };
    }),
  };
}
