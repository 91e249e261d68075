"use strict";
// Loads the small features of the pages. A page works without any of them.
//
// lab.feature("name", element => ...) calls the function with each element that has data-feature="name".
// Elements that make sense only with a script are hidden in the page; their feature shows them.
const lab = {
  feature(name, start) {
    for (const element of document.querySelectorAll(`[data-feature~="${name}"]`)) start(element);
  },
};
document.documentElement.classList.add("js");

// A button that copies the text of the element whose id is in data-copies, and says so.
lab.feature("copy", (button) => {
  const label = button.textContent;
  const say = (text) => {
    button.textContent = text;
    setTimeout(() => (button.textContent = label), 2000);
  };
  button.hidden = false;
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copies);
    try {
      await navigator.clipboard.writeText(source.textContent.trim());
      say("Copied");
    } catch {
      // The browser allows no access to the clipboard: select the text, so that one key copies it.
      getSelection().selectAllChildren(source);
      say("Selected: press Ctrl+C");
    }
  });
});
