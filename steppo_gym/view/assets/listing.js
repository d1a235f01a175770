"use strict";
// The episodes of a file, filtered, sorted and searched. The filters are part of the address, so that they can be linked.

const ROWS = 50;
const OUTCOMES = { terminated: "ended", truncated: "cut off", failed: "failed" };

async function showListing(source, route) {
  const { run, file, query } = route, offset = +(query.offset || 0);
  const { total, all, episodes } = await source.episodes(run, file, query, offset, ROWS);
  remembered.numbers = episodes.map((row) => row.number);
  const audited = episodes.some((row) => row.audited !== undefined);
  const counted = total === all ? `${all} episodes` : `${total} of ${all} episodes`;
  return [
    element("h1", {}, file.replace(/\.jsonl$/, "")),
    filterForm(route),
    element("p", { id: "count", role: "status" }, counted),
    element("div", { class: "scroll" }, element("table", { class: "episodes" },
      element("thead", {}, element("tr", {}, heading(route, "number", "#"), heading(route, "task", "task"), element("th", {}, "end"),
        heading(route, "steps", "steps"), heading(route, "reward", "reward"), heading(route, "invalid", "invalid"),
        audited && element("th", {}, "audited"), query.text ? element("th", {}, "found") : null)),
      element("tbody", {}, episodes.map((row) => episodeRow(route, row))))),
    pager(total, offset, ROWS, (start) => address(run, file, null, null, { ...query, offset: start || "" })),
  ];
}

function episodeRow(route, row) {
  const link = address(route.run, route.file, row.number, row.found ?? null, filtersOf(route.query));
  return element("tr", { "data-number": row.number, "data-link": link },
    element("td", {}, element("a", { href: link }, row.number)), element("td", { class: "task" }, row.task),
    element("td", {}, outcome(row)), element("td", {}, row.steps), element("td", {}, short(row.reward)),
    element("td", {}, row.invalid || ""), row.audited !== undefined && element("td", {}, row.audited || ""), route.query.text ? element("td", {}, `step ${row.found}`) : null);
}

function outcome(row) {
  const kind = row.ended === "failed" ? "void" : row.success ? "good" : "bad";
  const said = row.ended === "failed" ? row.failure || "failed" : row.success ? "success" : `no success, ${OUTCOMES[row.ended] || row.ended}`;
  return element("span", { class: `outcome ${kind}` }, said);
}

function heading(route, key, title) {
  const { query } = route, chosen = (query.sort || "number") === key, down = query.descending === "yes";
  const next = { ...query, sort: key, descending: chosen && !down ? "yes" : "", offset: "" };
  const sort = chosen ? (down ? "descending" : "ascending") : null;
  return element("th", { scope: "col", "aria-sort": sort },
    element("a", { href: address(route.run, route.file, null, null, next) }, title, chosen ? (down ? " ↓" : " ↑") : ""));
}

const FIELDS = [
  ["success", "success", ["", "yes", "no"]], ["ended", "end", ["", "terminated", "truncated", "failed"]],
  ["invalid", "invalid actions", ["", "yes", "no"]], ["task", "task has", "text"], ["min_steps", "steps from", "number"],
  ["max_steps", "to", "number"], ["min_reward", "reward from", "number"], ["max_reward", "to", "number"],
  ["text", "text in it", "search"],
];

/** The filters of an address, without what only the list needs. */
function filtersOf(query) {
  return Object.fromEntries(Object.entries(query).filter(([name]) => name !== "offset"));
}

function filterForm(route) {
  const { query } = route;
  const control = ([name, label, kind]) => {
    const field = Array.isArray(kind)
      ? element("select", { name }, kind.map((value) => element("option", { value, selected: (query[name] || "") === value }, value || "any")))
      : element("input", { name, type: kind, value: query[name] || "", step: "any", size: kind === "number" ? 6 : 16 });
    return element("label", {}, label, " ", field);
  };
  const form = element("form", { class: "filters", id: "filters", onchange: go, onsubmit: (event) => { event.preventDefault(); go(); } },
    FIELDS.map(control),
    element("a", { class: "button", href: address(route.run, route.file, null, null, { success: "no" }) }, "failures"),
    element("a", { class: "button", href: address(route.run, route.file) }, "all"));
  function go() {
    const wanted = Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, value.trim()]));
    const { sort, descending } = query;
    location.hash = address(route.run, route.file, null, null, { ...wanted, sort, descending });
  }
  return form;
}

function pager(total, offset, size, link) {
  if (total <= size) return null;
  const last = Math.floor((total - 1) / size) * size;
  const item = (start, title, there) => there ? element("a", { href: link(start) }, title) : element("span", { class: "off" }, title);
  return element("nav", { class: "pager", "aria-label": "Pages" },
    item(0, "first", offset > 0), item(Math.max(0, offset - size), "before", offset > 0),
    element("span", {}, `${offset}–${Math.min(total, offset + size) - 1} of ${total}`),
    item(offset + size, "after", offset + size < total), item(last, "last", offset < last));
}
