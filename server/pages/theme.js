/* Before anything is drawn: the theme decides what lies behind. */
const theme = new URLSearchParams(location.search).get("theme");
document.documentElement.dataset.theme = ["light", "dark", "transparent"].includes(theme) ? theme : "auto";
