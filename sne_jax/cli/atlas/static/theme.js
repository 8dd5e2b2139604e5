/* Light and dark: as the reader's system has it, until the button is used. */
(() => {
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  let kept = null;
  try {
    kept = localStorage.getItem("theme");
  } catch {} // A file may have no storage.
  const set = (theme) => {
    root.dataset.theme = theme;
    root.dispatchEvent(new Event("theme"));
  };
  set(kept || (system.matches ? "dark" : "light"));
  addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme").addEventListener("click", () => {
      const other = root.dataset.theme === "dark" ? "light" : "dark";
      try {
        localStorage.setItem("theme", other);
      } catch {}
      set(other);
    });
  });
})();
