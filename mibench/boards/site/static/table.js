// The page of a board: the table sorted and filtered, the plot of what it shows, downloads of it.
"use strict";

(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const element = document.getElementById("standings");
  if (!element) return;
  const byId = (id) => document.getElementById(id);
  const picks = [...document.querySelectorAll("input[data-attack]")];
  const download = new Download(data);
  const table = new DataTable(element, {
    paging: false,
    autoWidth: false,
    order: [],
    layout: { topStart: null, topEnd: null, bottomStart: null, bottomEnd: null },
    language: { zeroRecords: "No defense fits the filters." },
    columnDefs: [{ targets: "_all", orderSequence: ["asc", "desc"] }],
  });
  const heads = [...element.querySelectorAll("thead th")];
  const columns = new Map(heads.filter((one) => one.dataset.attack !== undefined).map((one) => [one.dataset.attack, heads.indexOf(one)]));

  const shownRows = () =>
    table.rows({ search: "applied", order: "current" }).nodes().toArray().map((node) => data.rows[Number(node.dataset.row)]);
  const shownAttacks = () => picks.filter((one) => one.checked).map((one) => one.dataset.attack);

  function tell() {
    const rows = shownRows();
    byId("shown").textContent = `${rows.length} of ${data.rows.length} defenses, ${shownAttacks().length} of ${data.attacks.length} attacks shown.`;
    scatter(byId("scatter"), { rows, groups: data.groups, attack: byId("axis-y").value, utility: byId("axis-x").value });
  }

  function showAttacks() {
    for (const one of picks) table.column(columns.get(one.dataset.attack)).visible(one.checked, false);
    table.columns.adjust();
    tell();
  }

  byId("filter-text").addEventListener("input", (event) => table.search(event.target.value).draw());
  byId("filter-ranked").addEventListener("change", (event) => {
    const keep = (_text, _row, index) => data.rows[Number(table.row(index).node().dataset.row)].place.length > 0;
    table.search.fixed("ranked", event.target.checked ? keep : null).draw();
  });
  byId("filter-access").addEventListener("change", (event) => {
    const wanted = event.target.value;
    for (const one of picks) one.checked = wanted === "" || one.dataset.access === wanted;
    showAttacks();
  });
  for (const one of picks) one.addEventListener("change", showAttacks);
  for (const form of [byId("filters"), byId("axes")]) {
    form.addEventListener("submit", (event) => event.preventDefault());
    form.hidden = false;
  }
  for (const name of ["axis-x", "axis-y"]) byId(name).addEventListener("change", tell);
  for (const button of byId("downloads").querySelectorAll("button")) {
    button.addEventListener("click", () => download.save(button.dataset.format, shownRows(), shownAttacks()));
  }
  byId("downloads").hidden = false;
  legend(byId("legend"), data.groups);
  table.on("draw", tell);
  onWidth(byId("scatter"), tell);
})();
