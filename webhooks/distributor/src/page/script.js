// Text of users is set as text, never as markup.
"use strict";

const POLL = 2000;
const PATTERNS = 8;
const $ = (id) => document.getElementById(id);

function element(tag, { text, name, title } = {}, ...children) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (name) made.className = name;
  if (title) made.title = title;
  made.append(...children);
  return made;
}

// Sets the text only if it differs, so that a selection and a screen reader keep their place.
function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/** Makes the children of `parent` those of `items`, and keeps the element of each key. */
function reconcile(parent, items, keyOf, create, update) {
  const existing = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let previous = null;
  for (const item of items) {
    const key = keyOf(item);
    const child = existing.get(key) ?? create(item);
    child.dataset.key = key;
    existing.delete(key);
    const next = previous ? previous.nextElementSibling : parent.firstElementChild;
    if (next !== child) parent.insertBefore(child, next);
    update(child, item);
    previous = child;
  }
  for (const child of existing.values()) child.remove();
}

// ---- distributors

function createGroup() {
  const filled = element("div", { name: "bar" });
  const desired = element("div", { name: "desired", title: "desired" });
  return element("div", { name: "group" },
    element("span", {}, element("span", { name: "name" }), element("span", { name: "bad state" })),
    element("div", { name: "track" }, filled, desired), element("span", { name: "figures" }));
}

/** The state of a group that gets no new pods, with its reason. */
function stateOf(group) {
  if (group.state && group.state !== "Open") {
    const probe = group.nextProbe ? `, next try ${new Date(group.nextProbe).toLocaleTimeString()}` : "";
    return `${group.state}${group.reason ? `: ${group.reason}` : ""}${probe}`;
  }
  return group.available === false ? "unavailable" : "";
}

function updateGroup(shown, { group, index, most }) {
  const percent = (pods) => `${most ? (100 * pods) / most : 0}%`;
  const bar = shown.querySelector(".bar");
  bar.className = `bar c${index % PATTERNS}`;
  bar.style.width = percent(group.actual);
  shown.querySelector(".desired").style.left = percent(group.desired);
  shown.querySelector(".track").title = `${group.actual} of ${group.desired}, ${group.pending} not ready`;
  const figures = shown.querySelector(".figures");
  setText(figures, `${group.actual} of ${group.desired}`);
  figures.classList.toggle("bad", Boolean(group.deviation));
  setText(shown.querySelector(".name"), group.name);
  const state = stateOf(group);
  setText(shown.querySelector(".state"), state ? ` ${state}` : "");
}

/** The rows of an article: its groups, and those of each revision if there are several. */
function rowsOf(status) {
  const rows = (groups, prefix) => {
    const most = Math.max(0, ...groups.map((group) => Math.max(group.actual, group.desired)));
    return groups.map((group, index) => ({ key: `${prefix}${group.name}`, group, index, most }));
  };
  const revisions = (status.revisions || []).filter((revision) => revision.pods > 0);
  const ofRevisions = revisions.length < 2 ? [] : revisions.flatMap((revision) => [
    { key: `revision ${revision.name}`, title: `${revision.kind} ${revision.name}` },
    ...rows(revision.groups, `${revision.name}/`),
  ]);
  return [...rows(status.groups || [], ""), ...ofRevisions];
}

function problemsOf(distributor) {
  const conditions = (distributor.status?.conditions || []).filter((condition) => condition.status !== "True");
  const problems = conditions.map((condition) => `${condition.type}: ${condition.message}`);
  return distributor.error ? [distributor.error, ...problems] : problems;
}

const keyOf = (distributor) => `${distributor.namespace}/${distributor.name}`;

/** The workload, or the selector of pods. */
const targetOf = ({ target }) => (target.selector ? `selector ${target.selector}` : `${target.kind} ${target.name ?? ""}`);

function updateArticle(shown, distributor) {
  const status = distributor.status || {};
  const replicas = status.replicas === undefined || status.replicas === null ? "" : `, ${status.replicas} replicas`;
  const head = [
    { key: "heading", tag: "h2", text: keyOf(distributor) },
    { key: "target", tag: "p", name: "quiet", text: `${targetOf(distributor)}${replicas}` },
    ...problemsOf(distributor).map((text, index) => ({ key: `problem ${index}`, tag: "p", name: "bad", text })),
  ];
  reconcile(shown, [...head, ...rowsOf(status)], (row) => row.key,
    (row) => (row.group ? createGroup() : element(row.tag ?? "p", { name: row.title ? "quiet revision" : row.name })),
    (made, row) => (row.group ? updateGroup(made, row) : setText(made, row.text ?? row.title)));
}

let distributors = [];

