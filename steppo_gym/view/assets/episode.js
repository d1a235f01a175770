"use strict";
// One episode, step by step.

const STEPS = 20;

async function showEpisode(source, route) {
  const { run, file, number, query } = route, step = route.step ?? 0;
  const offset = Math.floor(step / STEPS) * STEPS;
  const [episode, steps] = await Promise.all([
    source.episode(run, file, number), source.steps(run, file, number, offset, STEPS),
  ]);
  remembered.steps = episode.steps;
  const link = (at, more = {}) => address(run, file, number, at, { ...query, ...more });
  const coloring = COLORINGS[query.color] ? query.color : steps.some((one) => one.tokens) ? "advantage" : "none";
  const most = colorScale(steps, coloring);
  const articles = steps.map((one) => stepArticle(source, route, one, coloring, most, one.number === step));
  const last = offset + STEPS >= episode.steps;
  return [
    element("h1", {}, `Episode ${number} `, element("small", {}, episode.task)),
    element("p", { class: "facts" }, outcome(episode), ` ${episode.steps} steps, reward ${short(episode.reward)}`,
      episode.invalid ? `, ${episode.invalid} invalid` : "", episode.seed === null ? "" : `, seed ${episode.seed}`,
      Object.entries(episode.metrics).filter(([name]) => name !== "success").map(([name, value]) => `, ${name} ${short(value)}`)),
    episode.failure && element("p", { class: "failure" }, episode.failure),
    episodeChart(episode, step, (at) => { location.hash = link(at); }),
    mateList(route, episode),
    auditedSteps(route, episode),
    toolbar(source, route, coloring, most, steps.some((one) => one.tokens)),
    pager(episode.steps, offset, STEPS, (start) => link(start)),
    articles,
    steps.length < Math.min(STEPS, episode.steps - offset)
      && element("p", { class: "note" }, "The other steps of this episode are not in this page, and are not searched."),
    last && episode.final_text && element("article", { class: "step" }, element("h3", {}, "Where it was cut off"), textBlock("observation", episode.final_text)),
    pager(episode.steps, offset, STEPS, (start) => link(start)),
  ];
}

function episodeChart(episode, step, onpick) {
  const { curve } = episode, picked = (at) => onpick(Math.min(episode.steps - 1, Math.round(at))), names = ["value", "advantage", "reward"].filter((name) => curve[name]);
  const series = names.map((name, color) => ({
    name, color, points: curve.step.map((at, i) => [at, curve[name][i]]).filter(([, y]) => typeof y === "number"),
  }));
  for (const one of series) if (one.name === "value") one.name = "critic's value";
  const width = curve.step.length > 1 ? curve.step[1] - curve.step[0] : 1;
  return [element("div", { class: "along" }, lineChart({
    title: width > 1 ? `along the episode, each point the mean of ${width} steps` : "along the episode",
    series, xLabel: "step", marked: step, onpick: picked,
  }), legend(series)), truthChart(episode, step, picked)];
}

function mateList(route, episode) {
  if (!episode.mates.length) return null;
  return element("p", { class: "mates" }, "Same task, same start: ", episode.mates.map((mate) => [
    element("a", { href: address(route.run, route.file, mate.number, null, route.query) }, `episode ${mate.number}`), " (", outcome(mate), `, ${mate.steps} steps) `,
  ]));
}

function toolbar(source, route, coloring, most, hasTokens) {
  const { run, file, number, query } = route;
  const choice = element("select", { id: "color", onchange: () => { location.hash = address(run, file, number, route.step, { ...query, color: choice.value }); } },
    Object.entries(COLORINGS).map(([name, { title }]) => element("option", { value: name, selected: name === coloring }, title)));
  const search = element("input", { type: "search", id: "find", value: query.text || "", placeholder: "text in this episode", "aria-label": "Text in this episode" });
  const form = element("form", { onsubmit: async (event) => {
    event.preventDefault();
    const text = search.value.trim();
    if (!text) return;
    const next = await source.find(run, file, number, text, (route.step ?? -1) + 1) ?? await source.find(run, file, number, text, 0);
    if (next === null) tell(`No step of this episode has "${text}".`);
    else location.hash = address(run, file, number, next, { ...query, text });
  } }, search, element("button", {}, "find next"));
  return element("div", { class: "toolbar" },
    element("label", {}, "Color tokens by ", choice), hasTokens ? colorLegend(coloring, most) : element("span", { class: "note" }, "tokens of this episode were not recorded"), form);
}

