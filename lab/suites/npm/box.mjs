// Uses boxlite's package for Node as far as its first argument says: load, open, create or start.
//
// The second argument has the options as JSON: home, rootfs, registry (HOST:PORT) and security. Each step that is
// done prints a line of JSON; a box that was started runs until standard input ends.

import { JsBoxlite } from "@boxlite-ai/boxlite";

const STEPS = ["load", "open", "create", "start"];
const last = STEPS.indexOf(process.argv[2]);
const options = JSON.parse(process.argv[3] ?? "{}");

function say(what) {
  process.stdout.write(JSON.stringify(what) + "\n");
}

function open() {
  const images = { host: options.registry, transport: "http", search: true };
  return new JsBoxlite({ homeDir: options.home, ...(options.registry && { imageRegistries: [images] }) });
}

function create(runtime) {
  const small = { rootfsPath: options.rootfs, cpus: 1, memoryMib: 256, autoRemove: true };
  return runtime.create({ ...small, ...(options.security && { security: options.security }) });
}

async function echo(box) {
  const execution = await box.exec("echo", ["jailer-test"]);
  const stdout = await execution.stdout();
  let output = "";
  for (let chunk = await stdout.next(); chunk !== null; chunk = await stdout.next()) output += chunk;
  const { exitCode } = await execution.wait();
  return { exitCode, output: output.trim() };
}

async function main() {
  say({ loaded: typeof JsBoxlite });
  if (last < 1) return;
  const runtime = open();
  if (last < 2) return;
  const box = await create(runtime);
  say({ id: box.id });
  if (last < 3) return;
  await box.start();
  say(await echo(box));
  for await (const _ of process.stdin);
  await box.stop();
}

main().then(
  () => process.exit(0),
  (error) => {
    // boxlite's message has all that it says; where it was thrown is native code.
    console.error(error.message);
    process.exit(1);
  },
);
