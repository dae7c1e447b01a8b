// Whatever users named is set as text, never as markup.
"use strict";

const PERIOD = 1000;
const COLOURS = 8;
const $ = (id) => document.getElementById(id);

function element(tag, { text, name, title } = {}, ...children) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  if (title) made.title = title;
  made.append(...children);
  return made;
}

// ---- what there is

/** Bars stay the elements that they are, so that they move. */
const bars = new Map();

function bar(key, index) {
  if (!bars.has(key)) {
    const track = element("div", { name: "track" });
    const filled = element("div", { name: `bar c${index % COLOURS}` });
    const due = element("div", { name: "due", title: "desired" });
    track.append(filled, due);
    bars.set(key, { track, filled, due });
  }
  return bars.get(key);
}

function group(key, index, tally, most) {
  const { track, filled, due } = bar(`${key}/${tally.name}`, index);
  const percent = (pods) => `${most ? (100 * pods) / most : 0}%`;
  filled.style.width = percent(tally.actual);
  due.style.left = percent(tally.desired);
  track.title = `${tally.actual} of ${tally.desired}, ${tally.pending} not ready`;
  const figures = element("span", { name: "figures", text: `${tally.actual} of ${tally.desired}` });
  if (tally.deviation) figures.classList.add("bad");
  const label = element("span", { text: tally.name });
  if (tally.available === false) label.append(" ", element("span", { name: "bad", text: "unavailable" }));
  return element("div", { name: "group" }, label, track, figures);
}

function groups(key, tallies) {
  const most = Math.max(0, ...tallies.map((tally) => Math.max(tally.actual, tally.desired)));
  return tallies.map((tally, index) => group(key, index, tally, most));
}

function article(one) {
  const key = `${one.namespace}/${one.name}`;
  const status = one.status || {};
  const shown = element("article");
  shown.dataset.key = key;
  shown.append(element("h2", { text: key }));
  const replicas = status.replicas === undefined || status.replicas === null ? "" : `, ${status.replicas} pods wanted`;
  shown.append(element("p", { name: "quiet", text: `${one.target.kind} ${one.target.name}${replicas}` }));
  if (one.error) shown.append(element("p", { name: "bad", text: one.error }));
  for (const condition of status.conditions || []) {
    if (condition.status !== "True") {
      shown.append(element("p", { name: "bad", text: `${condition.type}: ${condition.message}` }));
    }
  }
  shown.append(...groups(key, status.groups || []));
  const revisions = (status.revisions || []).filter((revision) => revision.pods > 0);
  if (revisions.length > 1) {
    for (const revision of revisions) {
      const named = element("p", { name: "quiet", text: `${revision.kind} ${revision.name}` });
      shown.append(element("div", { name: "revision" }, named, ...groups(`${key}/${revision.name}`, revision.groups)));
    }
  }
  return shown;
}

async function refresh() {
  try {
    const answer = await fetch("/state");
    const all = await answer.json();
    $("distributors").replaceChildren(...all.map(article));
    $("standing").textContent = all.length === 1 ? "one distributor, live" : `${all.length} distributors, live`;
    $("standing").className = "";
    $("workloads").replaceChildren(...all.map((one) => element("option", { text: one.target.name })));
  } catch {
    $("standing").textContent = "the webhook doesn't answer";
    $("standing").className = "bad";
  }
}

// ---- the composer

let composed = [
  { label: "type=default", weight: 80, base: "", max: "" },
  { label: "type=spot", weight: 20, base: "", max: "" },
];

function field(of, key, type) {
  const input = element("input");
  input.type = type;
  input.value = of[key];
  input.setAttribute("aria-label", key);
  if (type !== "text") {
    input.min = 0;
    if (type === "range") input.max = 100;
  }
  input.addEventListener("input", () => {
    of[key] = input.value;
    compose();
  });
  return input;
}

