/**
 * Redis from the packages of Debian, Ubuntu and their relatives, unpacked into
 * the user's cache. Needs no root: apt-get fetches and verifies, dpkg-deb unpacks.
 */
import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { chmod, mkdir, mkdtemp, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { homedir } from "node:os";
import { basename, dirname, isAbsolute, join, relative } from "node:path";
import { promisify } from "node:util";
import { isRecentEnough, OLDEST_REDIS_VERSION } from "./check.ts";
import { findOnPath, readVersion, SERVER_NAMES } from "./programs.ts";

/** A slow line may need this long for the package lists. */
const APT_TIMEOUT_MS = 10 * 60_000;
const ABANDONED_AFTER_MS = 60 * 60_000;

/**
 * What of the server's dependencies can matter to the program itself: its
 * libraries and the -tools package that holds the binary. The rest (adduser,
 * init scripts) is for installing it as a service.
 */
const NEEDED_DEPENDENCY = /^(lib|lua-)|^(redis|valkey)-/;
/** Unpacked even where it is installed: the server is a link into the -tools package beside it. */
const SERVER_PACKAGE = /^(redis|valkey)-/;

interface Unpacked {
  /** A script that sets the library path and becomes the server. */
  command: string;
  folder: string;
  /** "Debian GNU/Linux 12 (bookworm)" */
  distribution: string;
}

/** Gives the server in the cache, after downloading it if it isn't there. */
export async function unpackDistributionRedis(options: {
  env: NodeJS.ProcessEnv;
  onProgress: (line: string) => void;
}): Promise<Unpacked> {
  const { env, onProgress } = options;
  const { key, distribution } = await describeDistribution();
  const folder = join(cacheFolder(env), key);
  const cached = unpackedCommand(folder);
  if (cached) return { command: cached, folder, distribution };

  const apt = await findApt(env);
  const work = await makeWorkFolder(folder);
  try {
    const packages = await downloadPackages(apt, work, (line) => onProgress(`${line} (${distribution})`));
    const tree = join(work, "tree");
    for (const file of packages) await apt.unpack(file, tree);
    const command = await writeStartScript(tree);
    await readVersion(command);
    await moveIntoPlace(tree, folder);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return { command: unpackedCommand(folder)!, folder, distribution };
}

function unpackedCommand(folder: string): string | undefined {
  return SERVER_NAMES.map((name) => join(folder, name)).find((file) => existsSync(file));
}

async function describeDistribution(): Promise<{ key: string; distribution: string }> {
  const text = await readFile("/etc/os-release", "utf8").catch(() => "");
  const field = (name: string) => new RegExp(`^${name}="?([^"\\n]*)`, "m").exec(text)?.[1];
  const id = field("ID") ?? process.platform;
  const release = field("VERSION_CODENAME") || field("VERSION_ID") || "unknown";
  return { key: `${id}-${process.arch}-${release}`, distribution: field("PRETTY_NAME") ?? id };
}

function cacheFolder(env: NodeJS.ProcessEnv): string {
  const named = env.XDG_CACHE_HOME;
  const cache = named && isAbsolute(named) ? named : join(env.HOME || homedir(), ".cache");
  return join(cache, "infermill", "redis");
}

/** A folder next to the final one, so that the result can be renamed; sweeps those of runs that were killed. */
async function makeWorkFolder(folder: string): Promise<string> {
  const parent = dirname(folder);
  const prefix = `${folder}.unpacking-`;
  try {
    await mkdir(parent, { recursive: true });
    for (const name of await readdir(parent)) {
      const path = join(parent, name);
      if (path.startsWith(prefix) && Date.now() - (await stat(path)).mtimeMs > ABANDONED_AFTER_MS)
        await rm(path, { recursive: true, force: true });
    }
    return await mkdtemp(prefix);
  } catch (error) {
    const { message } = error as Error;
    throw new Error(`the cache folder can't be written (${message}); set XDG_CACHE_HOME`, { cause: error });
  }
}

/** Another process may have been first; its result is as good as ours. */
async function moveIntoPlace(tree: string, folder: string): Promise<void> {
  try {
    await rename(tree, folder);
  } catch (error) {
    if (!unpackedCommand(folder)) throw error;
  }
}

/** Downloads by the machine's package lists; where these are missing or out of date, by lists of our own. */
async function downloadPackages(
  apt: Apt,
  work: string,
  onProgress: (line: string) => void,
): Promise<string[]> {
  const system = await writeAptConfiguration(work, "system", {});
  try {
    return await downloadBy(apt, system, work, onProgress);
  } catch {
    const lists = join(work, "lists");
    const cache = join(work, "cache");
    await mkdir(join(lists, "partial"), { recursive: true });
    await mkdir(join(cache, "archives", "partial"), { recursive: true });
    const own = await writeAptConfiguration(work, "own", { "Dir::State::Lists": lists, "Dir::Cache": cache });
    onProgress("Fetching the distribution's package lists, because this machine's have no usable Redis");
    // One unreachable third-party source fails the whole update; what counts is whether Redis is found.
    const updateFault = await apt.update(own).then(
      () => "",
      (error: Error) => `\napt-get update: ${error.message}`,
    );
    try {
      return await downloadBy(apt, own, work, onProgress);
    } catch (error) {
      throw new Error(`${(error as Error).message}${updateFault}`, { cause: error });
    }
  }
}

async function downloadBy(
  apt: Apt,
  configuration: string,
  work: string,
  onProgress: (line: string) => void,
): Promise<string[]> {
  const server = await choosePackage(apt, configuration);
  const installed = await apt.listInstalled();
  const wanted = new Set([server.name]);
  for (let level = [server]; level.length > 0;) {
    const missing = level
      .flatMap(({ dependencies }) => dependencies)
      .filter((name) => NEEDED_DEPENDENCY.test(name) && !wanted.has(name))
      .filter((name) => SERVER_PACKAGE.test(name) || !installed.has(name));
    for (const name of missing) wanted.add(name);
    level = missing.length > 0 ? await apt.show(configuration, missing) : [];
  }
  onProgress(`Downloading ${server.name} ${server.version} from the distribution's packages, once`);
  const folder = await mkdtemp(join(work, "packages-"));
  await apt.download(configuration, [...wanted], folder);
  return (await readdir(folder)).filter((file) => file.endsWith(".deb")).map((file) => join(folder, file));
}

async function choosePackage(apt: Apt, configuration: string): Promise<Package> {
  const packages = await apt.show(configuration, SERVER_NAMES);
  const recent = packages.find(({ version }) => isRecentEnough(version));
  if (recent) return recent;
  const offered = packages.map(({ name, version }) => `${name} ${version}`).join(", ") || "nothing";
  throw new Error(
    `expected ${SERVER_NAMES.join(" or ")} ${OLDEST_REDIS_VERSION} or newer, apt offers ${offered}`,
  );
}

/** The libraries lie within the unpacked tree, where no loader looks by itself. */
async function writeStartScript(tree: string): Promise<string> {
  const files = await readdir(tree, { recursive: true, withFileTypes: true });
  const libraryFolders = new Set(
    files
      .filter(({ name }) => /\.so(\.\d+)*$/.test(name))
      .map(({ parentPath }) => `$here/${relative(tree, parentPath)}`),
  );
  const server = SERVER_NAMES.find((name) => existsSync(join(tree, "usr/bin", name)));
  if (!server) throw new Error(`the packages hold neither ${SERVER_NAMES.join(" nor ")}`);
  const script = [
    "#!/bin/sh",
    'here="${0%/*}"',
    `export LD_LIBRARY_PATH="${[...libraryFolders].join(":")}\${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"`,
    `exec "$here/usr/bin/${server}" "$@"`,
  ];
  const command = join(tree, server);
  await writeFile(command, `${script.join("\n")}\n`);
  await chmod(command, 0o755);
  return command;
}

interface Package {
  name: string;
  /** Upstream's version: "7.0.15" of "5:7.0.15-1~deb12u10". */
  version: string;
  dependencies: string[];
}

interface Apt {
  show(configuration: string, names: readonly string[]): Promise<Package[]>;
  update(configuration: string): Promise<void>;
  download(configuration: string, names: readonly string[], folder: string): Promise<void>;
  listInstalled(): Promise<Set<string>>;
  unpack(file: string, tree: string): Promise<void>;
}

async function findApt(env: NodeJS.ProcessEnv): Promise<Apt> {
  const [aptGet, aptCache, dpkgQuery, dpkgDeb] = await Promise.all(
    ["apt-get", "apt-cache", "dpkg-query", "dpkg-deb"].map(async (name) => {
      const command = await findOnPath(name, env);
      if (!command) throw new Error(`${name} is not on the PATH`);
      return async (args: readonly string[], cwd?: string) => await run(command, args, env, cwd);
    }),
  );
  return {
    // Fails where one of the names is unknown, and prints the others all the same.
    show: async (configuration, names) =>
      parsePackages((await aptCache!(["-c", configuration, "show", "--no-all-versions", ...names])).stdout),
    update: async (configuration) => {
      const { failure } = await aptGet!(["-c", configuration, "-q", "update"]);
      if (failure) throw failure;
    },
    download: async (configuration, names, folder) => {
      const { failure } = await aptGet!(["-c", configuration, "-q", "download", ...names], folder);
      if (failure) throw failure;
    },
    listInstalled: async () => {
      const { stdout } = await dpkgQuery!(["-W", "-f", "${db:Status-Abbrev}${Package}\n"]);
      return new Set([...stdout.matchAll(/^ii (.*)$/gm)].map(([, name = ""]) => name));
    },
    unpack: async (file, tree) => {
      const { failure } = await dpkgDeb!(["-x", file, tree]);
      if (failure) throw failure;
    },
  };
}

function parsePackages(stanzas: string): Package[] {
  return (
    stanzas
      .split("\n\n")
      // What is installed but in no list has no Filename, and can't be downloaded.
      .filter((stanza) => /^Filename: /m.test(stanza))
      .map((stanza) => {
        const field = (name: string) => new RegExp(`^${name}: (.*)$`, "m").exec(stanza)?.[1] ?? "";
        return {
          name: field("Package"),
          version: /^(?:\d+:)?(\d+(?:\.\d+)*)/.exec(field("Version"))?.[1] ?? "",
          dependencies: [field("Pre-Depends"), field("Depends")].flatMap(dependencyNames),
        };
      })
      .filter(({ name }) => name !== "")
  );
}

/** "libc6 (>= 2.34), liba:any | libb" → libc6, liba: the first alternative is the distribution's choice. */
function dependencyNames(field: string): string[] {
  return field.split(",").flatMap((entry) => /^\s*([a-z0-9.+-]+)/.exec(entry)?.[1] ?? []);
}

/**
 * apt reads this file after the system's. Hooks of the system belong to its
 * own updates, and the user `_apt` that a root's apt-get becomes may not write
 * into a private cache.
 */
async function writeAptConfiguration(
  work: string,
  name: string,
  settings: Record<string, string>,
): Promise<string> {
  const all = {
    "APT::Sandbox::User": "root",
    "Acquire::Languages": "none",
    "Acquire::Retries": "2",
    "Acquire::http::Timeout": "30",
    ...settings,
  };
  const file = join(work, `${name}.conf`);
  const lines = Object.entries(all).map(([key, value]) => `${key} "${value}";`);
  const hooks = ["APT::Update::Pre-Invoke", "APT::Update::Post-Invoke", "APT::Update::Post-Invoke-Success"];
  await writeFile(file, [...hooks.map((hook) => `#clear ${hook};`), ...lines, ""].join("\n"));
  return file;
}

async function run(
  command: string,
  args: readonly string[],
  env: NodeJS.ProcessEnv,
  cwd?: string,
): Promise<{ stdout: string; failure?: Error }> {
  try {
    const { stdout } = await promisify(execFile)(command, args, {
      env: { ...env, LC_ALL: "C", DEBIAN_FRONTEND: "noninteractive" },
      timeout: APT_TIMEOUT_MS,
      maxBuffer: 64 * 1024 * 1024,
      ...(cwd && { cwd }),
    });
    return { stdout };
  } catch (error) {
    const { stdout = "", stderr = "", message } = error as Error & { stdout?: string; stderr?: string };
    const lastLines = stderr.trim().split("\n").slice(-5).join("\n") || message;
    return { stdout, failure: new Error(`${basename(command)} failed: ${lastLines}`, { cause: error }) };
  }
}
