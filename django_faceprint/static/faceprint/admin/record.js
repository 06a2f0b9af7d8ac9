// One record by keyboard, texts to copy, and raw answers on demand. Without scripts, links do the same.
"use strict";
document.addEventListener("DOMContentLoaded", () => {
    // --- keys -----------------------------------------------------------------------------------

    const section = document.getElementById("fp-media");
    const keys = document.getElementById("fp-keys");
    const help = document.getElementById("fp-keys-open");
    const show = () => document.getElementById("fp-show-media");
    const follow = (relation) => document.querySelector(`a[rel=${relation}]`)?.click();
    const step = (frames) => section?.dispatchEvent(new CustomEvent("fp:step", {detail: frames}));
    const compare = () => {
        const button = document.getElementById("fp-compare");
        if (show()) {
            section.addEventListener("fp:settled", () => button.click(), {once: true});
            show().click();
        } else {
            button?.click();
        }
    };
    const KEYS = {
        "n": () => follow("next"), "p": () => follow("prev"), "o": () => show()?.click(), "c": compare,
        ",": () => step(-1), ".": () => step(1), "?": () => keys.showModal(),
    };
    const isTyping = (target) => target.closest("input, textarea, select, [contenteditable]") !== null;
    document.addEventListener("keydown", (event) => {
        if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.isComposing
            || isTyping(event.target) || document.querySelector("dialog[open]")) {
            return;
        }
        const act = KEYS[event.key];
        if (act) {
            event.preventDefault();
            act();
        }
    });
    help.hidden = false;
    help.addEventListener("click", () => keys.showModal());

    // --- texts to copy --------------------------------------------------------------------------

    const copied = async (text) => {
        try {
            await navigator.clipboard.writeText(text);
            return true;
        } catch {
            // Over plain HTTP there is no clipboard for scripts, but there is an old command.
            const field = document.createElement("textarea");
            field.value = text;
            document.body.append(field);
            field.select();
            const done = document.execCommand("copy");
            field.remove();
            return done;
        }
    };
    for (const button of document.querySelectorAll("[data-copy]")) {
        const name = button.textContent;
        button.hidden = false;
        button.addEventListener("click", async () => {
            if (await copied(button.dataset.copy)) {
                button.focus();
                button.textContent = button.dataset.copied;
                setTimeout(() => { button.textContent = name; }, 1500);
            }
        });
    }

    // --- raw answers ----------------------------------------------------------------------------

    const table = document.getElementById("fp-answer-table");
    const load = async (link, cell) => {
        cell.textContent = table.dataset.loading;
        try {
            const response = await fetch(link.href, {headers: {"Accept": "application/json"}, redirect: "error"});
            if (!response.ok) {
                throw new Error(response.status);
            }
            const {text, problem} = await response.json();
            const content = document.createElement(text ? "pre" : "p");
            content.textContent = text || problem;
            if (text) {
                content.className = "fp-answer-text";
                content.tabIndex = 0;
            }
            cell.replaceChildren(content);
            return true;
        } catch {
            // No network, a session that has ended, or a record that is gone.
            cell.textContent = table.dataset.failed;
            return false;
        }
    };
    table?.addEventListener("click", async (event) => {
        const link = event.target.closest("a.fp-answer");
        if (!link || event.ctrlKey || event.metaKey || event.shiftKey) {
            return;
        }
        event.preventDefault();
        const row = link.closest("tr");
        const below = row.nextElementSibling?.matches(".fp-answer-row") ? row.nextElementSibling : null;
        if (below) {
            below.remove();
            if (link.getAttribute("aria-expanded") === "true") {
                link.textContent = link.dataset.show;
                link.setAttribute("aria-expanded", "false");
                return;
            }
        }
        const added = document.createElement("tr");
        const cell = document.createElement("td");
        added.className = "fp-answer-row";
        cell.colSpan = row.cells.length;
        cell.setAttribute("aria-live", "polite");
        added.append(cell);
        row.after(added);
        if (await load(link, cell)) {
            link.dataset.show = link.textContent;
            link.textContent = table.dataset.hide;
            link.setAttribute("aria-expanded", "true");
        }
    });
});
