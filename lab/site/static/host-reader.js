"use strict";
// Reads what is pasted into the front page: the output of the script that it shows, or a cell's facts as JSON.

const LONGEST = 200000; // characters that are read

// ---- What was pasted: {system: {id, version, codename, title, like}, settings: {name: text, or null: not there}}.

function read(text) {
  const pasted = text.slice(0, LONGEST).replace(/\x1b\[[0-9;?]*[ -\/]*[@-~]/g, "").trim();
  if (!pasted.startsWith("{")) return readProbe(pasted);
  let facts;
  try {
    facts = JSON.parse(pasted);
  } catch (error) {
    throw new Error(`This starts like JSON, but is not valid: ${error.message}. Paste the whole text.`);
  }
  return readFacts(facts.facts ?? facts);
}

function readFacts(facts) {
  const os = facts.os ?? {};
  const system = { id: os.id, version: os.version_id, codename: os.version_codename, title: os.pretty_name, like: [] };
  const settings = {};
  const set = (name, key, value) => {
    if (key in facts) settings[name] = value(facts[key]);
  };
  const yes = (value) => (value ? "yes" : "no");
  set("kernel", "kernel", String);
  set("AppArmor", "apparmor", (value) => (value ? "in use" : "not in use"));
  set("SELinux", "selinux", (value) => value?.mode ?? "not in use");
  set("bubblewrap", "bubblewrap", (value) => (value ? value.version ?? "version not known" : "not installed"));
  set("bubblewrap is setuid", "bubblewrap", (value) => yes(value?.setuid));
  set("/dev/kvm", "kvm", (value) => (value ? "there" : "not there"));
  for (const [path, mount] of Object.entries(facts.mounts ?? {})) {
    settings[`${path} is noexec`] = yes(mount?.options?.includes("noexec"));
  }
  if (facts.apparmor) readAppArmor(facts.apparmor, settings);
  for (const [name, value] of Object.entries(facts.sysctls ?? {})) {
    settings[name] = value === null ? null : String(value);
  }
  return { system, settings, refused: [] };
}

// `shown`: whether `profiles` has only those that the script names.
function readAppArmor({ userns_mediation, profiles, shown }, settings) {
  if (userns_mediation !== undefined) settings["AppArmor mediates user namespaces"] = userns_mediation ? "yes" : "no";
  if (!profiles) return;
  const parts = lab.hosts.rules.shown_profiles.map((pattern) => pattern.replaceAll("*", ""));
  const wanted = shown ? parts : [""];
  const own = Object.keys(profiles).filter((name) => parts.some((part) => name.includes(part)));
  for (const setting of new Set([...profileNames(), ...own.map((name) => lab.hosts.rules.profile + name)])) {
    const name = setting.slice(lab.hosts.rules.profile.length);
    if (name in profiles) settings[setting] = String(profiles[name]);
    else if (wanted.some((part) => name.includes(part))) settings[setting] = "not loaded";
  }
}

function profileNames() {
  const names = lab.hosts.cells.flatMap((cell) => Object.keys(cell.settings));
  return new Set(names.filter((name) => name.startsWith(lab.hosts.rules.profile)));
}

// ---- The output of the script that this page shows. Each line: its number, a name or + (the line before goes on), a value.

const NUMBERED = /^(\d+) (?:([\w.\/-]+):|\+)(?: (.*)|$)/;
const NOT_KNOWN = ["(not readable)", "(private)"];

function readProbe(text) {
  const values = new Map();
  for (const [name, value] of probeLines(text)) {
    if (!NOT_KNOWN.includes(value)) values.set(name, [...(values.get(name) ?? []), decoded(value)]);
  }
  const one = (name) => values.get(name)?.[0];
  const facts = { os: {}, sysctls: {}, mounts: {} };
  for (const [name, [value]] of values) {
    const [, group, rest] = name.match(/^(os|sysctls|mounts)\.(.+)$/) ?? [];
    if (group === "mounts") facts.mounts[rest] = { options: (value ?? "").split(" ").pop().split(",") };
    else if (group) facts[group][rest] = value;
  }
  const set = (name, value) => {
    if (values.has(name)) facts[name] = one(name) === null ? null : value();
  };
  set("kernel", () => one("kernel"));
  set("apparmor", () => probeAppArmor(values, one));
  set("selinux", () => ({ mode: one("selinux") }));
  set("bubblewrap", () => ({ version: one("bubblewrap.version"), setuid: /^[4-7]\d{3}$/.test(one("bubblewrap.mode")) }));
  set("kvm", () => ({}));
  const host = readFacts(facts);
  const label = one("who.context.apparmor");
  if (facts.apparmor && label) host.settings[lab.hosts.rules.confined] = confining(label);
  host.system.like = (one("os.id_like") ?? "").split(" ").filter(Boolean);
  host.refused = refused(one);
  return host;
}

// The profile that a process's label names; one in unconfined mode confines nothing.
function confining(label) {
  const [names, mode] = label.split(" (");
  const profiles = names.split("//&").filter((name) => name && name !== "unconfined");
  return profiles.length && mode !== "unconfined)" ? profiles.join("//&") : lab.hosts.rules.unconfined;
}

function probeAppArmor(values, one) {
  const mask = one("apparmor.features.namespaces_mask");
  const found = { shown: true };
  if (mask !== undefined) found.userns_mediation = (mask ?? "").includes("userns_create");
  if (values.has("apparmor.profiles")) {
    const profiles = values.get("apparmor.profiles").map((each) => each?.match(/^(.*) \((\w+)\)$/)).filter(Boolean);
    found.profiles = Object.fromEntries(profiles.map(([, name, mode]) => [name, mode]));
  }
  return found;
}

// What boxlite cannot do without, and the script was refused. Without bubblewrap on the host, boxlite brings its own.
function refused(one) {
  const sandbox = (one("probes.bwrap_all") ?? "none").startsWith("none") ? "unshare_user_root" : "bwrap_all";
  const said = ["open_kvm", "exec_home", sandbox].map((name) => [name, one(`probes.${name}`) ?? "none"]);
  return said.filter(([, value]) => /^[1-9]/.test(value)).map(([name, value]) => `${name}: ${value.replace(/^\d+ ?/, "") || `error ${value}`}`);
}

function probeLines(text) {
  const found = [];
  let expected = null;
  for (const line of text.replace(/\u2014|\u2013/g, "--").replace(/\u00a0/g, " ").replace(/[\\\u200b\ufeff]/g, "").split(/\r?\n/)) {
    const trimmed = line.slice(0, 3000).replace(/^[\s>|]+/, "").trim();
    if (/={2,} ?begin boxlite-probe \d/.test(trimmed)) {
      expected = 1;
      found.length = 0;
      continue;
    }
    const end = trimmed.match(/={2,} ?end boxlite-probe \d+: (\d+) lines/);
    if (end && expected !== null) {
      if (Number(end[1]) !== expected - 1) throw new Error(`Lines are missing: ${expected - 1} of ${end[1]} are there. Paste all that the script prints.`);
      return found;
    }
    if (expected === null || !trimmed) continue;
    const numbered = trimmed.match(NUMBERED);
    const last = found.at(-1);
    if (numbered && Number(numbered[1]) >= expected) {
      expected += 1;
      if (numbered[2]) found.push([numbered[2], numbered[3] ?? ""]);
      else if (last) last[1] += numbered[3] ?? "";
    } else if (last) {
      last[1] = `${last[1]} ${trimmed}`.trim();
    }
  }
  throw new Error(expected === null ? "The text holds no output of the script above. Run it, and paste all that it prints." : "The end of the output is missing. Paste all that the script prints.");
}

function decoded(value) {
  if (value === "(none)") return null;
  if (value === "(empty)") return "";
  try {
    return decodeURIComponent(value);
  } catch {
    return value;
  }
}
