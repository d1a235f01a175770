"use strict";
// What an audit measured: of a step, along an episode, and in all.

// Below it is rounding, as in credit/records.py.
const NO_CREDIT = 1e-9;
const VERDICTS = {
  matters: "the choice matters here", indifferent: "the choice does not matter here",
  single: "the policy began with no other response", open: "too few continuations to say whether the choice matters",
};

/** An estimate with the ends of its interval. */
function withInterval(interval) {
  return interval ? `${short(interval[0])} (${short(interval[1])} to ${short(interval[2])})` : "–";
}

/** Whether credit has the sign of a true advantage; nothing is said where the truth may have either. */
function signJudged(credit, advantage) {
  if (!advantage || typeof credit !== "number") return "–";
  const [, low, high] = advantage;
  if (low <= 0 && high >= 0) return element("span", { class: "outcome void" }, "A* may be 0");
  if (Math.abs(credit) < NO_CREDIT) return element("span", { class: "outcome void" }, "none");
  const right = credit > 0 === low > 0;
  return element("span", { class: `outcome ${right ? "good" : "bad"}` }, right ? "right" : "wrong");
}

/** What was measured at a step, beside what it was given. */
function truthBlock(step) {
  const { truth } = step;
  if (!truth) return null;
  const most = Math.max(1e-9, ...truth.responses.flatMap(({ advantage }) => (advantage || []).map(Math.abs)));
  const arms = truth.responses.map((one, i) => [
    [element("pre", {}, one.response), i === 0 && element("small", {}, "taken")], `${one.draws} of ${truth.continuations}`,
    short(one.value), withInterval(one.advantage), intervalBar(one.advantage, most),
  ]);
  return element("div", { class: "text truth" },
    element("span", { class: "label" }, "audit: ", element("b", { class: truth.verdict }, VERDICTS[truth.verdict] || truth.verdict)),
    element("p", {}, `V* ${short(truth.value)}, the mean return of ${truth.continuations} continuations from this state`),
    table(["response", "begun with", "return", "A*", `A* from ${short(-most)} to ${short(most)}`], arms), creditTable(step));
}

function creditTable({ truth, advantage }) {
  const rows = Object.entries(truth.credit).map(([name, { mean, std, scaled }]) => [
    name, `${short(mean)} ± ${short(std < NO_CREDIT ? 0 : std)}`, short(scaled), signJudged(mean, truth.advantage),
  ]);
  if (typeof advantage === "number") rows.unshift([element("b", {}, "in training"), short(advantage), "–", signJudged(advantage, truth.advantage)]);
  if (!rows.length) return null;
  return element("details", { open: typeof advantage === "number" }, element("summary", {}, "credit of this step by each rule"),
    table(["rule", "credit over batches", "on the scale of A*", "sign"], rows));
}

/** An interval as a bar around 0; to both sides there is as much room. */
function intervalBar(interval, most) {
  if (!interval) return "";
  const [estimate, low, high] = interval, across = (value) => 70 + (68 * value) / most;
  return drawn("svg", { class: "interval", width: 140, height: 16, viewBox: "0 0 140 16", role: "img", "aria-label": withInterval(interval) },
    drawn("line", { class: "zero", x1: 70, x2: 70, y1: 0, y2: 16 }), drawn("line", { class: "bar c1", x1: across(low), x2: across(high), y1: 8, y2: 8 }),
    drawn("circle", { class: "dot c1", cx: across(estimate), cy: 8, r: 3.5 }));
}

/** The measured values and advantages along an episode, beside the critic's; what enters the loss has another scale. */
function truthChart(episode, step, onpick) {
  const { truth, curve } = episode;
  if (!truth.length) return null;
  const value = { name: "V*, measured", color: 3, alone: true, points: truth.filter((one) => typeof one.value === "number").map((one) => [one.place, one.value]) };
  const known = truth.filter((one) => one.advantage);
  const advantage = {
    name: "A*, measured", color: 4, alone: true, points: known.map((one) => [one.place, one.advantage[0]]),
    bars: known.map((one) => [one.place, one.advantage[1], one.advantage[2]]),
  };
  const critic = { name: "critic's value", color: 0, points: curve.value ? curve.step.map((at, i) => [at, curve.value[i]]).filter(([, y]) => typeof y === "number") : [] };
  const series = [critic, value, advantage].filter((one) => one.points.length);
  return element("div", { class: "along measured" },
    lineChart({ title: "what the audit measured, with 95 % intervals", series, xLabel: "step", marked: step, low: 0, high: 0, left: 0, right: episode.steps - 1, onpick }), legend(series));
}

function auditedSteps(route, episode) {
  if (!episode.truth.length) return null;
  return element("p", { class: "audited" }, "Audited: ", episode.truth.map((one) => [
    element("a", { href: address(route.run, route.file, episode.number, one.place, route.query) }, `step ${one.place}`),
    ` (${one.verdict}, A* ${one.advantage ? short(one.advantage[0]) : "–"}) `,
  ]));
}

const MOST_POINTS = 200;

/** An audit on the first page: shares, scores of rules, and the steps, those that matter first. */
function auditSection(run) {
  const { report, points } = run.audit, file = run.files[0], rules = Object.keys(report.rules || {});
  const iteration = run.settings.iteration;
  const of = `${run.settings.source}${iteration && iteration !== "null" ? `, episodes of iteration ${iteration}` : ""}`;
  if (!report.points) {
    return section(`Audit ${run.name}`, element("p", {}, `Of ${of}. It is not done; call it again, and it goes on. `, element("a", { href: address(run.name, file) }, "its episodes")));
  }
  const [low, high] = report.rho_interval;
  const scores = rules.map((name) => {
    const { sign, rank, cosine, error, dose } = report.rules[name];
    return [name, ...[sign, rank, cosine, error.bias, error.variance, dose].map((value) => short(value, 2))];
  });
  const steps = points.slice(0, MOST_POINTS).map((one) => [
    element("a", { href: address(run.name, file, one.episode, one.place) }, `episode ${one.episode}, step ${one.place}`),
    one.verdict, short(one.value, 2), withInterval(one.advantage), ...rules.map((name) => short(one.credit[name], 2)),
  ]);
  return section(`Audit ${run.name}`,
    element("p", {}, `Of ${of}. ${report.points} steps; the choice matters by more than ${short(report.threshold)} at ${percent(report.rho)} (${percent(low)} to ${percent(high)}). `,
      element("a", { href: address(run.name, file) }, "all its episodes")),
    table(["rule", "sign", "rank", "cosine", "bias", "variance", "dose"], scores),
    element("p", { class: "note" }, "Credit equal to A* has sign, rank and cosine 1, bias and variance 0; credit that knows nothing has 0.5, 0, 0, 1 and 0."),
    element("h3", {}, "Audited steps"), element("p", { class: "note" }, "Those that matter first; of each rule its mean credit on the scale of A*."),
    element("div", { class: "points" }, table(["step", "choice", "V*", "A*", ...rules], steps)),
    points.length > MOST_POINTS && element("p", { class: "note" }, `${MOST_POINTS} of ${points.length} steps.`));
}
