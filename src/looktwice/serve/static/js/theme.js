// Sets the chosen colours before anything is drawn, so that a dark page never flashes white.
(() => {
  try {
    const theme = localStorage.getItem("looktwice.theme");
    if (theme) document.documentElement.dataset.theme = theme;
  } catch {
    // Storage may be forbidden; the system's colours are used.
  }
})();
