"use strict";
// The front page: find a distribution by name, and compare a pasted host with what was tested.
// The page holds what is published: `Published` of lab/check/published.py. All text goes into the page as text, never
// as markup. Nothing is sent.

lab.hosts = JSON.parse(document.getElementById("published").textContent);

lab.feature("find-by-name", (form) => {
  const input = form.querySelector("input");
  const found = form.querySelector("[role=status]");
  const rows = [...document.querySelectorAll("#hosts tbody tr")];
  const show = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const name = `${row.dataset.host} ${row.cells[0].textContent}`.toLowerCase();
      row.hidden = !words.every((word) => name.includes(word));
    }
    const left = rows.filter((row) => !row.hidden).length;
    found.textContent = words.length ? `${left} of ${rows.length}` : "";
  };
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  input.addEventListener("input", show);
  show();
});

lab.feature("host-finder", (form) => {
  const result = document.getElementById("host-result");
  form.hidden = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    result.replaceChildren(...answer(form.querySelector("textarea").value));
  });
  form.addEventListener("reset", () => result.replaceChildren());
});

// An element with attributes and children; a text stays a text.
function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.flat().filter((child) => child !== null && child !== ""));
  return element;
}

// ---- Which distribution, and which tested cell of it is closest.

function sameSystem(host, system) {
  if (!host.id || host.id !== system.id || host.arch !== system.arch) return false;
  if (host.version || system.version) return (host.version ?? "") === (system.version ?? "");
  return !host.codename || !system.codename || host.codename === system.codename;
}

function compare(host, cell) {
  // A profile that one of both has is not loaded on the other.
  const names = [...Object.keys(host.settings), ...Object.keys(cell.settings)];
  const profiles = host.knowsProfiles ? names.filter((name) => name.startsWith(lab.hosts.rules.profile)) : [];
  const notLoaded = Object.fromEntries(profiles.map((name) => [name, "not loaded"]));
  const yours = { ...notLoaded, ...host.settings };
  const theirs = { ...notLoaded, ...cell.settings };
  const compared = Object.keys(theirs).filter((name) => name in yours);
  const differing = compared.filter((name) => !alike(name, yours[name], theirs[name])).map((name) => ({ name, yours: yours[name], theirs: theirs[name] }));
  const deciding = differing.filter(({ name }) => !lab.hosts.rules.versions.includes(name)).length;
  const missing = Object.keys(theirs).filter((name) => !(name in yours));
  return { cell, compared: compared.length, differing, deciding, missing, distance: deciding + (differing.length - deciding) / 100 };
}

// A limit on a number of namespaces depends on the host's memory; only 0 is a setting of its own. A limit of the user's
// that is higher than the tested one is no difference, but where a low limit may be what blocks.
function alike(name, yours, theirs) {
  const { limits, user_limit, unlimited, or_less } = lab.hosts.rules;
  if (name.startsWith(limits) && yours !== null && theirs !== null) return (yours === "0") === (theirs === "0");
  if (!name.startsWith(user_limit)) return yours === theirs;
  const amount = (limit) => (limit === unlimited ? Infinity : Number(limit) || 0);
  return theirs.endsWith(or_less) ? amount(yours) <= amount(theirs.slice(0, -or_less.length)) : amount(yours) >= amount(theirs);
}

// ---- The answer.

function answer(text) {
  let host;
  try {
    host = read(text);
  } catch (error) {
    return [make("p", {}, error.message)];
  }
  if (!host.system.id) {
    return [make("p", {}, "The text names no distribution. Run the script above and paste all that it prints.")];
  }
  const known = lab.hosts.distributions.filter((each) => each.systems.some((system) => sameSystem(host.system, system)));
  if (!known.length) return [...refusals(host), ...notTested(host.system)];
  return [...refusals(host), ...known.flatMap((distribution) => about(distribution, host))];
}

// What the host itself shows comes before what was found on others.
function refusals({ refused }) {
  if (!refused.length) return [];
  const list = make("ul", {}, refused.map((each) => make("li", {}, each)));
  return [verdict("blocked", "Blocked on your host: the script was refused what boxlite needs", list, make("p", {}, "What follows is the closest tested host."))];
}

function notTested(system) {
  const name = [system.title || [system.id, system.version].filter(Boolean).join(" "), system.arch].filter(Boolean).join(" on ");
  const related = lab.hosts.distributions.filter((each) => each.systems.some((known) => known.id === system.id));
  const base = lab.hosts.distributions.filter((each) => each.systems.some((known) => system.like.includes(known.id)));
  return [
    make("h3", {}, name),
    verdict("untested", "Not tested", make("p", {}, "No published run has this system. The lab does not know whether boxlite works on it.")),
    ...others(related, "Other releases and architectures of this distribution, which are other systems:"),
    ...(related.length ? [] : others(base, `By its own words (ID_LIKE) it is made from ${system.like.join(", ")}. These are other systems than yours:`)),
  ];
}

