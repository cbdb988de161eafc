"use strict";
// Tables of the class `sortable`: a button in each heading sorts its column, first downwards where it holds numbers.
// The value of a cell is its `data-value`, else its text; cells without a value stay at the end.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const value = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const numeric = heading.classList.contains("number");
      const before = heading.getAttribute("aria-sort");
      const down = before ? before === "ascending" : numeric;
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const compare = (a, b) => {
        const [x, y] = [value(a, column), value(b, column)];
        if (x === "" || y === "") return (x === "") - (y === "");
        const order = numeric ? Number(x) - Number(y) : x.localeCompare(y);
        return down ? -order : order;
      };
      body.append(...[...body.rows].sort(compare));
    });
  });
}
// Confusion matrices: a line says what the cell under the pointer or the focus holds; arrow keys, Home and End move
// the focus; a menu orders rows and columns alike.
for (const matrix of document.querySelectorAll("table.matrix")) {
  const body = matrix.tBodies[0];
  const readout = document.getElementById(matrix.dataset.readout);
  const names = new Map([...body.rows].map((row) => [row.dataset.label, row.cells[0].textContent.trim()]));
  const frames = new Map([...body.rows].map((row) => [row.dataset.label, Number(row.dataset.frames)]));
  const show = (cell) => {
    const label = cell.parentElement.dataset.label;
    const column = matrix.tHead.rows[0].cells[cell.cellIndex].dataset.label;
    const count = Number(cell.dataset.n ?? 0);
    const all = frames.get(label);
    const share = all ? `, ${(100 * count / all).toFixed(2)} % of its ${all.toLocaleString("en")} frames` : "";
    readout.textContent = `${names.get(label)} taken for ${names.get(column)}: ${count.toLocaleString("en")} frames${share}`;
    if (label === column) readout.textContent = readout.textContent.replace(/ taken for .*?: /, " right: ");
  };
  const cellOf = (event) => event.target.closest("td");
  const focus = (cell) => {
    matrix.querySelector("td[tabindex='0']")?.setAttribute("tabindex", "-1");
    cell.tabIndex = 0;
    cell.focus();
  };
  body.rows[0].cells[1].tabIndex = 0;
  matrix.addEventListener("mouseover", (event) => cellOf(event) && show(cellOf(event)));
  matrix.addEventListener("focusin", (event) => cellOf(event) && show(cellOf(event)));
  matrix.addEventListener("click", (event) => cellOf(event) && focus(cellOf(event)));
  matrix.addEventListener("keydown", (event) => {
    const cell = cellOf(event);
    if (!cell) return;
    let [row, column] = [cell.parentElement.sectionRowIndex, cell.cellIndex];
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    if (moves[event.key]) [row, column] = [row + moves[event.key][0], column + moves[event.key][1]];
    else if (event.key === "Home") column = 1;
    else if (event.key === "End") column = body.rows.length;
    else return;
    event.preventDefault();
    const next = body.rows[row]?.cells[column];
    if (next?.tagName === "TD") focus(next);
  });
  const menu = document.getElementById(matrix.dataset.order);
  const first = [...body.rows].map((row) => row.dataset.label);
  const byName = [...first].sort((a, b) => names.get(a).localeCompare(names.get(b)));
  const rank = new Map(first.map((label, at) => [label, at]));
  const ranks = { given: rank, name: new Map(byName.map((label, at) => [label, at])) };
  menu.addEventListener("change", () => {
    const key = menu.value;
    const measure = (row) => ranks[key]?.get(row.dataset.label) ?? Number(row.dataset[key]);
    const rows = [...body.rows].sort((a, b) => measure(a) - measure(b) || rank.get(a.dataset.label) - rank.get(b.dataset.label));
    if (key === "frames") rows.reverse();
    const order = rows.map((row) => row.dataset.label);
    for (const row of [matrix.tHead.rows[0], ...rows]) {
      const labels = [...matrix.tHead.rows[0].cells].slice(1).map((cell) => cell.dataset.label);
      row.orderNow = new Map(labels.map((label, at) => [label, row.cells[at + 1]]));
    }
    for (const row of [matrix.tHead.rows[0], ...rows]) row.append(...order.map((label) => row.orderNow.get(label)));
    body.append(...rows);
  });
}
