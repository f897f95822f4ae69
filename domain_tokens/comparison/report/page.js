// The browser of questions. Whatever a model or a dataset said is put into the page as text, never as HTML.
async function read(holder) {
  if (holder.type === "application/json") return JSON.parse(holder.textContent);
  const bytes = Uint8Array.from(atob(holder.textContent), (character) => character.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
}
const data = await read(document.getElementById("data"));
const PAGE = 25;
const facts = new RegExp(data.pattern, "g");
const [evaluation, seed, verdicts, order, search, count, list, more] =
  ["evaluation", "seed", "verdicts", "order", "search", "count", "list", "more"].map((id) => document.getElementById(id));
let found = [];
let shown = 0;

// Whether to show a question. right: whether each condition's reply is right.
function matches(right) {
  const wanted = data.conditions.indexOf(verdicts.value);
  if (wanted >= 0) return right.every((each, i) => each === (i === wanted));
  return { all: true, both: right.every(Boolean), neither: !right.some(Boolean) }[verdicts.value];
}

function element(name, className, ...children) {
  const made = document.createElement(name);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

function withFacts(text) {
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(facts)) {
    const mark = element("mark", "", data.facts[match[0]]);
    mark.title = match[0];
    parts.push(text.slice(end, match.index), mark);
    end = match.index + match[0].length;
  }
  return [...parts, text.slice(end)];
}

function side(condition, reply, i) {
  const words = `${condition}: ${reply.right ? "right" : "wrong"}, ` +
    (reply.read === null ? "no number found" : `read as ${reply.read}`);
  const size = ` · ${reply.tokens} tokens` + (reply.facts ? `, ${reply.facts} of them facts` : "");
  const made = element("div", "side",
    element("p", reply.right ? "verdict-right" : "verdict-wrong", words, element("span", "meta", size)),
    element("pre", "", ...withFacts(reply.reply || "(empty)")));
  made.style.borderColor = `var(--group-${i % 6})`;
  return made;
}

function entry(i) {
  const asked = current().questions[i];
  const replies = current().seeds[seed.value].replies[i];
  const link = element("a", "", asked.id);
  link.href = "#" + encodeURIComponent(asked.id);
  const made = element("article", "",
    element("h3", "", asked.question),
    element("p", "meta", link, ` · answer ${asked.reference}`),
    element("div", "sides", ...data.conditions.map((condition, k) => side(condition, replies[k], k))));
  if (asked.solution !== undefined) {
    made.append(element("details", "", element("summary", "", "reference solution"), element("pre", "", asked.solution)));
  }
  made.id = asked.id;
  return made;
}

function current() {
  return data.evaluations[evaluation.value];
}

function showMore() {
  const next = found.slice(shown, shown + PAGE);
  list.append(...next.map(entry));
  shown += next.length;
  more.hidden = shown >= found.length;
  count.textContent = `${found.length} of ${current().questions.length} questions` +
    (shown < found.length ? `, the first ${shown} shown` : "");
}

function update() {
  const wanted = search.value.trim().toLowerCase();
  const replies = current().seeds[seed.value].replies;
  found = [];
  current().questions.forEach((asked, i) => {
    const text = [asked.id, asked.question, asked.reference, ...replies[i].map((reply) =>
      reply.reply + " " + reply.reply.replace(facts, (token) => data.facts[token]))].join("\n").toLowerCase();
    if (matches(replies[i].map((reply) => reply.right)) && text.includes(wanted)) found.push(i);
  });
  if (order.value !== "asked") {
    const size = (i) => replies[i].reduce((sum, reply) => sum + reply[order.value], 0);
    found.sort((i, j) => size(j) - size(i));
  }
  list.replaceChildren();
  shown = 0;
  showMore();
}

function chooseEvaluation() {
  const kept = seed.value;
  seed.replaceChildren(...current().seeds.map((run, i) => new Option(run.seed === null ? `run ${i + 1}` : run.seed, i)));
  if (kept) seed.value = kept;
  document.getElementById("seed-label").hidden = current().seeds.length < 2;
  update();
}

evaluation.append(...data.evaluations.map((each, i) => new Option(each.name, i)));
evaluation.addEventListener("change", chooseEvaluation);
for (const control of [seed, verdicts, order]) control.addEventListener("change", update);
search.addEventListener("input", update);
more.addEventListener("click", () => {
  const first = shown;
  showMore();
  const made = list.children[first];
  made.tabIndex = -1;
  made.focus();
});
document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
chooseEvaluation();

// A link to one question, such as report.html#gsm8k-00012, shows it whatever was chosen before.
function showLinked() {
  const id = decodeURIComponent(location.hash.slice(1));
  const k = data.evaluations.findIndex((each) => each.questions.some((asked) => asked.id === id));
  if (k < 0) return;
  evaluation.value = k;
  [verdicts.value, order.value, search.value] = ["all", "asked", ""];
  chooseEvaluation();
  while (!document.getElementById(id)) showMore();
  document.querySelector(".linked")?.classList.remove("linked");
  document.getElementById(id).classList.add("linked");
  document.getElementById(id).scrollIntoView({ block: "center" });
}
addEventListener("hashchange", showLinked);
showLinked();