function others(distributions, text) {
  if (!distributions.length) return [];
  return [make("p", {}, text), make("ul", {}, distributions.map((each) => make("li", {}, make("a", { href: each.page }, each.title), `: ${each.headline}`)))];
}

function about(distribution, host) {
  const cells = distribution.cells.filter((cell) => Object.keys(cell.settings).length);
  const heading = make("h3", {}, make("a", { href: distribution.page }, distribution.title));
  if (!cells.length) {
    const why = distribution.kind === "untested" ? `Not tested: ${distribution.reason}.` : "Its results are too old to hold settings to compare with. Read its page.";
    return [heading, verdict(distribution.kind, distribution.headline, make("p", {}, why))];
  }
  const ranked = cells.map((cell) => compare(host, cell)).sort((one, two) => one.distance - two.distance || one.cell.changed - two.cell.changed);
  const best = { ...ranked[0], refused: host.refused.length > 0 };
  const equal = ranked.slice(1).filter((each) => each.distance === best.distance);
  return [heading, ...outcome(distribution, best), differences(best), ...equallyClose(equal, best), notAsked(best)];
}

function outcome(distribution, { cell, deciding, compared, refused }) {
  const details = [
    make("p", {}, `${cell.system}. ${cell.title}. boxlite ${cell.build}.`),
    ...cell.reasons.map((reason) => make("p", {}, reason)),
    cell.remedy ? make("p", {}, make("strong", {}, "Verified remedy: "), `${cell.remedy.title}. What it costs: ${cell.remedy.price} `, pageLink(distribution, cell, "Commands and script")) : null,
    cell.kind === "blocked" && !cell.remedy ? make("p", {}, "No remedy is verified for it. ", pageLink(distribution, cell, "What is known")) : null,
  ].filter(Boolean);
  if (refused) return [closest(cell.kind, cell.headline, ...details)];
  if (!compared) return [verdict(cell.kind, `Nothing to compare. As tested: ${cell.headline}`, ...details)];
  if (!deciding) return [verdict(cell.kind, `As far as your text shows: ${cell.headline}`, ...details)];
  return [
    verdict("untested", "Not tested with your settings", make("p", {}, "No tested host has all the settings that you pasted. What follows is the closest one, and is no promise.")),
    closest(cell.kind, cell.headline, ...details),
  ];
}

function pageLink(distribution, cell, text) {
  return make("a", { href: cell.part ? `${distribution.page}#${cell.part}` : distribution.page }, text);
}

// A box with a headline. A box about another host than the user's has no ground of its own.
function verdict(kind, text, ...details) {
  return box(`verdict verdict-${kind}`, kind, text, details);
}

function closest(kind, text, ...details) {
  return box("verdict", kind, `Closest: ${text}`, details);
}

function box(style, kind, text, details) {
  const shape = document.querySelector(`template#shape-${kind}`).content.cloneNode(true);
  const headline = make("p", {}, make("span", { class: `mark mark-${kind}` }, shape, text));
  return make("div", { class: style, "data-kind": kind }, headline, details);
}

function differences({ compared, differing }) {
  if (!compared) return make("p", {}, "The text holds no setting that can be compared.");
  if (!differing.length) return make("p", {}, compared === 1 ? "The one setting that could be compared is as tested." : `All ${compared} settings that could be compared are as tested.`);
  const show = (value) => (value === null ? "the kernel has none" : value);
  const rows = differing.map((each) => make("tr", {}, make("th", { scope: "row" }, each.name), make("td", {}, show(each.yours)), make("td", {}, show(each.theirs))));
  const head = make("tr", {}, ["Setting", "Your host", "Tested"].map((title) => make("th", { scope: "col" }, title)));
  const caption = make("caption", {}, `${differing.length} of ${compared} compared settings differ from the tested host`);
  return make("div", { class: "scroll" }, make("table", { id: "host-differences" }, caption, make("thead", {}, head), make("tbody", {}, rows)));
}

// Tested hosts that the text tells apart from the closest one in nothing, although their outcome may be another.
function equallyClose(equal, best) {
  if (!equal.length) return [];
  const others = equal.filter(({ cell }) => cell.kind !== best.cell.kind);
  const list = (some) => make("ul", {}, some.slice(0, 20).map(({ cell }) => make("li", {}, `${cell.system}. ${cell.title}: ${cell.headline}`)));
  const parts = [];
  if (others.length) {
    parts.push(make("p", {}, `What your text does not show can change the answer: ${others.length} of ${equal.length} other tested hosts, with the same values of all that it does show, had another outcome.`));
  }
  parts.push(make("details", {}, make("summary", {}, `Tested hosts that are equally close (${equal.length})`), make("p", {}, "They differ from the one above in something that your text does not show. It is the one with the fewest changes."), list(equal)));
  return parts;
}

function notAsked({ missing }) {
  if (!missing.length) return "";
  return make("details", {}, make("summary", {}, `Not in your text, so not compared (${missing.length})`), make("ul", {}, missing.map((name) => make("li", {}, name))));
}
