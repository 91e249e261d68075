"use strict";
// Filters of the matrix. The choice is in the part of the address after #, which works without a server too.
lab.feature("matrix", (form) => {
  const table = document.getElementById(form.dataset.table);
  const count = document.getElementById(form.dataset.count);
  const names = ["guest", "variant", "build", "status", "cause", "differs"];
  const rows = [...table.tBodies[0].rows].map((row) => ({
    row,
    squares: [...row.cells].slice(1).map((square) => ({
      square,
      values: { guest: row.dataset.guest, differs: "no", ...square.dataset },
      exists: "status" in square.dataset,
    })),
  }));
  const [groups, heads] = [...table.tHead.rows].map((row) => [...row.cells]);
  const total = rows.flatMap((each) => each.squares).filter((each) => each.exists).length;

  // A choice has a set of values for each filter; an empty set means all.
  const chosenInAddress = () => {
    const wanted = new URLSearchParams(location.hash.slice(1));
    return Object.fromEntries(names.map((name) => [name, new Set(wanted.getAll(name))]));
  };
  const chosenInForm = () => {
    const data = new FormData(form);
    return Object.fromEntries(names.map((name) => [name, new Set(data.getAll(name))]));
  };
  const matches = (values, chosen) =>
    names.every((name) => chosen[name].size === 0 || chosen[name].has(values[name]));

  const show = (chosen) => {
    const filtered = names.some((name) => chosen[name].size > 0);
    const columns = heads.map(() => !filtered);
    let cells = 0;
    let guests = 0;
    for (const { row, squares } of rows) {
      let any = false;
      squares.forEach(({ square, values, exists }, column) => {
        const shown = exists && matches(values, chosen);
        square.toggleAttribute("data-filtered", exists && !shown);
        if (!shown) return;
        columns[column] = any = true;
        cells += 1;
      });
      row.hidden = filtered && !any;
      guests += any ? 1 : 0;
    }
    showColumns(columns);
    count.textContent = `${cells} of ${total} cells shown, ${guests} of ${rows.length} guests`;
  };

  const showColumns = (shown) => {
    // The first column of a variant that is shown has the line between variants.
    const variants = heads.map((head, column) => shown[column] && head.dataset.variant);
    const showOne = (cell, column) => {
      cell.hidden = !shown[column];
      cell.classList.toggle("group", variants.indexOf(variants[column]) === column);
    };
    heads.forEach(showOne);
    for (const { squares } of rows) squares.forEach(({ square }, column) => showOne(square, column));
    for (const group of groups.slice(1)) {
      const left = heads.filter((head) => head.dataset.variant === group.dataset.variant && !head.hidden).length;
      group.hidden = left === 0;
      if (left) group.colSpan = left;
    }
  };

  const label = (chosen) => {
    for (const details of form.querySelectorAll("details[data-filter]")) {
      const values = [...chosen[details.dataset.filter]].map((value) => value || "no cause");
      details.querySelector(".chosen").textContent =
        values.length === 0 ? "all" : values.length < 3 ? values.join(", ") : `${values.length} chosen`;
    }
  };

  const fromAddress = () => {
    // The link that skips to the content has no filter: it changes nothing.
    if (location.hash.length > 1 && !location.hash.includes("=")) return;
    const chosen = chosenInAddress();
    for (const box of form.querySelectorAll("input[type=checkbox]")) box.checked = chosen[box.name].has(box.value);
    label(chosen);
    show(chosen);
  };
  const fromForm = () => {
    const chosen = chosenInForm();
    const wanted = new URLSearchParams();
    for (const name of names) for (const value of chosen[name]) wanted.append(name, value);
    history.replaceState(null, "", `#${wanted}`);
    label(chosen);
    show(chosen);
  };

  form.addEventListener("change", fromForm);
  // The boxes are empty only after this event.
  form.addEventListener("reset", () => setTimeout(fromForm));
  form.addEventListener("submit", (event) => event.preventDefault());
  // An open list closes with Escape, and when the focus or a click leaves it.
  for (const details of form.querySelectorAll("details")) {
    details.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !details.open) return;
      details.open = false;
      details.querySelector("summary").focus();
    });
    details.addEventListener("focusout", (event) => {
      if (event.relatedTarget && !details.contains(event.relatedTarget)) details.open = false;
    });
  }
  document.addEventListener("click", (event) => {
    for (const details of form.querySelectorAll("details[open]")) {
      if (!details.contains(event.target)) details.open = false;
    }
  });
  addEventListener("hashchange", fromAddress);
  form.hidden = false;
  fromAddress();
});