function rows() {
  const made = composed.map((of, index) => {
    const weight = element("td", {}, field(of, "weight", "range"));
    const gone = element("button", { text: "×", title: "remove the group" });
    gone.type = "button";
    gone.addEventListener("click", () => {
      composed = composed.filter((other) => other !== of);
      rows();
    });
    const told = element("td", { name: "figures" });
    told.id = `told-${index}`;
    return element("tr", {}, element("td", {}, field(of, "label", "text")), weight,
      element("td", {}, field(of, "base", "number")), element("td", {}, field(of, "max", "number")), told,
      element("td", {}, composed.length > 1 ? gone : ""));
  });
  $("groups").replaceChildren(...made);
  compose();
}

const quoted = (text) => JSON.stringify(String(text));

function yaml() {
  const lines = [
    "apiVersion: versprei.versprei.io/v1beta1",
    "kind: PodDistributor",
    "metadata:",
    `  name: ${quoted($("workload").value || "NAME")}`,
    `  namespace: ${quoted($("namespace").value)}`,
    "spec:",
    "  distribution:",
  ];
  for (const of of composed) {
    lines.push("  - nodeLabel:");
    for (const label of of.label.split(",")) {
      const [key, ...value] = label.trim().split("=");
      lines.push(`      ${quoted(key)}: ${quoted(value.join("="))}`);
    }
    lines.push(`    weight: ${Number(of.weight)}`);
    if (of.base !== "") lines.push(`    base: ${Number(of.base)}`);
    if (of.max !== "") lines.push(`    max: ${Number(of.max)}`);
  }
  lines.push("  target:", `    apiVersion: ${quoted($("version").value)}`, `    kind: ${quoted($("kind").value)}`,
    `    name: ${quoted($("workload").value || "NAME")}`);
  return `${lines.join("\n")}\n`;
}

let asked = 0;

async function compose() {
  $("yaml").textContent = yaml();
  const turn = ++asked;
  const numbers = composed.map((of) => `${of.weight}:${of.base}:${of.max}`).join(",");
  const answer = await fetch(`/plan/${encodeURIComponent($("pods").value)}/${numbers}`).catch(() => undefined);
  if (turn !== asked || !answer) return;
  if (!answer.ok) {
    $("sequence").replaceChildren(element("p", { name: "bad", text: await answer.text() }));
    return;
  }
  const plan = await answer.json();
  composed.forEach((of, index) => {
    $(`told-${index}`).textContent = plan.pods[index];
  });
  $("sequence").replaceChildren(...plan.sequence.slice(0, 500).map((index, slot) =>
    element("span", { name: `c${index % COLOURS}`, title: `${slot + 1}: ${composed[index].label}` })));
}

// API versions of kinds that have another than Deployments.
const VERSIONS = { Job: "batch/v1", CronJob: "batch/v1", Rollout: "argoproj.io/v1alpha1" };

// As long as nobody wrote another, the version is that of the kind.
function follow() {
  if (["apps/v1", ...Object.values(VERSIONS)].includes($("version").value)) $("version").value = VERSIONS[$("kind").value] ?? "apps/v1";
}
$("kind").addEventListener("input", follow);

// A link may bring a workload along: #namespace=shop&workload=web&pods=20
const link = new URLSearchParams(location.hash.slice(1));
for (const [key, value] of link) {
  if (["namespace", "kind", "version", "workload", "pods"].includes(key)) $(key).value = value;
}
if (!link.has("version")) follow();
$("form").addEventListener("submit", (event) => event.preventDefault());
for (const id of ["namespace", "kind", "version", "workload", "pods"]) $(id).addEventListener("input", compose);
$("more").addEventListener("click", () => {
  composed.push({ label: "type=other", weight: 10, base: "", max: "" });
  rows();
});
$("copy").addEventListener("click", () => {
  // Without TLS a browser gives the clipboard to loopback alone.
  if (navigator.clipboard) navigator.clipboard.writeText($("yaml").textContent);
  else getSelection().selectAllChildren($("yaml"));
});
rows();
refresh();
setInterval(refresh, PERIOD);
