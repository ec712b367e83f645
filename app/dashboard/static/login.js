// Who has no token yet, or one that has expired.

import { h } from "./dom.js";

const COMMANDS = [
  "kubectl create serviceaccount dashboard --namespace velda",
  "kubectl create clusterrolebinding dashboard \\\n    --clusterrole velda-viewer --serviceaccount velda:dashboard",
  "kubectl create token dashboard --namespace velda \\\n    --audience velda-apiserver --duration 8h",
];

export class Login {
  title = "Log in";

  constructor({ enter, why }) {
    this.enter = enter;
    this.heading = h("h1", { tabindex: "-1" }, "Log in");
    this.field = h("input", { id: "token", type: "password", autocomplete: "off", spellcheck: "false", "aria-describedby": "token-hint token-error" });
    this.wrong = h("p", { id: "token-error", class: "notice bad", role: "alert", hidden: !why }, why ?? "");
    this.button = h("button", { class: "primary" }, "Log in");
    const form = h(
      "form",
      { onsubmit: (event) => this.#submit(event) },
      h("label", { for: "token" }, "Token of a Kubernetes user or service account"),
      this.field,
      h("p", { id: "token-hint", class: "muted" }, "It stays in this tab and is forgotten when you log out or close it."),
      this.wrong,
      this.button,
    );
    this.copied = h("span", { class: "copied muted", role: "status" });
    const help = [
      h("h2", {}, "How to get a token"),
      h("p", {}, "Any user of the cluster who may get, list and watch agentpools can log in. For a service account that may look at every pool:"),
      h("pre", { tabindex: "0", "aria-label": "Commands" }, h("code", {}, COMMANDS.join("\n"))),
      h("button", { type: "button", class: "plain", onclick: () => this.#copy() }, "Copy commands"),
      this.copied,
      h("p", { class: "muted" }, "velda-viewer is the role that the chart made, if the release is called velda. A token for this audience opens nothing but this server."),
    ];
    this.element = h("div", { class: "login" }, h("section", { class: "card" }, this.heading, form), h("section", { class: "card" }, help));
  }

  focus() {
    this.field.focus();
  }

  stop() {}

  async #submit(event) {
    event.preventDefault();
    const token = this.field.value.trim();
    if (!token) return this.#say("Paste a token first.");
    this.button.disabled = true;
    try {
      await this.enter(token);
    } catch (error) {
      this.#say(error.unauthenticated ? "The server does not take this token: it has expired, or is of another cluster." : error.message);
    } finally {
      this.button.disabled = false;
    }
  }

  #say(text) {
    this.wrong.hidden = false;
    this.wrong.textContent = text;
    this.field.setAttribute("aria-invalid", "true");
    this.field.focus();
  }

  async #copy() {
    await navigator.clipboard.writeText(COMMANDS.join("\n"));
    this.copied.textContent = "Copied";
  }
}