function stepArticle(source, route, step, coloring, most, chosen) {
  const { run, file, number, query } = route;
  const more = element("div", { class: "more" });
  const facts = [
    `reward ${short(step.reward)}`, typeof step.value === "number" && `value ${short(step.value)}`,
    typeof step.advantage === "number" && `advantage ${short(step.advantage)}`,
    step.truth && `A* ${withInterval(step.truth.advantage)}`,
    typeof step.ratio === "number" && `ratio ${short(step.ratio)} (${short(step.ratio_min)} to ${short(step.ratio_max)})`,
  ].filter(Boolean).join(" · ");
  const ask = (name, show) => element("button", { type: "button", class: name, onclick: async () => {
    more.replaceChildren(...await show());
  } }, name === "whole" ? "whole prompt" : "same state");
  return element("article", { class: chosen ? "step chosen" : "step", id: `step-${step.number}`, "data-step": step.number },
    element("h3", {}, element("a", { href: address(run, file, number, step.number, query), title: "Link to this step" }, `Step ${step.number}`),
      " ", element("small", {}, facts)),
    textBlock("observation", step.observation, step.observation_length, `new in the prompt (${step.prompt_tokens} tokens)`),
    step.admissible && element("details", {}, element("summary", {}, `${step.admissible.length} admissible actions`), element("ul", { class: "actions" }, step.admissible.map((one) => element("li", { class: one === step.action ? "taken" : null }, one)))),
    step.thought && textBlock("thought", step.thought, null, "thought"),
    textBlock("action", step.action, null, "action"),
    truthBlock(step),
    step.invalid !== null && element("p", { class: "invalid" }, "Invalid: ", step.invalid),
    element("details", { class: "response", open: true }, element("summary", {}, `response, ${step.pieces.length} tokens`), tokenLine(step, coloring, most)),
    element("p", { class: "asks" }, ask("whole", () => wholePrompt(source, route, step)), " ", ask("same", () => sameState(source, route, step))),
    more);
}

function textBlock(kind, text, length = null, label = kind) {
  const cut = length !== null && length > text.length;
  return element("div", { class: `text ${kind}` }, element("span", { class: "label" }, label),
    element("pre", {}, text), cut && element("p", { class: "note" }, `${text.length} of ${length} characters; "whole prompt" has all.`));
}

async function wholePrompt(source, route, step) {
  const { before, cut, observation, after, response } = await source.whole(route.run, route.file, route.number, step.number);
  return [element("div", { class: "text" }, element("span", { class: "label" }, "whole prompt and response"),
    element("pre", { class: "whole-prompt" }, cut && element("em", {}, "… what came before is left out …\n"),
      element("span", { class: "old" }, before), element("mark", {}, observation), element("span", { class: "old" }, after), element("b", {}, response)))];
}

async function sameState(source, route, step) {
  const { run, file, number } = route;
  const mates = await source.mates(run, file, number, step.number);
  const others = mates.filter((mate) => mate.episode !== number || mate.number !== step.number);
  if (!others.length) return [element("p", { class: "note" }, "No other step of the group was taken in this state.")];
  return [element("div", { class: "side-by-side" }, mates.map((mate) => element("div", { class: mate.episode === number && mate.number === step.number ? "mate own" : "mate" },
    element("a", { href: address(run, file, mate.episode, mate.number, route.query) }, `episode ${mate.episode}, step ${mate.number}`), " ", outcome({ ...mate, failure: null }),
    element("pre", {}, mate.action), mate.thought && element("p", { class: "thought" }, mate.thought.slice(0, 300)),
    element("small", {}, `return ${short(mate.total)}`, typeof mate.advantage === "number" ? `, advantage ${short(mate.advantage)}` : ""))))];
}
