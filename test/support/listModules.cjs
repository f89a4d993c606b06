/** For NODE_OPTIONS=--require: appends the CommonJS modules that a process has loaded to the file MODULES_FILE when it ends. */
const { appendFileSync } = require("node:fs");

process.on("exit", () => {
  appendFileSync(process.env.MODULES_FILE, `${Object.keys(require.cache).join("\n")}\n`);
});
