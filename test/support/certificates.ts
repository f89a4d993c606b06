/** An authority of a test's own, and what it signed: for a server, a client, and one that has expired. */
import { execFileSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { isOnPath } from "./redis.ts";

/** Why no certificates can be made here, or undefined; for `test.skipIf`. */
export const whyNoOpenssl = isOnPath("openssl") ? undefined : "needs openssl on the PATH";

/** The name that the server's certificate has, and no other. */
export const SERVER_NAME = "redis.test";

/** Writes ca, server, client and expired, each as .crt and .key, and other.crt, an authority that signed none of them. */
export function makeCertificates(folder: string): void {
  mkdirSync(folder, { recursive: true });
  const openssl = (...args: string[]) => execFileSync("openssl", args, { cwd: folder, stdio: "pipe" });
  const ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
  for (const authority of ["ca", "other"])
    openssl(
      "req",
      "-x509",
      ...ec,
      "-keyout",
      `${authority}.key`,
      "-out",
      `${authority}.crt`,
      "-days",
      "2",
      "-subj",
      `/CN=${authority}`,
    );
  writeFileSync(`${folder}/names`, `subjectAltName=DNS:${SERVER_NAME}\n`);
  for (const [name, days] of [
    ["server", "2"],
    ["client", "2"],
    // openssl takes a negative number for one that is over.
    ["expired", "-1"],
  ] as const) {
    openssl("req", ...ec, "-keyout", `${name}.key`, "-out", `${name}.csr`, "-subj", `/CN=${name}`);
    openssl(
      "x509",
      "-req",
      "-in",
      `${name}.csr`,
      "-CA",
      "ca.crt",
      "-CAkey",
      "ca.key",
      "-CAcreateserial",
      "-days",
      days,
      "-extfile",
      "names",
      "-out",
      `${name}.crt`,
    );
  }
}