function show() {
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const onlyProblems = $("problems").checked;
  const matches = (distributor) => {
    const text = `${keyOf(distributor)} ${targetOf(distributor)}`.toLowerCase();
    return words.every((word) => text.includes(word)) && (!onlyProblems || problemsOf(distributor).length > 0);
  };
  const shown = distributors.filter(matches);
  reconcile($("distributors"), shown, keyOf, () => element("article"), updateArticle);
  const count = distributors.length === 1 ? "1 distributor" : `${distributors.length} distributors`;
  setText($("summary"), shown.length === distributors.length ? count : `${shown.length} of ${count}`);
  $("summary").className = "";
}

/** Fetches JSON. An error has a text for people. */
async function request(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("no response: check that the port is forwarded and that the command is running");
  }
  if (!answer.ok) throw new Error((await answer.text()).trim() || `HTTP status ${answer.status}`);
  return answer.json();
}

async function refresh() {
  if (document.hidden) return;
  try {
    distributors = await request("/state");
    show();
    const names = [...new Set(distributors.map((distributor) => distributor.target.name).filter(Boolean))];
    reconcile($("workloads"), names, (name) => name, (name) => element("option", { text: name }), () => {});
  } catch (error) {
    setText($("summary"), error.message);
    $("summary").className = "bad";
  }
}

// ---- the composer

let composed = [
  { label: "type=default", tolerations: "", weight: 80, base: "", max: "" },
  { label: "type=spot", tolerations: "", weight: 20, base: "", max: "" },
];

function field(group, index, key, type, name) {
  const input = element("input");
  input.type = type;
  input.value = group[key];
  input.setAttribute("aria-label", `${name} of group ${index + 1}`);
  if (key === "tolerations") input.placeholder = "key=value:NoSchedule";
  if (type !== "text") {
    input.min = 0;
    if (type === "range") input.max = 100;
  }
  input.addEventListener("input", () => {
    group[key] = input.value;
    compose();
  });
  return input;
}

function weight(group, index) {
  const slider = field(group, index, "weight", "range", "Weight");
  const number = element("output", { text: String(group.weight) });
  slider.addEventListener("input", () => setText(number, slider.value));
  return element("div", { name: "weight" }, slider, number);
}

function rows() {
  const made = composed.map((group, index) => {
    const remove = element("button", { text: "×" });
    remove.type = "button";
    remove.setAttribute("aria-label", `Remove group ${index + 1}`);
    remove.addEventListener("click", () => {
      composed = composed.filter((other) => other !== group);
      rows();
    });
    const pods = element("span");
    pods.id = `pods-${index}`;
    // A phone shows the names of the columns in the cells.
    const cell = (column, content) => {
      const made = element("td", {}, content);
      made.dataset.column = column;
      return made;
    };
    const input = (key, type, name) => cell(name, field(group, index, key, type, name));
    const counted = cell("Pods", pods);
    counted.className = "figures";
    return element("tr", {}, input("label", "text", "Node labels"), input("tolerations", "text", "Tolerations"),
      cell("Weight", weight(group, index)), input("base", "number", "Base"), input("max", "number", "Max"), counted,
      element("td", {}, composed.length > 1 ? remove : ""));
  });
  $("groups").replaceChildren(...made);
  compose();
}

/** `key=value:Effect, key` as tolerations of a pod. */
function tolerations(text) {
  return text.split(",").map((one) => one.trim()).filter(Boolean).map((one) => {
    const [taint, effect] = one.split(":");
    const [key, ...value] = taint.split("=");
    const toleration = value.length ? { key, value: value.join("=") } : { key, operator: "Exists" };
    return effect ? { ...toleration, effect } : toleration;
  });
}

function labels(text) {
  return Object.fromEntries(text.split(",").map((one) => one.trim()).filter(Boolean).map((one) => {
    const [key, ...value] = one.split("=");
    return [key, value.join("=")];
  }));
}

function manifest() {
  const name = $("workload").value || "NAME";
  const spec = {
    distribution: composed.map((group) => ({
      nodeLabel: labels(group.label),
      weight: Number(group.weight),
      ...(group.base === "" ? {} : { base: Number(group.base) }),
      ...(group.max === "" ? {} : { max: Number(group.max) }),
      ...(group.tolerations.trim() ? { tolerations: tolerations(group.tolerations) } : {}),
    })),
    target: { apiVersion: $("version").value, kind: $("kind").value, name },
  };
  for (const field of ["whenUnavailable", "availability"]) if ($(field).value) spec[field] = $(field).value;
  if ($("rebalance").value) spec.rebalance = { mode: $("rebalance").value };
  const metadata = { name, namespace: $("namespace").value };
  return { apiVersion: "versprei.versprei.io/v1beta1", kind: "PodDistributor", metadata, spec };
}

