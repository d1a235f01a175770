"use strict";
// The first page: runs side by side, the settings that differ, their curves, and their files of episodes.

const SHOWN_FIRST = ["success", "return", "entropy", "invalid_rate", "clip_fraction", "explained_variance"];

async function showOverview(source) {
  const { runs: all, differing, note } = await source.runs();
  const runs = all.filter((run) => !run.audit && !run.evaluation), audits = all.filter((run) => run.audit);
  const evaluations = all.filter((run) => run.evaluation);
  return [
    note && element("p", { class: "note" }, note),
    runs.length > 0 && runTable(runs),
    evaluations.length > 0 && evaluationTable(evaluations),
    Object.keys(differing).length > 0 && settingsTable(all, differing),
    curves(runs),
    runs.map(fileList),
    audits.map(auditSection),
  ];
}

function runTable(runs) {
  const setting = (run, ...names) => names.map((name) => run.settings[name]).find((value) => value !== undefined) ?? "–";
  return section("Runs", table(
    ["", "algorithm", "task", "seed", "iterations", "success in the last iteration", "greedy success in the last evaluation", "episodes"],
    runs.map((run, i) => [
      [element("span", { class: `swatch c${i % 8}` }), run.name], setting(run, "algorithm"), setting(run, "run.env"),
      setting(run, "config.seed"), short((run.curves.success || []).at(-1)?.[0], 0), percent((run.curves.success || []).at(-1)?.[1]),
      lastEvaluation(run), episodesOf(run),
    ]),
  ));
}

function evaluationTable(evaluations) {
  return section("Evaluations", table(
    ["", "panel", "policy", "success", "95 % interval", "episodes"],
    evaluations.map(({ name, settings, evaluation: { success }, ...run }) => [
      name, settings["evaluation.panel"], settings["evaluation.policy.model"], percent(success?.mean),
      success ? `${percent(success.low)} to ${percent(success.high)}` : "not done", episodesOf({ name, ...run }),
    ]),
  ));
}

function episodesOf(run) {
  return run.files.length ? element("a", { href: address(run.name, openedFirst(run)) }, "look at them") : "none";
}

/** By split: after training, while it goes on in training, and before there is any of these before training. */
function lastEvaluation(run) {
  const around = (when) => Object.entries(run.evaluations)
    .map(([file, scores]) => [file.match(`^${when}-(.*)-greedy\\.jsonl$`), scores.success])
    .filter(([file]) => file).map(([file, success]) => `${file[1]} ${percent(success)}, ${when} training`);
  const during = evaluatedSplits(Object.keys(run.curves))
    .map((split) => [split, run.curves[`eval_${split}_success`].at(-1)])
    .filter(([, point]) => point).map(([split, [at, success]]) => `${split} ${percent(success)}, iteration ${short(at, 0)}`);
  return [around("after"), during, around("before")].find((found) => found.length)?.join("; ") ?? "none";
}

/** As in evaluation/scores.py: a metric of the task's own that ends in "_success" belongs to a split that is there too. */
function evaluatedSplits(names) {
  const found = names.map((name) => name.match(/^eval_(.*)_success$/)?.[1]).filter((split) => split !== undefined);
  return found.filter((split) => !found.some((other) => split.startsWith(`${other}_`)));
}

/** The newest iteration, or what there is. */
function openedFirst(run) {
  return run.files.findLast((name) => name.startsWith("iteration-")) || run.files.at(-1);
}

function settingsTable(runs, differing) {
  // An audit that is alone among runs is compared with none.
  const told = (_, i) => Object.values(differing).some((values) => values[i] !== null);
  return section("Settings that differ", table(
    ["setting", ...runs.filter(told).map((run) => run.name)],
    Object.entries(differing).map(([name, values]) => [element("code", {}, name), ...values.filter(told).map((value) => value ?? "–")]),
  ));
}

function curves(runs) {
  const names = [...new Set(runs.flatMap((run) => Object.keys(run.curves)))].sort();
  if (!names.length) return null;
  const greedy = evaluatedSplits(names).map((split) => `eval_${split}_success`);
  const grid = element("div", { class: "charts" });
  const draw = (name) => {
    const share = /(success|_rate|_fraction)$/.test(name);
    const series = runs.map((run, color) => ({ name: run.name, color, points: run.curves[name] || [] }));
    return lineChart({ title: name, series, xLabel: "iteration", ...(share ? { low: 0, high: 1 } : {}) });
  };
  const first = [...new Set([...greedy.slice(0, 2), ...SHOWN_FIRST])].filter((name) => names.includes(name));
  grid.append(...first.map(draw));
  const choice = element("select", { id: "metric", onchange: () => {
    if (choice.value) grid.prepend(draw(choice.value));
    choice.value = "";
  } }, element("option", { value: "" }, "add a metric"), names.map((name) => element("option", {}, name)));
  return section("Curves", legend(runs.map((run) => run.name)), grid, element("label", {}, "Another: ", choice));
}

function fileList(run) {
  const at = (name, iteration) => (run.curves[name] || []).find(([x]) => Math.abs(x - iteration) < 1e-6)?.[1];
  const rows = run.files.map((file) => {
    const scores = run.evaluations[file];
    const iteration = +(file.match(/^iteration-(\d+)/) || [])[1];
    return [
      element("a", { href: address(run.name, file) }, file.replace(/\.jsonl$/, "")),
      ...["success", "return", "episode_steps", "invalid_rate", "entropy"].map((name) => short(scores ? scores[name] : at(name, iteration))),
    ];
  });
  return section(`Episodes of ${run.name}`, table(["file", "success", "return", "steps", "invalid", "entropy"], rows));
}

function section(title, ...content) {
  return element("section", {}, element("h2", {}, title), content);
}

function table(header, rows) {
  return element("div", { class: "scroll" }, element("table", {},
    element("thead", {}, element("tr", {}, header.map((cell) => element("th", { scope: "col" }, cell)))),
    element("tbody", {}, rows.map((row) => element("tr", {}, row.map((cell) => element("td", {}, cell)))))));
}
