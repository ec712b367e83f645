// From the address to a page: who reads, which page, and whether it is live.

import { h, setText } from "./dom.js";
import { Login } from "./login.js";
import { Overview } from "./overview.js";
import { PoolPage } from "./pool.js";
import { follow, get } from "./stream.js";

const TOKEN = "velda-token";
const THEME = "velda-theme";
const main = document.getElementById("main");
const connection = document.getElementById("connection");
const reader = { token: sessionStorage.getItem(TOKEN) ?? "", user: null };
let page = null;

function show(next) {
  page?.stop();
  page = next;
  document.title = `${next.title} · Velda`;
  main.replaceChildren(next.element);
  (next.focus ? next : next.heading).focus({ preventScroll: true });
  scrollTo(0, 0);
}

function route() {
  if (reader.user === null) return askForToken();
  const [path, query] = location.hash.replace(/^#/, "").split("?");
  const [, section, namespace, name] = path.split("/").map(decodeURIComponent);
  tell("waiting", "Connecting…");
  if (section === "pools" && name) show(new PoolPage({ follow: live, namespace, name }));
  else show(new Overview({ follow: live, parameters: new URLSearchParams(query), keep }));
}

// In the address, so that a filtered list can be shared and come back to.
function keep(parameters) {
  const kept = new URLSearchParams(Object.entries(parameters).filter(([, value]) => value));
  history.replaceState(null, "", kept.size ? `#/?${kept}` : "#/");
}

function live(path, handlers) {
  return follow(path, reader.token, {
    event: (name, data) => {
      tell("live", "Live");
      page.shown = true;
      handlers[name]?.(data);
    },
    lost: (error) => tell("lost", `Not live: ${error.message || "no connection"}. Trying again…`),
    refused: (error) => {
      if (error.unauthenticated) return leave("The token has expired. Log in again.");
      tell("lost", "Not live");
      refuse(error.message);
    },
  });
}

// What was shown before is still worth reading; what never came is not to be waited for.
function refuse(message) {
  const back = page instanceof PoolPage ? h("p", {}, h("a", { href: "#/" }, "All pools")) : null;
  const notice = h("div", { class: "notice bad", role: "alert" }, h("p", {}, sentence(message)), back);
  if (page.shown) page.element.prepend(notice);
  else page.element.replaceChildren(h("div", { class: "title" }, page.heading), notice);
}

const sentence = (text) => `${text[0].toUpperCase()}${text.slice(1)}.`;

function tell(state, text) {
  connection.dataset.state = state;
  setText(connection, text);
}

function askForToken(why) {
  tell("none", "");
  show(new Login({ enter, why }));
}

async function enter(token) {
  const { user, version } = await (await get("me", token)).json();
  document.getElementById("foot").textContent = `velda-apiserver ${version}`;
  if (user === null) return askForToken();
  Object.assign(reader, { token, user });
  if (token) sessionStorage.setItem(TOKEN, token);
  const parts = [h("span", { class: "user", title: user }, user)];
  if (token) parts.push(h("button", { type: "button", class: "plain", onclick: () => leave() }, "Log out"));
  document.getElementById("who").replaceChildren(...(user ? parts : []));
  route();
}

function leave(why) {
  sessionStorage.removeItem(TOKEN);
  Object.assign(reader, { token: "", user: null });
  document.getElementById("who").replaceChildren();
  askForToken(why);
}

function theme() {
  const button = document.getElementById("theme");
  const system = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const chosen = localStorage.getItem(THEME);
    const dark = chosen ? chosen === "dark" : system.matches;
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    button.setAttribute("aria-pressed", dark);
  };
  button.addEventListener("click", () => {
    localStorage.setItem(THEME, document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    apply();
  });
  system.addEventListener("change", apply);
  apply();
}

async function start() {
  theme();
  document.getElementById("skip").addEventListener("click", () => main.focus());
  addEventListener("hashchange", route);
  for (;;) {
    try {
      return await enter(reader.token);
    } catch (error) {
      if (error.unauthenticated) return leave("The token has expired. Log in again.");
      tell("lost", `Not live: ${error.message}. Trying again…`);
      await new Promise((resolve) => setTimeout(resolve, 2000));
    }
  }
}

start();