/** YAML of an object of objects, lists, texts and numbers; texts are quoted as in JSON, which YAML includes. */
function yaml(value, indent = "") {
  const isScalar = (item) => typeof item !== "object";
  if (Array.isArray(value)) {
    return value.map((item) => (isScalar(item) ? `${indent}- ${JSON.stringify(item)}\n`
      : `${indent}- ${yaml(item, `${indent}  `).slice(indent.length + 2)}`)).join("");
  }
  const plain = (key) => (/^[A-Za-z][A-Za-z]*$/.test(key) && !/^(y|n|yes|no|on|off|true|false|null)$/i.test(key) ? key : JSON.stringify(key));
  return Object.entries(value).map(([key, item]) => (isScalar(item)
    ? `${indent}${plain(key)}: ${typeof item === "string" && /^[A-Za-z][A-Za-z0-9./-]*$/.test(item) && plain(item) === item ? item : JSON.stringify(item)}\n`
    : Object.keys(item).length ? `${indent}${plain(key)}:\n${yaml(item, `${indent}  `)}` : `${indent}${plain(key)}: {}\n`)).join("");
}

let turn = 0;

async function compose() {
  $("yaml").textContent = yaml(manifest());
  $("change").hidden = true;
  const mine = ++turn;
  const numbers = composed.map((group) => `${group.weight}:${group.base}:${group.max}`).join(",");
  try {
    const plan = await request(`/plan/${encodeURIComponent($("pods").value)}/${numbers}`);
    if (mine !== turn) return;
    composed.forEach((_, index) => setText($(`pods-${index}`), String(plan.pods[index])));
    $("sequence").replaceChildren(...plan.sequence.slice(0, 500).map((index, slot) =>
      element("span", { name: `c${index % PATTERNS}`, title: `${slot + 1}: ${composed[index].label}` })));
  } catch (error) {
    if (mine === turn) $("sequence").replaceChildren(element("p", { name: "bad", text: error.message }));
  }
}

// ---- apply, where the server can: `kubectl podshaper ui`

async function submit(dryRun) {
  const body = JSON.stringify({ manifest: manifest(), dryRun });
  return request("/apply", { method: "POST", headers: { "Content-Type": "application/json" }, body });
}

function result(text, failed) {
  setText($("result"), text);
  $("result").className = failed ? "bad" : "";
}

async function preview() {
  try {
    const { diff } = await submit(true);
    const lines = diff.split("\n").map((line) => element("span", {
      name: line.startsWith("+") ? "added" : line.startsWith("-") ? "removed" : "", text: `${line}\n`,
    }));
    $("diff").replaceChildren(...lines);
    $("change").hidden = false;
    $("apply").hidden = diff === "";
    result(diff === "" ? "The PodDistributor in the cluster has this spec already." : "");
  } catch (error) {
    result(error.message, true);
  }
}

async function apply() {
  try {
    await submit(false);
    $("change").hidden = true;
    result("Applied.");
    refresh();
  } catch (error) {
    result(error.message, true);
  }
}

// API versions of kinds that have another than Deployments.
const VERSIONS = { Job: "batch/v1", CronJob: "batch/v1", Rollout: "argoproj.io/v1alpha1" };

// The version follows the kind, unless the user wrote another.
function follow() {
  if (["apps/v1", ...Object.values(VERSIONS)].includes($("version").value)) $("version").value = VERSIONS[$("kind").value] ?? "apps/v1";
}
$("kind").addEventListener("input", follow);

// A link may name a workload: #namespace=shop&workload=web&pods=20
const link = new URLSearchParams(location.hash.slice(1));
for (const [key, value] of link) {
  if (["namespace", "kind", "version", "workload", "pods"].includes(key)) $(key).value = value;
}
if (!link.has("version")) follow();
$("form").addEventListener("submit", (event) => event.preventDefault());
$("filters").addEventListener("submit", (event) => event.preventDefault());
for (const id of ["namespace", "kind", "version", "workload", "pods", "whenUnavailable", "availability", "rebalance"]) $(id).addEventListener("input", compose);
for (const id of ["filter", "problems"]) $(id).addEventListener("input", show);
$("more").addEventListener("click", () => {
  composed.push({ label: "type=other", tolerations: "", weight: 10, base: "", max: "" });
  rows();
});
$("copy").addEventListener("click", () => {
  // Without TLS a browser gives the clipboard to loopback alone.
  if (navigator.clipboard) navigator.clipboard.writeText($("yaml").textContent);
  else getSelection().selectAllChildren($("yaml"));
});
$("preview").addEventListener("click", preview);
$("apply").addEventListener("click", apply);
document.addEventListener("visibilitychange", refresh);
// The pod's page only reads, and has no such path.
request("/session").then((session) => { $("preview").hidden = !session.apply; }, () => {});
rows();
refresh();
setInterval(refresh, POLL);
