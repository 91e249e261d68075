"use strict";
// Reads what is pasted into the front page: the output of the script that it shows.

const LONGEST = 400000; // characters that are read

// Returns {system: {id, version, codename, arch, title, like}, settings: {name: text, or null: not there}, knowsProfiles, refused: [text]}.
// Raises Error with what to tell the user.
function read(text) {
  const pasted = text.slice(0, LONGEST).replace(/\x1b\[[0-9;?]*[ -\/]*[@-~]/g, "");
  const output = outputOfScript(pasted);
  try {
    return readProbe(JSON.parse(output, unescaped));
  } catch (error) {
    throw new Error(`The output is damaged: ${error.message}. Paste all that the script prints.`);
  }
}

// The part for programs of the last output in a text. It has no white space of its own: what is there, and marks of
// quotations, came from where lines were folded. Some programs also replace dashes and quotes.
function outputOfScript(text) {
  const lines = text.replace(/[\u2013\u2014]/g, "--").replace(/[\u201c-\u201e]/g, '"').split("\n");
  const joined = lines.map((line) => line.replace(/^[\s>|]+/, "").replace(/[\s\\\u200b\ufeff]/g, "")).join("");
  const begin = joined.lastIndexOf("beginboxlite-probe");
  if (begin < 0) throw new Error("The text holds no output of the script above. Run it, and paste all that it prints.");
  const end = joined.indexOf("endboxlite-probe", begin);
  if (end < 0) throw new Error("The end of the output is missing. Paste all that the script prints.");
  const first = joined.indexOf("{", begin);
  const json = first < 0 ? "" : joined.slice(first, joined.lastIndexOf("}", end) + 1);
  const whole = joined.slice(end).match(/^endboxlite-probe\d+:(\d+)characters/)?.[1];
  if (Number(whole) !== json.length) throw new Error(`Lines are missing: ${json.length} of ${whole} characters are there. Paste all that the script prints.`);
  return json;
}

// Each text in the output has %XX for all but plain characters.
function unescaped(_, value) {
  if (value === null || typeof value !== "object" || Array.isArray(value)) return plain(value);
  return Object.fromEntries(Object.entries(value).map(([name, inner]) => [plain(name), inner]));
}

function plain(value) {
  if (typeof value !== "string") return value;
  try {
    return decodeURIComponent(value);
  } catch {
    return value;
  }
}

function readProbe({ facts, unreadable, id_like, who, probes }) {
  // What this user may not read is not known, and so not compared.
  for (const fact of unreadable) {
    const [group, name] = fact.split(".", 2);
    if (!name) delete facts[group];
    else if (facts[group]) delete facts[group][name];
  }
  const settings = { ...readFacts(facts), ...readLimits(who.context.limits) };
  if (facts.apparmor) settings[lab.hosts.rules.confined] = confining(who.context.apparmor ?? "");
  const { session } = who.context;
  settings[lab.hosts.rules.session] = session.kind;
  settings[lab.hosts.rules.manager] = session.manager ? "yes" : "no";
  settings[lab.hosts.rules.root] = who.uid === 0 ? "yes" : "no";
  const os = facts.os ?? {};
  const system = { id: os.id, version: os.version_id, codename: os.version_codename, arch: facts.arch, title: os.pretty_name, like: id_like };
  return { system, settings, knowsProfiles: facts.apparmor?.profiles !== undefined, refused: refused(probes) };
}

// What decides about boxlite.
function readFacts(facts) {
  const settings = {};
  const set = (name, key, value) => {
    if (key in facts) settings[name] = value(facts[key]);
  };
  const yes = (value) => (value ? "yes" : "no");
  set("architecture", "arch", String);
  set("kernel", "kernel", String);
  set("AppArmor", "apparmor", (value) => (value ? "in use" : "not in use"));
  set("SELinux", "selinux", (value) => value?.mode ?? "not in use");
  set("bubblewrap", "bubblewrap", (value) => (value ? value.version ?? "version not known" : "not installed"));
  set("bubblewrap is setuid", "bubblewrap", (value) => yes(value?.setuid));
  set("/dev/kvm", "kvm", (value) => (value ? "there" : "not there"));
  set("Landlock", "landlock", (value) => (value === null ? "not in use" : `version ${value}`));
  const names = (all, lacks) => Object.keys(all).filter((name) => lacks(all[name])).join(" ") || "nothing that was asked for";
  if (facts.kvm?.capabilities) settings["KVM lacks"] = names(facts.kvm.capabilities, (there) => !there);
  if (facts.kernel_options) settings["kernel built without"] = names(facts.kernel_options, (value) => value === null);
  for (const [path, mount] of Object.entries(facts.mounts ?? {})) {
    settings[`${path} is noexec`] = yes(mount?.options?.includes("noexec"));
  }
  if (facts.mounts?.["/home"]) settings["/home is on"] = String(facts.mounts["/home"].type);
  for (const [name, value] of Object.entries(facts.sysctls ?? {})) {
    settings[name] = value === null ? null : String(value);
  }
  const { userns_mediation, profiles } = facts.apparmor ?? {};
  if (userns_mediation !== undefined) settings["AppArmor mediates user namespaces"] = yes(userns_mediation);
  for (const [name, mode] of Object.entries(profiles ?? {})) settings[lab.hosts.rules.profile + name] = String(mode);
  return settings;
}

// The limits of the user.
function readLimits(limits) {
  const { user_limit, unlimited } = lab.hosts.rules;
  return Object.fromEntries(Object.entries(limits).map(([name, limit]) => [user_limit + name.replaceAll("_", " "), limit === null ? unlimited : String(limit)]));
}

// The profile that a process's label names; one in unconfined mode confines nothing.
function confining(label) {
  const [names, mode] = label.split(" (");
  const profiles = names.split("//&").filter((name) => name && name !== "unconfined");
  return profiles.length && mode !== "unconfined)" ? profiles.join("//&") : lab.hosts.rules.unconfined;
}

// What boxlite cannot do without, and the script was refused. Without bubblewrap on the host, boxlite brings its own.
function refused(probes) {
  const sandbox = probes.bwrap_all.status === null ? "unshare_user_root" : "bwrap_all";
  const failed = ["open_kvm", "create_vm", "start_processes", "socket_folder", "exec_home", sandbox].filter((name) => probes[name].status);
  return failed.map((name) => `${name}: ${probes[name].stderr || `error ${probes[name].status}`}`);
}
