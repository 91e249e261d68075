// A stand-in for boxlite's command line program, over boxlite's native package for Node. It takes the options that
// the suite `cli` gives to the real program, under the names that upstream's sources have, and no others.
"use strict";
const fs = require("fs");
const path = require("path");

const VERSION = require("./package.json").version;
// The number of values that each option takes.
const OPTIONS = {
  "--home": 1, "--config": 1, "--cpus": 1, "--memory": 1, "--rootfs": 1, "--security": 1,
  "--rm": 0, "--detach": 0, "--force": 0,
};

function parse(words) {
  const found = { words: [] };
  while (words.length > 0) {
    const word = words.shift();
    if (!word.startsWith("--")) {
      // What follows the first word behind the command is the box's own.
      found.words.push(word);
      if (found.words.length > 1) return { ...found, words: [...found.words, ...words] };
    } else if (!(word in OPTIONS)) {
      throw new Error(`unexpected argument '${word}' found`);
    } else {
      found[word.slice(2)] = OPTIONS[word] ? words.shift() : true;
    }
  }
  return found;
}

function securityOf(wanted) {
  if (wanted === undefined) return {};
  if (!["enable", "disable"].includes(wanted)) throw new Error(`unknown security preset '${wanted}'`);
  const on = wanted === "enable";
  return { security: { jailerEnabled: on, seccompEnabled: on } };
}

function runtimeOf(asked) {
  const { JsBoxlite } = require("./boxlite.node");
  const options = { homeDir: asked.home };
  if (asked.config) {
    options.imageRegistries = JSON.parse(fs.readFileSync(asked.config, "utf8")).image_registries;
  }
  return new JsBoxlite(options);
}

async function copy(stream, to) {
  for (let chunk = await stream.next(); chunk !== null; chunk = await stream.next()) to.write(chunk);
}

async function main(asked) {
  const [command, ...words] = asked.words;
  const runtime = runtimeOf(asked);
  if (command === "list") return 0;
  if (command === "rm") {
    await runtime.remove(words[0], Boolean(asked.force));
    return 0;
  }
  if (!["run", "create"].includes(command)) throw new Error(`unrecognized subcommand '${command}'`);
  const background = command === "create" || Boolean(asked.detach);
  const box = await runtime.create({
    rootfsPath: path.resolve(asked.rootfs),
    cpus: Number(asked.cpus),
    memoryMib: Number(asked.memory),
    autoRemove: Boolean(asked.rm) && !background,
    detach: background,
    ...securityOf(asked.security),
  });
  if (command === "run") {
    await box.start();
    const execution = await box.exec(words[0], words.slice(1));
    if (!background) {
      await Promise.all([copy(await execution.stdout(), process.stdout), copy(await execution.stderr(), process.stderr)]);
      const { exitCode } = await execution.wait();
      await box.stop();
      return exitCode;
    }
  }
  console.log(box.id);
  return 0;
}

if (process.argv[2] === "--version") {
  console.log(`boxlite ${VERSION}`);
} else {
  Promise.resolve()
    .then(() => main(parse(process.argv.slice(2))))
    .catch((error) => (console.error(`Error: ${error.message}`), 1))
    .then((status) => process.exit(status));
}
